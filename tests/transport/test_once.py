"""One send is one request on the wire, and an answer belongs to the request that asked for it.

aiohttp's session repeats GET, PUT and DELETE by itself when a kept connection breaks. Some CRM writes travel as PUT or
DELETE, and reads may be billed or rate-limited: nothing is repeated unless our own retry policy says so.
"""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from msgspec.structs import replace

from syncd.providers.contract import Answered, MaybeApplied
from tests.support.rawserver import Connection, answer, answering, raw_server
from tests.transport.conftest import Opener, call


async def answer_once_then_close_on_the_next(connection: Connection) -> None:
    """Keep the connection after the first request; read the second and close without a word."""
    if connection.turn == 1:
        await connection.say(answer())
    else:
        connection.writer.close()


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "GET"])
async def test_a_request_on_a_broken_kept_connection_is_sent_once(open_transport: Opener, verb: str) -> None:
    """The server had read it: a second copy would be a second effect."""
    async with raw_server(answer_once_then_close_on_the_next) as server:
        transport = open_transport(server.base_url)
        assert isinstance(await transport.send(call(verb)), Answered)
        assert isinstance(await transport.send(call(verb)), MaybeApplied)
        assert len(server.requests) == 2
        other = open_transport(server.base_url)
        assert isinstance(await other.send(call(verb)), Answered)
        async with other.download(call(verb)) as got:
            assert isinstance(got, MaybeApplied)
    assert len(server.requests) == 4


async def test_a_kept_connection_that_broke_makes_all_of_them_suspect(open_transport: Opener) -> None:
    """Else a server that closes after each answer without a word would lose every second request, and with it every
    conversation of two."""
    async with raw_server(answer_once_then_close_on_the_next) as server:
        transport = open_transport(server.base_url)
        assert isinstance(await transport.send(call()), Answered)
        assert isinstance(await transport.send(call()), MaybeApplied)
        for _ in range(3):
            assert isinstance(await transport.send(call()), Answered)
            async with transport.download(call()) as got:
                assert isinstance(got, Answered)


async def test_what_may_not_be_repeated_travels_on_a_connection_of_its_own(open_transport: Opener) -> None:
    """A kept connection that breaks would leave the fate of a mail unknown, and a person to find out."""
    async with raw_server(answer_once_then_close_on_the_next) as server:
        transport = open_transport(server.base_url)
        assert isinstance(await transport.send(call()), Answered)
        assert isinstance(await transport.send(replace(call(), needs_own_connection=True)), Answered)


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "GET"])
async def test_a_request_on_a_fresh_connection_is_sent_once(open_transport: Opener, verb: str) -> None:
    """The same where there is no kept connection to blame."""

    async def close(connection: Connection) -> None:
        connection.writer.close()

    async with raw_server(close) as server:
        assert isinstance(await open_transport(server.base_url).send(call(verb)), MaybeApplied)
    assert (len(server.requests), server.connections) == (1, 1)


async def test_the_danger_is_real() -> None:
    """If aiohttp's session ever stops repeating by itself, the reason for our own wire must be told anew."""
    async with raw_server(answer_once_then_close_on_the_next) as server, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.put(server.base_url) as response:
                await response.read()
    assert len(server.requests) == 3


async def test_connections_are_kept_and_shared(open_transport: Opener) -> None:
    """A TLS handshake for every tag would cost more than the tag."""
    async with raw_server(answering(answer())) as server:
        transport = open_transport(server.base_url)
        for _ in range(5):
            assert isinstance(await transport.send(call()), Answered)
        async with transport.download(call()) as got:
            assert isinstance(got, Answered)
    assert (len(server.requests), server.connections) == (6, 1)


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(open_transport: Opener) -> None:
    """A known-dead connection would turn a healthy request into an unknown outcome."""
    closed = asyncio.Event()

    async def answer_then_close(connection: Connection) -> None:
        await connection.say(answer())
        connection.writer.close()
        await connection.writer.wait_closed()
        closed.set()

    async with raw_server(answer_then_close) as server:
        transport = open_transport(server.base_url)
        for _ in range(3):
            closed.clear()
            assert isinstance(await transport.send(call()), Answered)
            await closed.wait()
            await asyncio.sleep(0)
    assert server.connections == 3


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(open_transport: Opener) -> None:
    """A proxy that answers twice would otherwise shift every later answer by one: tag 7 confirmed by tag 6's answer."""
    extra = asyncio.Event()

    async def answer_twice(connection: Connection) -> None:
        await connection.say(answer(str(connection.number).encode()))
        await extra.wait()
        await connection.say(answer(b"stray"))
        said.set()

    said = asyncio.Event()
    async with raw_server(answer_twice) as server:
        transport = open_transport(server.base_url)
        first = await transport.send(call())
        extra.set()
        await said.wait()
        await asyncio.sleep(0.02)  # the stray bytes must have crossed the loopback; no event tells when
        second = await transport.send(call())
    assert isinstance(first, Answered)
    assert isinstance(second, Answered)
    assert (first.response.body, second.response.body) == (b"1", b"2")


async def test_answers_find_their_requests_under_concurrency(open_transport: Opener) -> None:
    """Each caller gets the answer to its own request, however many share the pool."""

    async def echo(connection: Connection) -> None:
        target = server.requests[-1].split(b" ", 2)[1].partition(b"?")[0]
        await connection.say(answer(target.rpartition(b"/")[2]))

    async with raw_server(echo) as server:
        transport = open_transport(server.base_url, connections=8)
        got = await asyncio.gather(*(transport.send(call(path=f"relation/{number}")) for number in range(60)))
    bodies = [answered.response.body for answered in got if isinstance(answered, Answered)]
    assert bodies == [str(number).encode() for number in range(60)]
    assert server.connections <= 8
