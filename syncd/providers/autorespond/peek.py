"""A look at a list without decoding it: which keys are in it, and the text of each element.

Most of a window that is read again has not changed, and its reader can tell from a digest of the text. Finding only
the keys costs a tenth of decoding; whatever is odd about an element makes it worth a proper look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from syncd.domain.records import Refused, Row
from syncd.providers.autorespond.elements import UNREADABLE, Piece
from syncd.providers.autorespond.formats import Zone, reference
from syncd.providers.autorespond.rows import Kind, believe, rows_of
from syncd.providers.contract import Decoded, Peeked


class _OrderKey(msgspec.Struct):
    orderId: Any = None


_KEYS = msgspec.json.Decoder(list[_OrderKey])


def peeks(pieces: Iterable[Piece], kind: Kind[Any], operation: str, zone: Zone) -> Iterator[Peeked]:
    """Yield each piece of a list of orders as keys and texts, with the decoder of those that are chosen."""
    for piece in pieces:
        yield _peeked(piece, kind, operation, zone)


def _peeked(piece: Piece, kind: Kind[Any], operation: str, zone: Zone) -> Peeked:
    def rows(chosen: Sequence[int]) -> Decoded:
        is_whole = len(chosen) == len(piece.raws)
        return _rows(piece if is_whole else _part(piece, chosen), len(piece.raws), kind, operation, zone)

    return Peeked(len(piece.raws), lambda: _keys(piece), lambda: [bytes(raw) for raw in piece.raws], rows)


def _keys(piece: Piece) -> list[str | None]:
    """Return the key of each element; None for all when anything about the piece is odd."""
    unknown: list[str | None] = [None] * len(piece.raws)
    if piece.is_mended or b"\\u0000" in piece.array:
        return unknown
    try:
        if not piece.array.isascii():
            piece.array.decode()
        return [reference(element.orderId, "orderId", []) for element in _KEYS.decode(piece.array)]
    except UNREADABLE:
        return unknown


def _part(piece: Piece, chosen: Sequence[int]) -> Piece:
    raws = [piece.raws[n] for n in chosen]
    return Piece(b"[" + b",".join(bytes(raw) for raw in raws) + b"]", raws, piece.is_mended)


def _rows(piece: Piece, seen: int, kind: Kind[Any], operation: str, zone: Zone) -> Decoded:
    """Decode the chosen elements of a piece in which ``seen`` were."""
    refused: list[Refused] = []
    rows: list[Row[Any]] = []
    batches = list(rows_of(piece, kind, operation, zone, refused))
    for batch in batches:
        rows.extend(batch.rows)
    believe(seen - len(refused), refused)
    return Decoded(
        rows,
        tuple(warning for batch in batches for warning in batch.warnings),
        tuple(record for batch in batches for record in batch.refused),
        any(batch.is_strange for batch in batches),
    )
