"""Turns pieces of a JSON list into rows, whatever kind of record they hold, and sets aside what cannot be read.

A record that cannot be stored is **refused**: it comes beside the rows, as text and with the reason, so that whoever
writes the rows keeps it until it can be read. When most records of an answer are like that, its shape has changed and
the answer is refused as a whole.

Whether any record has a key that nobody knows is asked of the decoder itself, first and at no cost; a piece that has
one is decoded again without that question, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from syncd.domain.errors import MalformedAnswer, ShapeChanged
from syncd.domain.records import Refused, Row
from syncd.providers.autorespond.elements import UNREADABLE, Piece
from syncd.providers.autorespond.formats import Notes, Zone, reference, text
from syncd.providers.autorespond.mending import mended
from syncd.providers.contract import Decoded

_BATCH = 2000
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Kind(Generic[W]):
    """How one kind of element is read: its wire decoders (one, many, and ``strict``: many without any key that the
    reference does not name), the builder of its record, the ``keys`` that are read with their JSON types (None where an
    element is no object), and under which ``key`` its id is, where it has one alone.

    A builder returns None for an element without a usable key, after noting why.
    """

    one: msgspec.json.Decoder[W]
    many: msgspec.json.Decoder[list[W]]
    build: Callable[[W, Notes, Zone], Any]
    strict: msgspec.json.Decoder[Any]
    keys: Mapping[str, frozenset[str]] | None = None
    key: str | None = None


def rows_of(piece: Piece, kind: Kind[Any], operation: str, zone: Zone, refused: list[Refused]) -> Iterator[Decoded]:
    """Decode the elements of one piece into batches of rows.

    An element of another shape is refused, its reason among the warnings, too, and in ``refused`` (of the first one
    with its text); ``believe`` says what many of them mean.
    """
    texts = _decoded(piece, kind)
    for start in range(0, len(texts.wires), _BATCH):
        rows: list[Row[Any]] = []
        left_out: Notes = []
        set_aside: list[Refused] = []
        part = slice(start, start + _BATCH)
        for element, raw in zip(texts.wires[part], texts.raws[part], strict=True):
            notes: Notes = _mending_note(raw) if texts.is_mended else []
            try:
                record = kind.build(_readable(element), notes, zone)
            except MalformedAnswer as malformed:
                refused.append(Refused(b"" if refused else raw, f"{operation}: {malformed}"))
                notes.append(f"a record is left out: {malformed}")
                record = None
            if record is not None:
                rows.append(Row(record, raw, tuple(notes)) if notes else Row(record, raw))
            else:
                left_out.extend(notes)
                set_aside.append(Refused(raw, notes[-1], _key_of(raw, kind)))
        yield Decoded(rows, tuple(left_out), tuple(set_aside), texts.is_strange)


def believe(taken: int, refused: Sequence[Refused]) -> None:
    """Raise ShapeChanged when more records were refused than taken: then it is the answer's shape that changed."""
    if len(refused) > taken:
        raise ShapeChanged(f"The answer has an unexpected shape: {refused[0].reason}", refused[0].raw)


def one_of(raw: bytes, kind: Kind[Any], operation: str, zone: Zone) -> Row[Any] | None:
    """Decode a single payload; null is None, and so is an object whose key is empty."""
    return next(iter(single(raw, kind, operation, zone).rows), None)


def single(raw: bytes, kind: Kind[Any], operation: str, zone: Zone) -> Decoded:
    """Decode a single payload: at most one row."""
    if raw == b"null":
        return Decoded(())
    refused: list[Refused] = []
    piece = Piece(b"[" + raw + b"]", [msgspec.Raw(raw)], is_mended=True)
    found = next(rows_of(piece, kind, operation, zone, refused))
    believe(len(found.rows), refused)
    return found


def reread(raws: Sequence[bytes], kind: Kind[Any], zone: Zone) -> list[Row[Any] | Refused]:
    """Read texts that were kept: each is a row now, or is refused still."""
    found: list[Row[Any] | Refused] = []
    for raw in raws:
        notes: Notes = []
        try:
            record = kind.build(_readable(_struct(raw, kind)), notes, zone)
        except MalformedAnswer as malformed:
            notes.append(f"a record is left out: {malformed}")
            record = None
        read = Row(record, raw, tuple(notes)) if record is not None else Refused(raw, notes[-1], _key_of(raw, kind))
        found.append(read)
    return found


def _mending_note(raw: bytes) -> Notes:
    return ["a text held what is no text; the replacement sign stands for it"] if b"\\ufffd" in raw else []


def _key_of(raw: bytes, kind: Kind[Any]) -> str | None:
    """Return the id of a record that cannot be read, where it can be told all the same."""
    try:
        told = None if kind.key is None else _OBJECT.decode(raw).get(kind.key)
        if told is None or kind.key is None:
            return None
        value = _ANY.decode(told)
        return text(value, kind.key, []) if kind.key == "invoiceNumber" else reference(value, kind.key, [])
    except UNREADABLE:
        return None


@dataclass(frozen=True, slots=True)
class _Texts:
    """The wire structs of a piece and the text of each; in place of a struct that cannot be read stands its
    MalformedAnswer. ``is_mended``: texts were replaced; ``is_strange``: some key is not in the reference."""

    wires: Sequence[Any]
    raws: Sequence[bytes]
    is_mended: bool
    is_strange: bool


def _decoded(piece: Piece, kind: Kind[Any]) -> _Texts:
    """Decode the structs of a piece; texts are mended where they must: NUL, for one, Postgres cannot hold."""
    try:
        if not piece.array.isascii():
            piece.array.decode()
        if b"\\u0000" not in piece.array:
            raws = [bytes(raw) for raw in piece.raws]
            try:
                return _Texts(kind.strict.decode(piece.array), raws, piece.is_mended, is_strange=False)
            except msgspec.ValidationError:
                return _Texts(kind.many.decode(piece.array), raws, piece.is_mended, is_strange=True)
    except UNREADABLE:
        pass
    raws = [mended(bytes(raw)) for raw in piece.raws]
    return _Texts([_struct(raw, kind) for raw in raws], raws, is_mended=True, is_strange=True)


def _struct(raw: bytes, kind: Kind[Any]) -> Any:
    try:
        return kind.one.decode(raw)
    except UNREADABLE as error:
        return MalformedAnswer(f"{error}.")


def _readable(element: Any) -> Any:
    if element.__class__ is MalformedAnswer:
        raise element
    return element
