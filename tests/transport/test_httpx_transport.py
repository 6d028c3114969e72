"""The wire under the httpx API: what any code written for httpx may rely on."""

from __future__ import annotations

import gzip
import traceback
from collections.abc import AsyncIterator

import httpx
import pytest

from syncd.transport import AiohttpTransport, TransportLimits, Wire
from tests.support.rawserver import Script, answer, answering, answering_then_closing, never, raw_server

QUICK = TransportLimits(connect_timeout_s=0.2)


def client(**more: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=AiohttpTransport(Wire(QUICK)), **more)  # type: ignore[arg-type]


async def test_an_httpx_client_works_on_it() -> None:
    """Query, form, JSON, streaming bodies and answers, decoding, status errors: the API as documented."""
    script = answering(answer(gzip.compress(b'{"data": 1}'), headers="Content-Encoding: gzip\r\nX-A: 1\r\nX-A: 2\r\n"))

    async def drops() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    async with raw_server(script) as server, client() as http:
        got = await http.post(f"{server.base_url}x", params={"email": "a+b@example.org"}, data={"a": "b c"})
        assert (got.status_code, got.json()) == (200, {"data": 1})
        assert got.headers.get_list("x-a") == ["1", "2"]
        assert server.target() == "/api/1.0/x?email=a%2Bb%40example.org"
        assert server.requests[-1].endswith(b"\r\n\r\na=b+c")
        await http.put(server.base_url, content=drops())
        assert server.requests[-1].endswith(b"\r\n\r\nabcd")
        assert b"chunked" not in server.requests[-1]
        async with http.stream("GET", server.base_url) as streamed:
            assert b"".join([piece async for piece in streamed.aiter_bytes()]) == b'{"data": 1}'
        assert (await http.get(server.base_url, headers={"Accept": "x/y"})).status_code == 200
    assert server.connections == 1


async def test_head_has_no_body() -> None:
    """Its length header speaks of another answer."""
    async with raw_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as server, client() as http:
        assert (await http.head(server.base_url)).content == b""
        assert (await http.head(server.base_url)).content == b""
    assert server.connections == 1


async def test_a_stream_left_early_does_not_poison_the_pool() -> None:
    """The rest of one answer must never be read as the next."""
    async with raw_server(answering(answer(b"x" * 100_000))) as server, client() as http:
        async with http.stream("GET", server.base_url):
            pass
        assert len((await http.get(server.base_url)).content) == 100_000
    assert server.connections == 2


SECRET = "hunter" * 2  # never spelled out in the source, which tracebacks quote


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (answering_then_closing(), httpx.ReadError),
        (answering_then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), httpx.ReadError),
        (answering(f"GET /?key={SECRET} is not HTTP\r\n\r\n".encode()), httpx.ReadError),
        (never, httpx.ReadTimeout),
    ],
)
async def test_faults_after_sending_are_read_errors_without_server_text(script: Script, error: type[Exception]) -> None:
    """A parser quotes what it read, and a broken proxy may send our own request back: nothing of it is chained on."""
    async with raw_server(script) as server, client(timeout=0.2) as http:
        with pytest.raises(error) as caught:
            await http.get(f"{server.base_url}?key={SECRET}")
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


async def test_faults_before_sending_are_connect_errors() -> None:
    """Callers written for httpx decide by these classes whether a request may be repeated."""
    async with raw_server(never) as server:
        dead = server.base_url
    async with client() as http:
        with pytest.raises(httpx.ConnectError, match="the connection was refused"):
            await http.get(dead)
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.get("ftp://127.0.0.1/")
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(dead, headers={"X": "a\r\nY: b"})
    async with raw_server(never) as server, client() as http:
        with pytest.raises(httpx.ConnectTimeout):
            await http.get(f"https://127.0.0.1:{server.port}/")
