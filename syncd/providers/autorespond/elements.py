"""Cuts a long JSON array into short ones while it is being read, so that a gigabyte needs a megabyte of memory.

The theory: in the bytes after ``[``, a place where ``[`` + everything so far + ``]`` is valid JSON is a place between
two elements, because JSON has one reading only; a comma inside a text or a nested array never passes that test. So a
piece is cut at a likely comma and the decoder itself (fast, in C) is asked whether the cut was right. The likely
commas are those before a brace that opens like the first element did, because nested elements open differently. Only
when those fail are the brackets counted one by one, which is slow and always right.

Everything that is cut off, glued together or not JSON ends in ``MalformedAnswer``, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from syncd.domain.errors import MalformedAnswer
from syncd.providers.autorespond.mending import mended

PIECE = 512 * 1024
LARGEST_ELEMENT = 64 * 1024 * 1024
_TRIES = 4
_WINDOW = 64 * 1024
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_FIRST_KEY = re.compile(rb'\s*\{\s*"[^"\\]*"\s*:')
_MARKS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)  # all that a decoder makes of bytes that are not JSON
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Piece:
    """Some whole elements: ``array`` is a JSON array of them, ``raws`` the text of each."""

    array: bytes
    raws: list[msgspec.Raw]
    is_mended: bool = False


class Elements:
    """Iterate over the pieces of an array; afterwards ``tail`` holds what followed its closing bracket.

    ``chunks`` starts right after the opening bracket.
    """

    def __init__(self, chunks: Iterator[bytes], piece: int = PIECE) -> None:
        self.tail = b""
        self._chunks = chunks
        self._piece = piece
        self._buffer = b""
        self._is_complete = False

    def __iter__(self) -> Iterator[Piece]:
        wanted, has_begun = self._piece, False
        while True:
            self._fill(wanted)
            found = self._last(self._buffer) if self._is_complete else self._cut(self._buffer)
            if found is None and not self._is_complete:
                wanted = _grown(wanted)
                continue
            if found is None:
                raise MalformedAnswer("The list is cut off: its closing bracket never came.")
            piece, rest, is_last = found
            if piece.raws:
                yield piece
            elif has_begun or not is_last:
                raise MalformedAnswer("The list has a comma with nothing beside it.")
            has_begun = True
            if is_last:
                self.tail = rest + b"".join(self._chunks)
                return
            self._buffer, wanted = rest, self._piece

    def _fill(self, wanted: int) -> None:
        parts, size = [self._buffer], len(self._buffer)
        while size < wanted and not self._is_complete:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._is_complete = True
                break
            parts.append(chunk)
            size += len(chunk)
        self._buffer = b"".join(parts)

    def _cut(self, buffer: bytes) -> tuple[Piece, bytes, bool] | None:
        """Take as many whole elements as are surely in the buffer; None when not even one is."""
        for end, start in _likely_cuts(buffer):
            piece = _piece(buffer[:end])
            if piece is not None:
                return piece, buffer[start:], False
        return _counted(buffer)

    def _last(self, buffer: bytes) -> tuple[Piece, bytes, bool] | None:
        """Take all elements up to the closing bracket; None when it is not there."""
        end = buffer.rfind(b"]")
        piece = _piece(buffer[:end]) if end >= 0 else None
        if piece is not None:
            return piece, buffer[end + 1 :], True
        return _counted(buffer)


def _grown(wanted: int) -> int:
    if wanted >= LARGEST_ELEMENT:
        raise MalformedAnswer(f"One element of the list is larger than {LARGEST_ELEMENT >> 20} MB.")
    return wanted * 4


def _likely_cuts(buffer: bytes) -> list[tuple[int, int]]:
    """Return (end of an element, start of the next) for the best few places near the end, best first."""
    opening = _FIRST_KEY.match(buffer)
    window = max(0, len(buffer) - _WINDOW)
    cuts = [(found.start() + 1, found.end()) for found in _BETWEEN.finditer(buffer, window)]
    if opening is not None:
        key = opening.group().strip()
        alike = [cut for cut in cuts if buffer.startswith(key, cut[1])]
        cuts = alike or cuts
    return cuts[: -_TRIES - 1 : -1]


def _piece(text: bytes) -> Piece | None:
    array = b"[" + text + b"]"
    try:
        return Piece(array, _ARRAY.decode(array))
    except UNREADABLE:
        return None


def _counted(buffer: bytes) -> tuple[Piece, bytes, bool] | None:
    """Count brackets from the start, texts skipped, to the closing bracket or else the last comma between elements."""
    depth, comma = 0, -1
    for found in _MARKS.finditer(buffer):
        match buffer[found.start()]:
            case 0x22:
                continue
            case 0x2C:
                comma = found.start() if depth == 0 else comma
            case 0x5B | 0x7B:
                depth += 1
            case _ if depth > 0:
                depth -= 1
            case 0x7D:
                raise MalformedAnswer("The list is not JSON: it is closed by a brace.")
            case _:
                return _proven(buffer[: found.start()]), buffer[found.end() :], True
    if comma < 0:
        return None
    return _proven(buffer[:comma]), buffer[comma + 1 :], False


def _proven(text: bytes) -> Piece:
    """Read elements that end where the brackets say so, their texts mended where need be."""
    whole = _piece(text)
    if whole is not None:
        return whole
    array = mended(b"[" + text + b"]")
    try:
        return Piece(array, _ARRAY.decode(array), is_mended=True)
    except UNREADABLE as error:
        raise MalformedAnswer(f"The list is not JSON: {error}.") from None
