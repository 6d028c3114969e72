"""The plan as a file: a versioned JSON document that says which calls may be sent, and of which entries they speak.

``apply`` sends what the database holds and the file names; the file alone can make nothing be sent. Its digest tells
a hand that slipped from a plan that was made; whoever recomputes it gains nothing, because every entry is compared
with the database again. It holds addresses and values, and no secret: it is written readable by its owner alone.
"""

from __future__ import annotations

import os
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from syncd.domain.changes import LocalChange, encode_change
from syncd.domain.errors import UserError
from syncd.policy.fold import Entry
from syncd.policy.states import EntryStatus

FORMAT = "syncd plan"
VERSION = 1
_MOST_BYTES = 1 << 30
_PENDING = EntryStatus.PENDING.value


class FiledEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One undelivered entry as it was planned. ``id`` is None for one that was captured and not staged yet;
    ``is_due`` is false while it backed off; ``payload`` is None when nobody could read it."""

    seq: int
    id: int | None
    operation: str
    facet: str
    status: str
    attempts: int
    is_due: bool
    is_uncertain: bool
    captured_at: datetime
    payload: dict[str, Any] | None


class FiledCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call after folding: the entry that carries it and those that it supersedes, by sequence number.

    ``refusal`` is set for one that will be buried unsent, and why; what is behind it in its lane is planned so.
    """

    seq: int
    supersedes: tuple[int, ...]
    call: str
    verb: str
    path: str
    payload: dict[str, Any]
    refusal: str | None = None


class FiledRound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The calls of one claim; ``reach`` is the last sequence number that the claim reads."""

    reach: int
    calls: tuple[FiledCall, ...]


class FiledLane(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One relation's part. ``upto`` is the last sequence number that was there; what came later is not planned."""

    relation_id: int | None
    remote_id: str | None
    email: str | None
    upto: int
    entries: tuple[FiledEntry, ...]
    rounds: tuple[FiledRound, ...]


class FiledPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The document."""

    format: str
    version: int
    account: str
    provider: str
    made_at: datetime
    lanes: tuple[FiledLane, ...]
    digest: str = ""


class _Head(msgspec.Struct, frozen=True):
    """What tells any plan from any other file, of whatever version."""

    format: str = ""
    version: object = None


def filed_entry(entry: Entry, made_at: datetime) -> FiledEntry:
    """Return an entry as the file tells it. How often one was tried matters only while it can be tried again."""
    return FiledEntry(
        seq=entry.seq,
        id=entry.id if entry.id > 0 else None,
        operation=entry.operation,
        facet=entry.facet,
        status=entry.status,
        attempts=entry.attempts if entry.status == _PENDING else 0,
        is_due=is_due(entry, made_at),
        is_uncertain=entry.is_uncertain,
        captured_at=entry.captured_at,
        payload=None if entry.change is None else payload_of(entry.change),
    )


def is_due(entry: Entry, at: datetime) -> bool:
    """Tell whether an entry had no back-off running at a moment."""
    return entry.next_attempt_at is None or entry.next_attempt_at <= at


def payload_of(change: LocalChange) -> dict[str, Any]:
    """Return a change as a JSON object, its operation included."""
    return msgspec.json.decode(encode_change(change), type=dict[str, Any])


def save_plan(plan: FiledPlan, path: Path) -> None:
    """Write the plan whole or not at all, readable by its owner alone; an older file of this name is replaced.

    Raises UserError when the directory is not there or not ours to write in.
    """
    signed = msgspec.structs.replace(plan, digest=_digest(plan))
    text = msgspec.json.format(msgspec.json.encode(signed), indent=1)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write(beside, text)
        beside.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"the plan cannot be written to {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def load_plan(path: Path) -> FiledPlan:
    """Read a plan back. Raises UserError, in one sentence, for whatever is not a plan as it was saved."""
    content = _content(path)
    head = _head(path, content)
    if head.version != VERSION:
        raise UserError(
            f"{path} is a plan of format version {head.version!r} and this syncd reads version {VERSION}; "
            "make a new one with `syncd plan --save`"
        )
    try:
        plan = msgspec.json.decode(content, type=FiledPlan)
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is not a whole plan ({error}); make a new one with `syncd plan --save`") from error
    if plan.digest != _digest(plan):
        raise UserError(f"{path} was changed after it was made; make a new one with `syncd plan --save`")
    return plan


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} is too large to be a plan")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _head(path: Path, content: bytes) -> _Head:
    try:
        head = msgspec.json.decode(content, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        head = _Head()
    if head.format != FORMAT:
        raise UserError(f"{path} is not a plan; `syncd plan --save FILE` makes one")
    return head


def _digest(plan: FiledPlan) -> str:
    """Sum up everything but the digest itself, however the document is spaced and its keys are ordered."""
    bare = msgspec.structs.replace(plan, digest="")
    return f"sha256:{sha256(msgspec.json.encode(bare, order='sorted')).hexdigest()}"


def _write(path: Path, text: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    """Make the new name last; a plan is no use after a power cut if its name is gone."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
