"""An answer before it is put on the wire: what faults of content make of it is decided here, as values.

A list is kept as its encoded rows, so that it can lose some, repeat them or be streamed without being joined first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from syncd.sandbox.faults import Fault, Kind

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
PIECE_ROWS = 2_000

PAGE = b"<html><head><title>%d</title></head><body><h1>Proxy Error</h1><hr><i>e-act gateway</i></body></html>"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, type and body; the body is ``prefix``, the rows with commas between them, ``suffix``."""

    status: int = 200
    prefix: bytes = b""
    rows: Sequence[bytes] = ()
    suffix: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    is_list: bool = False

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces of many rows."""
        if len(self.rows) <= PIECE_ROWS:
            yield self.prefix + b",".join(self.rows) + self.suffix
            return
        yield self.prefix
        for start in range(0, len(self.rows), PIECE_ROWS):
            yield (b"," if start else b"") + b",".join(self.rows[start : start + PIECE_ROWS])
        yield self.suffix

    def length(self) -> int:
        """Return the length of the body in bytes."""
        commas = max(0, len(self.rows) - 1)
        return len(self.prefix) + sum(map(len, self.rows)) + commas + len(self.suffix)


def spoiled(reply: Reply, fault: Fault) -> Reply:
    """Return what a fault of content makes of an answer; faults of the wire leave it as it is."""
    match fault.kind:
        case Kind.STATUS:
            return _refusal(fault.status or 503, fault)
        case Kind.HTML:
            status = fault.status or 502
            return Reply(status, PAGE % status, content_type=HTML)
        case Kind.ERROR:
            return _refusal(200, fault)
        case Kind.FALSE:
            return Reply(200, b'{"data":false}')
        case Kind.YES:
            return Reply(200, b'{"data":true}')
        case Kind.MALFORMED:
            return Reply(reply.status, b"".join(reply.pieces())[:-2] + b"<!")
        case Kind.EMPTY_BODY:
            return Reply(200)
        case Kind.NULL:
            return Reply(200, b'{"data":null}')
        case Kind.MISSING:
            return Reply(200, b'{"took":3}')
        case Kind.EMPTY_LIST if reply.is_list:
            return replace(reply, rows=())
        case Kind.DROPPED_ROWS if reply.is_list:
            return replace(reply, rows=_thinned(reply.rows, fault.share))
        case Kind.ADDED_KEY | Kind.DROPPED_KEY | Kind.RETYPED_KEY:
            return _reshaped(reply, fault)
        case Kind.DUPLICATE_ROWS if reply.is_list:
            return replace(reply, rows=[row for row in reply.rows for _ in range(2)])
        case _:
            return reply


def _refusal(status: int, fault: Fault) -> Reply:
    return Reply(status, b'{"error":"%s"}' % fault.message.replace('"', "'").encode())


def _reshaped(reply: Reply, fault: Fault) -> Reply:
    """Speak another shape: of the rows of a list, or of the one object that an answer holds."""
    if reply.is_list:
        rows = [
            _reshaped_row(row, fault) if n % fault.every == fault.every - 1 else row for n, row in enumerate(reply.rows)
        ]
        return replace(reply, rows=rows)
    body = msgspec.json.decode(b"".join(reply.pieces()))
    if isinstance(body, dict) and isinstance(body.get("data"), dict):
        _reshape(body["data"], fault.key.split("."), fault.kind)
        return replace(reply, prefix=msgspec.json.encode(body), rows=(), suffix=b"")
    return reply


def _reshaped_row(row: bytes, fault: Fault) -> bytes:
    told = msgspec.json.decode(row)
    _reshape(told, fault.key.split("."), fault.kind)
    return msgspec.json.encode(told)


def _reshape(told: dict[str, Any], path: list[str], kind: Kind) -> None:
    name, *rest = path
    if rest:
        for line in told.get(name) or ():
            _reshape(line, rest, kind)
    elif kind is Kind.ADDED_KEY:
        told[name] = {"since": 2024}
    elif kind is Kind.DROPPED_KEY:
        told.pop(name, None)
    elif name in told:
        told[name] = {"value": told[name]}


def _thinned(rows: Sequence[bytes], share: float) -> Sequence[bytes]:
    """Leave out a share of the rows, evenly: of every row's worth of share, the one that completes it."""
    kept = []
    owed = 0.0
    for row in rows:
        owed += share
        if owed >= 1.0:
            owed -= 1.0
        else:
            kept.append(row)
    return kept
