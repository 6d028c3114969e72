"""A wire to Postgres that breaks exactly at a commit: before the server hears of it, after it did, or in between.

It reads the client's side of the protocol just far enough to know which statements a transaction ran and when it asks
to commit. Everything else passes through as it is.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from sqlalchemy.engine import make_url

_SSL_REQUEST = 80877103
_READY = b"Z\x00\x00\x00\x05"


class Moment(Enum):
    """``BEFORE``: the server never hears the commit. ``AFTER``: it commits and nobody hears the answer. ``LATE``: the
    client loses the connection first, and the server hears the commit when the test says so."""

    BEFORE = auto()
    AFTER = auto()
    LATE = auto()


@dataclass
class Cut:
    """Cut the next ``times`` commits of transactions that ran a statement with these words in it.

    A statement outside a transaction is its own commit.
    """

    words: str
    moment: Moment
    times: int = 1
    made: int = 0
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, statements: list[str]) -> bool:
        return self.made < self.times and any(self.words in statement for statement in statements)


@dataclass
class CuttingWire:
    """``url`` leads through it. ``cuts`` may be added at any time."""

    url: str = ""
    cuts: list[Cut] = field(default_factory=list)

    def cut(self, words: str, moment: Moment, times: int = 1) -> Cut:
        self.cuts.append(Cut(words, moment, times))
        return self.cuts[-1]


@asynccontextmanager
async def cutting_wire(database_url: str) -> AsyncIterator[CuttingWire]:
    """Listen on a port of our own and lead to the database; nothing is left running afterwards."""
    wire, tasks = CuttingWire(), set[asyncio.Task[None]]()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_Line(wire, database_url, reader, writer).run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wire.url = make_url(database_url).set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    try:
        yield wire
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _connected(database_url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = make_url(database_url)
    host, port = url.query.get("host", url.host or "127.0.0.1"), url.query.get("port", url.port or 5432)
    assert isinstance(host, str)
    if host.startswith("/"):
        return await asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
    return await asyncio.open_connection(host, int(str(port)))


class _Line:
    """One connection through the wire."""

    def __init__(
        self, wire: CuttingWire, database_url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._wire = wire
        self._database_url = database_url
        self._from_client, self._to_client = reader, writer
        self._prepared: dict[bytes, str] = {}
        self._ran: list[str] = []
        self._is_begun = False
        self._is_cut = False
        self._answered = asyncio.Event()

    async def run(self) -> None:
        try:
            self._from_server, self._to_server = await _connected(self._database_url)
        except OSError:
            self._to_client.close()
            return
        pump = asyncio.create_task(self._pump())
        try:
            await self._greet()
            while not self._is_cut:
                await self._pass(await self._message())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            pump.cancel()
            self._to_client.close()
            self._to_server.close()

    async def _greet(self) -> None:
        """Pass the start-up message, which has no type; refuse encryption, as a local server does."""
        while True:
            head = await self._from_client.readexactly(4)
            body = await self._from_client.readexactly(struct.unpack("!I", head)[0] - 4)
            if struct.unpack("!I", body[:4])[0] != _SSL_REQUEST:
                self._to_server.write(head + body)
                return
            self._to_client.write(b"N")

    async def _message(self) -> bytes:
        head = await self._from_client.readexactly(5)
        return head + await self._from_client.readexactly(struct.unpack("!I", head[1:])[0] - 4)

    async def _pass(self, message: bytes) -> None:
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, query, _ = body.split(b"\x00", 2)
            self._prepared[name] = query.decode()
        elif kind == b"B":
            _, name, _ = body.split(b"\x00", 2)
            self._ran.append(self._prepared.get(name, ""))
            if not self._is_begun and (cut := self._due([self._ran[-1]])) is not None:
                await self._cut(cut, await self._up_to_sync(message))
                return
        elif kind == b"Q" and body.upper().startswith(b"BEGIN"):
            self._ran, self._is_begun = [], True
        elif kind == b"Q" and body.upper().startswith(b"ROLLBACK"):
            self._is_begun = False
        elif kind == b"Q" and body.upper().startswith(b"COMMIT"):
            self._is_begun = False
            if (cut := self._due(self._ran)) is not None:
                await self._cut(cut, message)
                return
        self._to_server.write(message)
        await self._to_server.drain()

    def _due(self, statements: list[str]) -> Cut | None:
        return next((cut for cut in self._wire.cuts if cut.takes(statements)), None)

    async def _up_to_sync(self, message: bytes) -> bytes:
        """Return a bound statement with everything that runs it."""
        whole = message
        while message[:1] != b"S":
            message = await self._message()
            whole += message
        return whole

    async def _cut(self, cut: Cut, commit: bytes) -> None:
        cut.made += 1
        self._is_cut = True
        if cut.moment is Moment.AFTER:
            await self._commit(cut, commit)
        self._to_client.transport.abort()
        cut.happened.set()
        if cut.moment is Moment.LATE:
            await cut.released.wait()
            await self._commit(cut, commit)

    async def _commit(self, cut: Cut, commit: bytes) -> None:
        self._to_server.write(commit)
        await self._answered.wait()
        cut.committed.set()

    async def _pump(self) -> None:
        """Pass the server's answers on; once cut, swallow them up to the one that says it is ready again."""
        swallowed = b""
        while piece := await self._from_server.read(65536):
            if self._is_cut:
                swallowed += piece
                if _READY in swallowed:
                    self._answered.set()
            else:
                self._to_client.write(piece)
        self._to_client.close()
