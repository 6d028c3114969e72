"""Shelf: where PDFs of invoices are kept: a directory, or (``shelf_remote``) whatever fsspec can write to.

In a directory a file is written beside its place, forced to disk, and moved there by one rename: whatever kills us, a
file that stands in its place is whole. A name never leads out of the shelf, whatever the CRM calls an invoice.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from string import ascii_letters, digits
from typing import Protocol
from urllib.parse import quote

from syncd.domain.errors import InfrastructureError

_PLAIN = frozenset(ascii_letters + digits + "-_.")
_LONGEST = 120
PART = ".part"
_STALE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Draft:
    """A whole file that is not in its place yet. ``path`` is that place, below the shelf."""

    path: str
    file: Path
    sha256: bytes
    size_bytes: int


def place(account: str, number: str, *, is_credit: bool) -> str:
    """Return where an invoice's PDF lies, below the shelf; two invoices of an account never share a place."""
    return f"{account}/{'credit/' if is_credit else ''}{_plain(number)}.pdf"


class Shelf(Protocol):
    """All methods block, and raise InfrastructureError."""

    def draft(self, path: str, pieces: Iterable[bytes]) -> Draft:
        """Write a file, not yet in its place."""

    def publish(self, draft: Draft) -> None:
        """Move a file to its place; whatever was there before is replaced."""

    def holds(self, path: str, sha256: bytes) -> bool:
        """Tell whether the very file stands in this place."""

    def remove(self, path: str) -> bool:
        """Delete the file in this place; tell whether there was one. A place outside the shelf holds none."""

    def tidy(self, now: datetime) -> None:
        """Delete what killed processes left beside the places, a day later: a younger one may be somebody's work."""


class Directory:
    """A directory of this machine; it is made when the first file is."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def draft(self, path: str, pieces: Iterable[bytes]) -> Draft:
        with self._told():
            directory = (self._root / path).parent
            directory.mkdir(parents=True, exist_ok=True)
            return drafted(path, pieces, directory, prefix=".")

    def publish(self, draft: Draft) -> None:
        with self._told():
            place = self._root / draft.path
            os.replace(draft.file, place)
            _sync_directory(place.parent)

    def holds(self, path: str, sha256: bytes) -> bool:
        with self._told():
            try:
                with (self._root / path).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").digest() == sha256
            except FileNotFoundError:
                return False

    def remove(self, path: str) -> bool:
        with self._told():
            if not is_inside(path):
                return False
            try:
                (self._root / path).unlink()
            except FileNotFoundError:
                return False
            _sync_directory((self._root / path).parent)
            return True

    def tidy(self, now: datetime) -> None:
        with self._told():
            sweep_away(self._root.rglob(f".*{PART}"), now)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InfrastructureError(
                f"the files of invoices in {self._root} cannot be read or written ({error.strerror}); see to "
                "SYNCD_INVOICE_FILES"
            ) from None


def drafted(path: str, pieces: Iterable[bytes], directory: Path | None = None, *, prefix: str) -> Draft:
    """Write a file of a name of its own into a directory (None: the system's for such files)."""
    number, name = tempfile.mkstemp(suffix=PART, prefix=prefix, dir=directory)
    file = Path(name)
    try:
        digest, size = _fill(number, pieces)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return Draft(path, file, digest, size)


def sweep_away(parts: Iterable[Path], now: datetime) -> None:
    """Delete those of the files that nobody has written to for a day."""
    for part in parts:
        with suppress(FileNotFoundError, PermissionError):
            if part.stat().st_mtime < (now - _STALE).timestamp():
                part.unlink()


def is_inside(path: str) -> bool:
    """Tell whether a path stays below the shelf."""
    return ".." not in PurePosixPath(path).parts and not PurePosixPath(path).is_absolute()


def _plain(number: str) -> str:
    """Spell an invoice number as a file name: what is not plain in per cent, what is too long cut and told by hash."""
    if number[:1] != "." and len(number) <= _LONGEST and _PLAIN.issuperset(number):
        return number
    spelled = quote(number, safe="").replace("~", "%7E")
    spelled = f"%2E{spelled[1:]}" if spelled.startswith(".") else spelled
    if len(spelled) <= _LONGEST:
        return spelled
    return f"{spelled[: _LONGEST - 20]}%{hashlib.sha256(number.encode()).hexdigest()[:32]}"


def _fill(number: int, pieces: Iterable[bytes]) -> tuple[bytes, int]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(number, "wb") as file:
        for piece in pieces:
            digest.update(piece)
            size += file.write(piece)
        file.flush()
        os.fchmod(number, 0o640)
        os.fsync(number)
    return digest.digest(), size


def _sync_directory(directory: Path) -> None:
    """Force the directory's own entry to disk, else a power cut takes back the rename."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
