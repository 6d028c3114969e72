"""How much of bare aiohttp's speed is left of a small POST at each layer: one run, one loop, ratios to the first line.

Run it as ``python -m benchmarks.transport [--short]``. A bare asyncio server in a second process answers at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import httpx

from benchmarks.databases import beside
from benchmarks.figures import Figure, note, peak_mb
from syncd.clock import SystemClock
from syncd.providers.contract import Answered, Auth, Request
from syncd.transport import AiohttpTransport, Transport, TransportLimits, Wire

CONCURRENCY = 32
ROUNDS = 3
_BODY = b'{"data": true}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nServer: none\r\n"
    b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_PATH = "relation/5/addtag/7"
_QUERY = {"admin": "1", "key": "k"}


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        self._transport.write(_ANSWER * len(requests))


def _serve(port: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def rate(requests: int, once: Callable[[], Awaitable[object]]) -> float:
    """Return requests a second, CONCURRENCY at a time, best of ROUNDS."""

    async def worker(turns: list[int]) -> None:
        while turns:
            turns.pop()
            await once()

    best = 0.0
    for _ in range(ROUNDS):
        turns = list(range(requests))
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(worker(turns))
        best = max(best, requests / (time.perf_counter() - started))
    return best


async def bare_aiohttp(base: str, requests: int) -> float:
    async with aiohttp.ClientSession() as session:

        async def once() -> None:
            async with session.post(base + _PATH, params=_QUERY) as response:
                await response.read()

        return await rate(requests, once)


async def our_send(base: str, requests: int) -> float:
    transport = Transport.open(base, Auth(query=_QUERY), clock=SystemClock())
    request = Request("tag_add", "POST", _PATH)

    async def once() -> None:
        assert isinstance(await transport.send(request), Answered)

    try:
        return await rate(requests, once)
    finally:
        await transport.close()


async def our_download(base: str, requests: int) -> float:
    transport = Transport.open(base, Auth(query=_QUERY), clock=SystemClock())
    request = Request("tag_add", "POST", _PATH)

    async def once() -> None:
        async with transport.download(request) as answer:
            assert isinstance(answer, Answered)

    try:
        return await rate(requests, once)
    finally:
        await transport.close()


async def httpx_over(base: str, requests: int, transport: httpx.AsyncBaseTransport | None) -> float:
    async with httpx.AsyncClient(transport=transport) as client:

        async def once() -> None:
            await client.post(base + _PATH, params=_QUERY)

        return await rate(requests, once)


async def measure(port: int, requests: int) -> None:
    base = f"http://127.0.0.1:{port}/api/1.0/"
    bare = await bare_aiohttp(base, requests)
    rates = {
        "bare aiohttp session": bare,
        "Transport.send": await our_send(base, requests),
        "Transport.download": await our_download(base, requests),
        "httpx over our transport": await httpx_over(base, requests, AiohttpTransport(Wire(TransportLimits()))),
        "stock httpx": await httpx_over(base, max(requests // 10, 1), None),
    }
    for name, found in rates.items():
        print(f"{name:28}{found:10,.0f} requests/s{found / bare:8.2f} of bare aiohttp")
    print(f"peak memory                 {peak_mb():10.0f} MB")
    ours = rates["Transport.send"]
    note(Figure("transport, small POSTs", f"{ours:.0f} /s", f"{bare:.0f} of a bare aiohttp session", ours / bare))


def main() -> None:
    requests = 400 if "--short" in sys.argv else 4000
    with beside(_serve) as server:
        asyncio.run(measure(server.recv(), requests))


if __name__ == "__main__":
    main()
