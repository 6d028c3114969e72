"""Each way a request can end, on a real socket, and the one of three words it must get.

``NotSent`` where something may have been applied repeats an effect; ``MaybeApplied`` where nothing was sent parks work
that a person must then judge. Both directions are tested.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from syncd.providers.contract import Answered, MaybeApplied, NotSent
from tests.support.rawserver import (
    Connection,
    Script,
    answer,
    answering,
    answering_then_closing,
    never,
    raw_server,
)
from tests.transport.conftest import Opener, call


async def reset(connection: Connection) -> None:
    connection.reset()


async def say_half_then_reset(connection: Connection) -> None:
    await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    connection.reset()


async def say_unframed_then_reset(connection: Connection) -> None:
    await connection.say(b"HTTP/1.1 200 OK\r\n\r\nhalf of a body that only the end of the connection delimits")
    await asyncio.sleep(0)
    connection.reset()


@pytest.mark.parametrize(
    ("status", "script"),
    [
        pytest.param(None, reset, id="reset before any answer"),
        pytest.param(None, answering_then_closing(), id="closed before any answer"),
        pytest.param(None, answering_then_closing(b"HTTP/1.1 200 O"), id="closed inside the status line"),
        pytest.param(None, answering_then_closing(b"HTTP/1.1 200 OK\r\nConte"), id="closed inside the headers"),
        pytest.param(None, answering_then_closing(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), id="not HTTP"),
        pytest.param(None, answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), id="protocol switched unasked"),
        pytest.param(200, say_half_then_reset, id="reset inside the body"),
        pytest.param(
            200, answering_then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), id="shorter than promised"
        ),
        pytest.param(
            200,
            answering_then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
            id="chunked without its last chunk",
        ),
        pytest.param(
            None,  # the parser refuses head and body together
            answering_then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot-a-size\r\n"),
            id="chunked nonsense",
        ),
        pytest.param(
            200,
            answering(answer(b"this is not gzip", headers="Content-Encoding: gzip\r\n")),
            id="not in the encoding it claims",
        ),
        pytest.param(200, say_unframed_then_reset, id="unframed body reset"),
    ],
)
@pytest.mark.parametrize("verb", ["POST", "GET"])
async def test_a_fault_after_the_request_is_written_may_have_been_applied(
    open_transport: Opener, script: Script, status: int | None, verb: str
) -> None:
    """The server had the whole request: whatever broke afterwards, calling it unsent would repeat an effect."""
    async with raw_server(script) as server:
        transport = open_transport(server.base_url)
        sent = await transport.send(call(verb))
        async with transport.download(call(verb)) as downloaded:
            pass
    for got in (sent, downloaded):
        assert isinstance(got, MaybeApplied), got
        assert got.status == status
    assert len(server.requests) == 2
    assert transport.counters.maybe_applied == 2


@pytest.mark.parametrize("status", ["200 OK", "301 Moved", "400 Bad", "404 Not", "429 Slow", "500 Oops", "503 Busy"])
async def test_a_complete_answer_of_any_status_is_answered(open_transport: Opener, status: str) -> None:
    """What a status means is the provider's to say; the transport follows no redirect and raises for nothing."""
    script = answering(answer(b"x", status=status, headers="Location: /elsewhere\r\nX-Twice: a\r\nX-Twice: b\r\n"))
    async with raw_server(script) as server:
        transport = open_transport(server.base_url)
        got = await transport.send(call())
        async with transport.download(call()) as downloaded:
            pass
    for answered in (got, downloaded):
        assert isinstance(answered, Answered)
        assert answered.response.status == int(status[:3])
        assert answered.response.body == b"x"
        assert answered.response.headers["location"] == "/elsewhere"
        assert answered.response.headers["x-twice"] == "a, b"
        assert answered.response.elapsed_s > 0
    assert len(server.requests) == 2
    assert transport.counters.answered_by_status == {int(status[:3]): 2}


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], b"", id="no content"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", answer(b"y")], b"y", id="a provisional answer first"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"],
            b"ab",
            id="chunked, in drops",
        ),
    ],
)
async def test_every_framing_of_http_is_read(open_transport: Opener, pieces: list[bytes], body: bytes) -> None:
    """A 204 must not wait for a body, and a 100 is not the answer."""
    async with raw_server(answering(*pieces)) as server:
        got = await open_transport(server.base_url).send(call())
    assert isinstance(got, Answered)
    assert got.response.body == body


async def test_a_body_delimited_by_an_orderly_end_is_complete(open_transport: Opener) -> None:
    """Old servers and proxies frame a body by closing; that is valid HTTP."""
    async with raw_server(answering_then_closing(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as server:
        got = await open_transport(server.base_url).send(call())
    assert isinstance(got, Answered)
    assert got.response.body == b"all of it"


async def test_a_refused_connection_is_not_sent(open_transport: Opener) -> None:
    """Nothing listens: the change certainly was not applied, so even a call with an effect may be sent again."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        transport = open_transport(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        got = await transport.send(call())
        async with transport.download(call()) as downloaded:
            pass
    assert got == downloaded == NotSent("the connection was refused")
    assert transport.counters.not_sent == 2
    assert transport.counters.sent_bytes == 0


async def test_an_unknown_host_is_not_sent(open_transport: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server's bad day is nobody's effect."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known: api.example")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert await open_transport("https://api.example/").send(call()) == NotSent("the host name cannot be resolved")


async def test_a_connection_that_is_never_accepted_is_not_sent(open_transport: Opener) -> None:
    """A firewall that drops packets looks like this."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        transport = open_transport(f"http://127.0.0.1:{full.getsockname()[1]}/", connect_timeout_s=0.1)
        assert await transport.send(call()) == NotSent("no connection in time")


async def test_no_free_connection_in_time_is_not_sent(open_transport: Opener) -> None:
    """A request that waits behind others has not left, however long it waited."""
    async with raw_server(never) as server:
        transport = open_transport(server.base_url, connections=1, pool_timeout_s=0.05, connect_timeout_s=0.05)
        first = asyncio.create_task(transport.send(call()))
        await server.arrived.wait()
        assert await transport.send(call()) == NotSent("no connection in time")
        assert await transport.send(call(), timeout_s=0.01) == NotSent("no connection in time")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert len(server.requests) == 1


@pytest.mark.parametrize("limits", [{"read_timeout_s": 0.1}, {"total_timeout_s": 0.1}])
async def test_silence_after_the_request_may_have_been_applied(
    open_transport: Opener, limits: dict[str, float]
) -> None:
    """The server may be busy applying it right now."""
    async with raw_server(never) as server:
        got = await open_transport(server.base_url, **limits).send(call())
    assert got == MaybeApplied("no answer came in time")


async def test_a_slow_drip_ends_at_the_total_deadline(open_transport: Opener) -> None:
    """Each byte resets the read timeout; a lease does not wait for that."""

    async def drip(connection: Connection) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await connection.say(b".")
            await asyncio.sleep(0.01)

    async with raw_server(drip) as server:
        transport = open_transport(server.base_url, read_timeout_s=5)
        got = await transport.send(call(), timeout_s=0.15)
        async with transport.download(call(), timeout_s=0.15) as downloaded:
            pass
    assert got == downloaded == MaybeApplied("the answer stopped coming in time", 200)


async def test_cancellation_propagates_and_drops_the_connection(open_transport: Opener) -> None:
    """A stop must not turn into an outcome, and the half-used connection must not serve the next request."""
    async with raw_server(never) as server:
        transport = open_transport(server.base_url)
        for start in (transport.send, lambda request: _download(transport, request)):
            server.arrived.clear()
            task = asyncio.create_task(start(call()))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert server.connections == 2


async def _download(transport: object, request: object) -> object:
    async with transport.download(request) as got:  # type: ignore[attr-defined]
        return got


async def test_after_close_nothing_is_sent(open_transport: Opener) -> None:
    """A stopping daemon's last tasks get a plain word, not a crash."""
    async with raw_server(answering(answer())) as server:
        transport = open_transport(server.base_url)
        assert isinstance(await transport.send(call()), Answered)
        await transport.close()
        assert await transport.send(call()) == NotSent("the transport is closed")
    assert len(server.requests) == 1


async def test_counters_are_sums_of_what_happened(open_transport: Opener) -> None:
    """Metrics are read from these; a request that never left has no bytes."""
    async with raw_server(answering(answer(b"12345"))) as server:
        transport = open_transport(server.base_url)
        await transport.send(call())
        await transport.send(call())
    assert transport.counters.requests == transport.counters.answered == 2
    assert transport.counters.received_bytes == 10
    assert transport.counters.sent_bytes == sum(len(request) for request in server.requests)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_no_time_at_all_is_not_sent(open_transport: Opener, timeout_s: float) -> None:
    """A deadline that has passed must not let a request out on a kept connection, only to give it up as unknown."""
    async with raw_server(answering(answer())) as server:
        transport = open_transport(server.base_url)
        assert isinstance(await transport.send(call()), Answered)
        assert await transport.send(call(), timeout_s=timeout_s) == NotSent("no connection in time")
    assert len(server.requests) == 1


async def test_the_time_for_one_answer_does_not_end_the_next(open_transport: Opener) -> None:
    """The timer of an exchange is on its connection, which is kept: it must go with its exchange."""
    async with raw_server(answering(answer())) as server:
        transport = open_transport(server.base_url)
        assert isinstance(await transport.send(call(), timeout_s=0.05), Answered)
        await asyncio.sleep(0.1)  # past that time
        assert isinstance(await transport.send(call()), Answered)
    assert server.connections == 1
