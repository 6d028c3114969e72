"""A server made of a socket and a script: whatever a real server could do wrong, a few lines can do here.

It records every request exactly as it came, so tests can look at bytes and count arrivals.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


@dataclass
class Connection:
    """One accepted connection. ``number`` counts from 1; ``turn`` and ``request`` tell of the latest request on it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    turn: int = 0
    request: bytes = b""

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """Close such that the peer sees a reset (RST), not an orderly end."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script: TypeAlias = Callable[[Connection], Awaitable[None]]


@dataclass
class RawServer:
    """``requests`` holds each request's bytes, body included; ``connections`` counts accepted connections."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/1.0/"

    def target(self, index: int = -1) -> str:
        return self.requests[index].split(b" ", 2)[1].decode()

    def head(self, index: int = -1) -> str:
        return self.requests[index].partition(b"\r\n\r\n")[0].decode()


@asynccontextmanager
async def raw_server(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Run ``script`` once per request until it closes the connection; nothing is left running afterwards."""
    state = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        connection = Connection(state.connections, reader, writer)
        try:
            while not writer.is_closing():
                connection.request = await _request(reader)
                state.requests.append(connection.request)
                state.arrived.set()
                connection.turn += 1
                await script(connection)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(converse(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


def answer(body: bytes = b'{"data": true}', *, status: str = "200 OK", headers: str = "") -> bytes:
    """Return a complete answer that keeps the connection."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def answering(*pieces: bytes) -> Script:
    """Return a script that gives the same answer to every request and keeps the connection."""

    async def script(connection: Connection) -> None:
        await connection.say(*pieces)

    return script


def answering_then_closing(*pieces: bytes) -> Script:
    async def script(connection: Connection) -> None:
        await connection.say(*pieces)
        connection.writer.close()

    return script


async def never(connection: Connection) -> None:
    """A script that reads the request and falls silent."""
    await asyncio.Event().wait()
