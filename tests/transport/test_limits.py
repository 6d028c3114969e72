"""Sizes: what an answer may cost in memory, and where a large one goes."""

from __future__ import annotations

import gzip
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.domain.errors import InfrastructureError
from syncd.providers.contract import Answered, MaybeApplied
from tests.support.rawserver import Connection, answer, answering, raw_server
from tests.transport.conftest import Opener, call

BIG = os.urandom(1 << 20) * 3


async def test_an_answer_over_the_limit_is_not_believed_and_not_kept(open_transport: Opener) -> None:
    """A fault that answers with a gigabyte must not end us, and half an answer is no answer."""
    async with raw_server(answering(answer(b"x" * 1001))) as server:
        transport = open_transport(server.base_url, body_bytes=1000, download_bytes=1000)
        got = await transport.send(call())
        async with transport.download(call()) as downloaded:
            pass
    assert got == downloaded == MaybeApplied("the answer is larger than 1000 bytes", 200)


async def test_an_answer_at_the_limit_is_taken(open_transport: Opener) -> None:
    """The limit is the largest size that is allowed."""
    async with raw_server(answering(answer(b"x" * 1000))) as server:
        got = await open_transport(server.base_url, body_bytes=1000).send(call())
    assert isinstance(got, Answered)


async def test_the_limit_counts_what_the_answer_unpacks_to(open_transport: Opener) -> None:
    """Ten kilobytes on the wire can be ten megabytes in memory."""
    bomb = answer(gzip.compress(b"0" * 10_000_000), headers="Content-Encoding: gzip\r\n")
    async with raw_server(answering(bomb)) as server:
        transport = open_transport(server.base_url, body_bytes=100_000, download_bytes=100_000)
        got = await transport.send(call())
        async with transport.download(call()) as downloaded:
            pass
    assert got == downloaded == MaybeApplied("the answer is larger than 100000 bytes", 200)


async def test_packed_answers_are_unpacked_once(open_transport: Opener) -> None:
    """Years of orders compress ten to one; a decoder must see them plain, whichever way they came."""
    script = answering(answer(gzip.compress(b'{"data": []}'), headers="Content-Encoding: gzip\r\n"))
    async with raw_server(script) as server:
        transport = open_transport(server.base_url)
        got = await transport.send(call())
        async with transport.download(call()) as downloaded:
            pass
    assert isinstance(got, Answered)
    assert isinstance(downloaded, Answered)
    assert got.response.body == downloaded.response.body == b'{"data": []}'


async def test_a_large_download_is_on_disk_and_gone_afterwards(open_transport: Opener, tmp_path: Path) -> None:
    """A backfill answer can be a gigabyte: memory holds a mebibyte of it, and a crash leaves no file behind."""
    async with (
        raw_server(answering(answer(BIG))) as server,
        open_transport(server.base_url, spool_dir=tmp_path).download(call("GET")) as got,
    ):
        assert isinstance(got, Answered)
        spool = got.response.spool
        assert spool is not None
        assert got.response.body == b""
        assert b"".join(got.response.chunks()) == BIG
        assert b"".join(got.response.chunks(1000)) == BIG  # rewinds
        assert os.listdir(tmp_path) == []
    assert spool.closed


async def test_a_small_download_stays_in_memory(open_transport: Opener) -> None:
    """Most pages are small; a file for each would be the slowest part."""
    async with (
        raw_server(answering(answer(b"small"))) as server,
        open_transport(server.base_url).download(call("GET")) as got,
    ):
        assert isinstance(got, Answered)
        assert got.response.spool is None
        assert b"".join(got.response.chunks()) == b"small"


async def test_a_download_cut_off_late_is_not_believed(open_transport: Opener) -> None:
    """What is already on disk when the connection breaks is dropped with it."""

    async def cut_off(connection: Connection) -> None:
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(BIG) + 1), BIG)
        connection.writer.close()

    async with raw_server(cut_off) as server, open_transport(server.base_url).download(call("GET")) as got:
        assert got == MaybeApplied("the answer was cut off or cannot be unpacked", 200)


@contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond the limit: the kernel then refuses writes as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_said_in_plain_words(open_transport: Opener, tmp_path: Path) -> None:
    """It is the machine's fault, not the CRM's: the person reading must learn which directory to free."""
    async with raw_server(answering(answer(BIG))) as server:
        transport = open_transport(server.base_url, spool_dir=tmp_path)
        with small_files(100_000), pytest.raises(InfrastructureError, match="does not fit on disk in") as caught:
            async with transport.download(call("GET")):
                pass
        assert str(tmp_path) in str(caught.value)
        assert isinstance(await transport.send(call()), Answered)


async def test_a_missing_spool_directory_is_said_in_plain_words(open_transport: Opener, tmp_path: Path) -> None:
    """The same words where the directory was never there."""
    async with raw_server(answering(answer(BIG))) as server:
        transport = open_transport(server.base_url, spool_dir=tmp_path / "absent")
        with pytest.raises(InfrastructureError, match="absent"):
            async with transport.download(call("GET")):
                pass
