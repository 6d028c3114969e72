"""Doors: what stands between a drainer and its two other sides, and reads along.

A door is a TCP server on the loopback. It knows where a message ends in one direction and an answer in the other, and
asks the gate at both places. Nothing of it knows anything of syncd: it would count the messages of any drainer.
"""

from __future__ import annotations

import asyncio
import struct
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from tests.support.crashing.gate import Event, Gate, Kind, Shut

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial: TypeAlias = Callable[[], Awaitable[Streams]]
# Messages of the drainer after which it waits for an answer: Query, Sync, Flush, CopyDone, CopyFail.
_ENDS = frozenset(b"QSHcf")
# Where an answer is whole: ReadyForQuery and CopyInResponse; after a Flush, what describes a statement, or an error.
_WHOLE = frozenset(b"ZG")
_DESCRIBED = frozenset(b"TnE")
_AUTHENTICATION = b"R"
_SSL_REQUEST = struct.pack("!i", 80877103)


class Line:
    """One connection of the drainer with its other half."""

    def __init__(self, gate: Gate, near: Streams, far: Streams) -> None:
        self.gate = gate
        self.number = gate.line()
        self.near_reader, self.near = near
        self.far_reader, self.far = far
        self.asked: deque[Event] = deque()

    async def carry(self) -> None:
        """Carry both ways until one side ends or the gate shuts; then see the far side to its end."""
        ways = [asyncio.create_task(self.messages()), asyncio.create_task(self.answers())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            ended = await asyncio.gather(*ways, return_exceptions=True)
            await self._end()
        bugs = [e for e in ended if isinstance(e, Exception) and not isinstance(e, Shut | OSError | EOFError)]
        if bugs:
            raise bugs[0]

    async def _end(self) -> None:
        """Close the far side and wait until it is gone: what it had begun is done or rolled back."""
        if not self.gate.is_shut:
            self.near.transport.abort()
        try:
            if self.far.can_write_eof():
                self.far.write_eof()
            while await self.far_reader.read(65536):
                pass
        except OSError:
            pass
        await hang_up(self.far)

    async def ask(self, kind: Kind, text: str, message: bytes) -> None:
        event, piece = self.gate.admit(kind, text, self.number, message)
        self.asked.append(event)
        self.far.write(piece)
        await self.far.drain()
        self.gate.check()

    async def answered(self) -> None:
        if self.asked:
            await self.gate.answered(self.asked.popleft())
        self.gate.check()

    @abstractmethod
    async def messages(self) -> None:
        """Read messages from the drainer and ask for each."""

    @abstractmethod
    async def answers(self) -> None:
        """Read answers from the far side, and pass them on when they are whole enough to matter."""


class DatabaseLine(Line):
    """The Postgres protocol, version 3: a message is everything up to a Sync, a Query or the end of a COPY."""

    def __init__(self, gate: Gate, near: Streams, far: Streams) -> None:
        super().__init__(gate, near, far)
        self._prepared: dict[bytes, str] = {}
        self._last = self._statement = ""
        self._is_flushed = False

    async def messages(self) -> None:
        hello = await self._hello()
        if hello[4:] == _SSL_REQUEST:  # answered here: what is encrypted cannot be read along
            self.near.write(b"N")
            hello = await self._hello()
        await self.ask(Kind.SET_UP, "connect", hello)
        batch, text, kind = bytearray(), "", Kind.SET_UP
        while True:
            tag = await self.near_reader.readexactly(1)
            head = await self.near_reader.readexactly(4)
            body = await self.near_reader.readexactly(_length(head))
            batch += tag + head + body
            if (said := self._read(tag, body)) is not None:
                kind, text = said
            if tag[0] in _ENDS:
                self._last = text
                self._is_flushed = tag == b"H"
                await self.ask(kind, text, bytes(batch))
                batch.clear()
            elif tag == b"X":
                return

    async def _hello(self) -> bytes:
        head = await self.near_reader.readexactly(4)
        return head + await self.near_reader.readexactly(_length(head))

    def _read(self, tag: bytes, body: bytes) -> tuple[Kind, str] | None:
        """Return what a part of a message makes of the whole."""
        match tag:
            case b"Q":
                return Kind.SQL, self._said(_words(body.rstrip(b"\0")))
            case b"P":
                name, query, _ = body.split(b"\0", 2)
                self._prepared[name] = _words(query)
                return Kind.SET_UP, f"prepare {self._prepared[name]}"
            case b"B":
                return Kind.SQL, self._said(self._prepared[body.split(b"\0", 2)[1]])
            case b"C":
                return Kind.SET_UP, f"close {self._prepared.get(body[1:].rstrip(bytes(1)), '')}"
            case b"d" | b"c":
                return Kind.COPY, f"rows of {self._last.removeprefix('rows of ')}"
        return None

    def _said(self, sql: str) -> str:
        """Name the end of a transaction by its last statement: alone, all of them are the same."""
        if sql.startswith(("COMMIT", "ROLLBACK")):
            return f"{sql.rstrip(';')} after {self._statement}"
        self._statement = sql
        return sql

    async def answers(self) -> None:
        held = bytearray()
        while True:
            tag = await self.far_reader.readexactly(1)
            head = await self.far_reader.readexactly(4)
            held += tag + head + await self.far_reader.readexactly(_length(head))
            is_whole = tag[0] in _WHOLE or (self._is_flushed and tag[0] in _DESCRIBED)
            if is_whole:
                await self.answered()
            if is_whole or tag == _AUTHENTICATION:
                self.near.write(bytes(held))
                await self.near.drain()
                held.clear()


class CrmLine(Line):
    """HTTP/1.1 with bodies of a stated length, which is all that the drainer sends."""

    async def messages(self) -> None:
        while True:
            head = await self.near_reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            sizes = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")]
            body = await self.near_reader.readexactly(int(sizes[0]) if sizes else 0)
            verb, target, _ = lines[0].split(" ")
            await self.ask(Kind.HTTP, f"{verb} {target.partition('?')[0]}", head + body)

    async def answers(self) -> None:
        while piece := await self.far_reader.read(65536):
            await self.answered()
            self.near.write(piece)
            await self.near.drain()
        await self.answered()


class Door:
    """A server that opens one line per connection."""

    def __init__(self, gate: Gate, kind: type[Line], dial: Dial) -> None:
        self._gate = gate
        self._kind = kind
        self._dial = dial
        self._lines: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._is_over = asyncio.Event()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Let nobody in any more, and return when every line is gone on both sides; the drainer has ended before."""
        assert self._server is not None
        self._server.close()
        self._is_over.set()
        async with asyncio.timeout(20):
            ended = await asyncio.gather(*self._lines, return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._kind(self._gate, (reader, writer), await self._dial()).carry()
            if self._gate.is_shut:  # who is to be killed must not be told by a broken line, however long that takes
                await self._is_over.wait()
        finally:
            await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Break a connection off and wait until it is gone."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _length(head: bytes) -> int:
    return int(struct.unpack("!i", head)[0]) - 4


def _words(sql: bytes) -> str:
    return " ".join(sql.decode().split())
