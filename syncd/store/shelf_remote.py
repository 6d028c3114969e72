"""Shelves elsewhere: object stores and servers, through fsspec, which is installed on request (``syncd[files]``).

A file is written whole to this machine first, checked there, and put to its place in one go. Not every such place puts
in one go; so the length is compared afterwards, and a file that a killed process left there is known by its hash or
fetched again: no row ever speaks of half a file. What a storage says when it fails may hold its credentials, so the
kind of failure alone is told.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.store.shelf import PART, Directory, Draft, Shelf, drafted, is_inside, sweep_away

_PREFIX = "syncd-invoice-"
_PIECE = 1 << 20


def open_shelf(place: Path | str) -> Shelf:
    """Return the shelf in a directory, or at a URL; nothing is asked of it yet.

    Raises ConfigurationError where nothing that is installed can write there.
    """
    return Directory(place) if isinstance(place, Path) else _Remote(place)


class _Remote:
    """A place that fsspec writes to."""

    def __init__(self, url: str) -> None:
        self._storage, self._root = _opened(url)

    def draft(self, path: str, pieces: Iterable[bytes]) -> Draft:
        try:
            return drafted(path, pieces, prefix=_PREFIX)
        except OSError as error:
            raise InfrastructureError(f"no file can be written here for the time being ({error.strerror})") from None

    def publish(self, draft: Draft) -> None:
        place = self._place(draft.path)
        with self._told():
            self._storage.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._storage.put_file(str(draft.file), place)
            if self._storage.size(place) != draft.size_bytes:
                raise InfrastructureError("a PDF was stored with another length than it has; see SYNCD_INVOICE_FILES")
        draft.file.unlink(missing_ok=True)

    def holds(self, path: str, sha256: bytes) -> bool:
        digest = hashlib.sha256()
        with self._told():
            try:
                with self._storage.open(self._place(path), "rb") as file:
                    while piece := file.read(_PIECE):
                        digest.update(piece)
            except FileNotFoundError:
                return False
        return digest.digest() == sha256

    def remove(self, path: str) -> bool:
        if not is_inside(path):
            return False
        with self._told():
            try:
                self._storage.rm_file(self._place(path))
            except FileNotFoundError:
                return False
        return True

    def tidy(self, now: datetime) -> None:
        sweep_away(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*{PART}"), now)

    def _place(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001 (each storage has failures of its own kind, and they share no other)
            raise InfrastructureError(
                f"the place that SYNCD_INVOICE_FILES names cannot be read or written ({type(error).__name__})"
            ) from None


def _opened(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ConfigurationError(
            'SYNCD_INVOICE_FILES names a URL, which takes fsspec: pip install "syncd[files]"'
        ) from None
    scheme = url.partition("://")[0]
    try:
        storage, root = url_to_fs(url)
    except ImportError as lacking:
        raise ConfigurationError(f"SYNCD_INVOICE_FILES cannot name a {scheme}:// URL yet: {lacking}") from None
    except ValueError:
        raise ConfigurationError(f"SYNCD_INVOICE_FILES names a {scheme}:// URL, which fsspec does not know") from None
    return storage, str(root)
