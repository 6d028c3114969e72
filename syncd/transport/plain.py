"""A plain answer: whole in one piece, its length told, in no encoding. Nearly every answer to a write is one.

Such an answer needs no parser, no stream of a body and no second wake-up, which cost more than the exchange itself.
Here it is decided whether some bytes are exactly one plain answer. Nothing is guessed or mended: whatever else they
are (half an answer, two of them, chunks, an encoding, a doubled header, an odd byte) is no plain answer, and aiohttp's
parser is given the same bytes, untouched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [ -~]*)?")
_FIELD = re.compile(rb"([A-Za-z0-9-]+):([ -~]*)")
_LENGTH = re.compile(r"[0-9]{1,9}")
_BODILESS = frozenset({204, 205, 304})
_UNUSUAL = frozenset({"transfer-encoding", "content-encoding", "trailer", "upgrade"})
_LONGEST_HEAD = 4096


class Plain(NamedTuple):
    """One whole answer; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Head(NamedTuple):
    status: int
    headers: Mapping[str, str]
    length: int


class PlainReader:
    """Reads plain answers of one server, and remembers the last head: between two ticks of its ``Date`` a server says
    the same above every answer to the same kind of call."""

    __slots__ = ("_head", "_known")

    def __init__(self) -> None:
        self._head = b""
        self._known: _Head | None = None

    def read(self, received: bytes) -> Plain | None:
        """Return the answer that these bytes are, all of them; None when they are anything else."""
        head, end, body = received.partition(b"\r\n\r\n")
        if not end or len(head) > _LONGEST_HEAD:
            return None
        if head != self._head:
            self._head, self._known = head, _parsed(head)
        known = self._known
        if known is None or len(body) != known.length:
            return None
        return Plain(known.status, known.headers, body)


def _parsed(head: bytes) -> _Head | None:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    headers = _headers(lines)
    if status is None or headers is None or int(status[1]) in _BODILESS:
        return None
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length) or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return None if headers.keys() & _UNUSUAL else _Head(int(status[1]), headers, int(length))


def _headers(lines: list[bytes]) -> dict[str, str] | None:
    """Return the fields by name; None when one is doubled, folded or not plain text."""
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        headers[field[1].decode().lower()] = field[2].decode().strip(" ")
    return headers if len(headers) == len(lines) else None
