"""What passes for a plain answer is exactly that, and is read as aiohttp's parser reads it.

The short way past the parser must never believe more than the parser would: an answer taken for another one confirms a
change that was not made.
"""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from syncd.providers.contract import Answered
from syncd.transport.plain import Plain, PlainReader
from tests.support.rawserver import answer, answering, raw_server
from tests.transport.conftest import Opener, call

OURS = {"content-length": "2"}


def read(received: bytes) -> Plain | None:
    return PlainReader().read(received)


def test_a_whole_answer_is_read_at_sight() -> None:
    """Names of headers are compared without case, values are without the blanks around them."""
    found = read(b"HTTP/1.1 503 Busy \r\nContent-LENGTH:  2 \r\nRetry-After: 5\r\nConnection: Keep-Alive\r\n\r\n{}")
    headers = {"content-length": "2", "retry-after": "5", "connection": "Keep-Alive"}
    assert found == Plain(503, headers, b"{}")


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(answer(b"{}")[:-1], id="cut off in its body"),
        pytest.param(answer(b"{}") + b"H", id="more than one"),
        pytest.param(answer(b"{}") * 2, id="two"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", id="cut off in its head"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n{}", id="of no told length"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="of an older version"),
        pytest.param(answer(b"", status="100 Continue"), id="provisional"),
        pytest.param(answer(b"", status="204 None"), id="without a body by its status"),
        pytest.param(answer(b"", status="304 Same"), id="not modified"),
        pytest.param(answer(b"{}", headers="Content-Length: 2\r\n"), id="of two lengths"),
        pytest.param(answer(b"{}", headers="Content-Length: 0\r\n"), id="of two different lengths"),
        pytest.param(answer(b"{}", headers="X-Twice: a\r\nx-twice: b\r\n"), id="a header twice"),
        pytest.param(answer(b"{}", headers="Transfer-Encoding: chunked\r\n"), id="chunked"),
        pytest.param(answer(b"{}", headers="Content-Encoding: gzip\r\n"), id="packed"),
        pytest.param(answer(b"{}", headers="Connection: close\r\n"), id="the last of its connection"),
        pytest.param(answer(b"{}", headers="Upgrade: h2c\r\n"), id="an upgrade"),
        pytest.param(answer(b"{}", headers="X-Folded: a\r\n b\r\n"), id="a folded header"),
        pytest.param(answer(b"{}", headers="X-Odd: \x01\r\n"), id="a control character"),
        pytest.param(answer(b"{}", headers="X-Odd: a\nX-More: b\r\n"), id="a bare line feed"),
        pytest.param(answer(b"{}", headers="X-Odd : a\r\n"), id="a blank before the colon"),
        pytest.param(answer(b"{}", headers=f"X-Long: {'a' * 5000}\r\n"), id="a long head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", id="a sign in its length"),
        pytest.param(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}", id="no status"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_whatever_else_came_is_left_to_the_parser(received: bytes) -> None:
    """Each of these means something that a look does not tell, or nothing."""
    assert read(received) is None


def test_a_remembered_head_is_not_the_answer() -> None:
    """The head of the last answer says how long a body must be: one of another length is no plain answer."""
    reader = PlainReader()
    assert reader.read(answer(b"ab")) == Plain(200, OURS, b"ab")
    assert reader.read(answer(b"cd")) == Plain(200, OURS, b"cd")
    assert reader.read(answer(b"ab") + b"c") is None
    assert reader.read(answer(b"abc")) == Plain(200, {"content-length": "3"}, b"abc")
    assert reader.read(b"nonsense\r\n\r\n") is None
    assert reader.read(answer(b"ab")) == Plain(200, OURS, b"ab")


# Pieces that answers are made of, right ones and wrong ones; any row of them is an answer that some server may give.
_PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No\r\n",
        b"HTTP/1.1 200\r\n", b"Content-Length: 2\r\n", b"Content-Length: 0\r\n", b"content-length:2\r\n",
        b"Content-Length: 2, 2\r\n", b"Content-Length: 02\r\n", b"Transfer-Encoding: chunked\r\n", b"Date: today\r\n",
        b"Connection: keep-alive\r\n", b"Connection: close\r\n", b"X-A: b\r\n", b"X-A:\r\n", b"X-A: \xe9\r\n",
        b" b\r\n", b"\r\n", b"\n", b"\r", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"\x00",
    ]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=7).map(b"".join))
def test_what_is_read_at_sight_is_what_the_parser_reads(received: bytes) -> None:
    """The law of the short way: where it answers at all, it answers as the long way would."""
    found = read(received)
    if found is not None:
        assert parsed(received) == [found]


@given(
    status=st.integers(200, 599).filter(lambda code: code not in (204, 205, 304)),
    headers=st.dictionaries(
        st.from_regex(r"X-[A-Za-z0-9-]{1,8}", fullmatch=True),
        st.text(st.characters(codec="ascii", categories=["L", "N"])),
    ),
    body=st.binary(max_size=40),
)
def test_a_plain_answer_is_read_as_the_parser_reads_it(status: int, headers: dict[str, str], body: bytes) -> None:
    """And it must answer for what servers do say, or it would be no way at all."""
    unique = {name.lower(): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in unique.items())
    received = answer(body, status=f"{status} Said", headers=lines)
    found = read(received)
    assert found is not None
    assert (found.status, found.body) == (status, body)
    assert parsed(received) == [found]


def parsed(received: bytes) -> list[Plain]:
    """Return the answers that aiohttp's parser reads, all of them complete."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpResponseParser(BaseProtocol(loop), loop, 2**16, read_until_eof=True, auto_decompress=True)
        messages, is_upgraded, tail = parser.feed_data(received)
        assert not is_upgraded
        assert not tail
        return [_read(head.code, head.headers, payload) for head, payload in messages]
    finally:
        loop.close()


def _read(status: int, headers: object, payload: StreamReader) -> Plain:
    assert payload.is_eof()
    items = headers.items()  # type: ignore[attr-defined]
    return Plain(status, {name.lower(): value for name, value in items}, payload.read_nowait())


async def test_an_answer_in_two_pieces_is_the_same_answer(open_transport: Opener) -> None:
    """Where the network cuts is nobody's choice."""
    whole = answer(b'{"data": true}', headers="X-A: b\r\n")
    for at in (1, len(whole) // 2, len(whole) - 1):

        async def script(connection, at: int = at) -> None:  # type: ignore[no-untyped-def]
            connection.writer.transport.set_write_buffer_limits(0)
            await connection.say(whole[:at])
            await asyncio.sleep(0.01)  # so that the pieces are read apart: nothing tells when one was
            await connection.say(whole[at:])

        async with raw_server(script) as cut, raw_server(answering(whole)) as uncut:
            answers = [await open_transport(server.base_url).send(call()) for server in (cut, uncut)]
        first, second = answers
        assert isinstance(first, Answered)
        assert isinstance(second, Answered)
        assert (first.response.body, first.response.headers) == (second.response.body, second.response.headers)
