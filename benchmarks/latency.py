"""Milliseconds from an application's commit to the request on the wire, while the daemon is otherwise idle; and what
idling costs.

A drainer runs in a process of its own, as ``syncd run`` runs it; a bare server in another notes when each request
arrives; this process edits, one tag at a time: first each after a rest of a second or two, then one soon after the
other, as people at a screen do. All three read one clock (CLOCK_MONOTONIC is the machine's). Then nothing happens for a
while, and the transactions and the processor time that idling took are told.
Needs a Postgres server whose role may create databases: ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import asyncpg
from aiohttp import web

from benchmarks.databases import beside, connected, database, mirrored, told
from benchmarks.figures import Figure, note, peak_mb
from syncd.clock import SystemClock
from syncd.domain.account import Account
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth
from syncd.store import Store
from syncd.transport import Transport

TARGET_MS = 50.0
APPLICATION = "syncd-idle"
_REST_S = (1.2, 2.0)


@dataclass(frozen=True, slots=True)
class Terms:
    rested: int
    edits: int
    idle_s: float
    poll_s: float


def serve(pipe: Pipe) -> None:
    """Say yes to everything, and tell when and for which path."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        pipe.send((time.monotonic(), request.path))
        return web.Response(body=b'{"data":true}', content_type="application/json")

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        pipe.send(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        await asyncio.Event().wait()

    asyncio.run(run())


def drain(pipe: Pipe, url: str, account: Account, base_url: str, poll_s: float) -> None:
    """Drain until killed; answer every word with the processor time and the memory used so far."""

    async def run() -> None:
        store = Store.open(url, application_name=APPLICATION)
        auth = Auth(query={"admin": "1", "key": "k"})
        transport = Transport.open(base_url, auth, clock=SystemClock())
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), lambda: pipe.send((pipe.recv(), time.process_time(), peak_mb())))
        limits = DrainLimits(poll_interval_s=poll_s)
        await Drainer(store, provider(), transport, SystemClock(), account, limits).run(asyncio.Event())

    asyncio.run(run())


async def measure(terms: Terms) -> None:
    async with database() as (url, account):
        await mirrored(url, account.id, terms.rested + terms.edits + 1)
        with beside(serve) as server:
            base_url = await told(server)
            with beside(drain, url, account, base_url, terms.poll_s) as drainer:
                relations = itertools.count(1)
                await waited_ms(url, server, next(relations))  # connections are made, plans are known
                rested = [await waited_ms(url, server, next(relations), _REST_S) for _ in range(terms.rested)]
                often = [await waited_ms(url, server, next(relations)) for _ in range(terms.edits)]
                idling = await idle(url, drainer, terms.idle_s)
    tell(rested, often, idling, terms)


async def waited_ms(url: str, server: Pipe, relation: int, rest_s: tuple[float, float] = (0.1, 0.4)) -> float:
    """Tag a relation at an odd moment, and return how long after the commit its request arrived."""
    await asyncio.sleep(random.uniform(*rest_s))
    async with connected(url) as connection:
        await connection.execute("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ($1, 1)", relation)
        committed_at = time.monotonic()
    arrived_at, path = await told(server)
    assert path == f"/relation/{relation}/addtag/1", path
    return float(arrived_at - committed_at) * 1000


@dataclass(frozen=True, slots=True)
class Idling:
    """A second of an idle daemon: its transactions, and milliseconds of processor time on both sides."""

    transactions: float
    drainer_ms: float
    postgres_ms: float
    peak_mb: float


async def idle(url: str, drainer: Pipe, seconds: float) -> Idling:
    async with connected(url) as connection:
        await asyncio.sleep(1.0)
        before = await _spent(connection, drainer)
        await asyncio.sleep(seconds)
        after = await _spent(connection, drainer)
    commits, ours, theirs = (late - early for late, early in zip(after[:3], before[:3], strict=True))
    return Idling(commits / seconds, ours * 1000 / seconds, theirs * 1000 / seconds, after[3])


async def _spent(connection: asyncpg.Connection, drainer: Pipe) -> tuple[float, float, float, float]:
    drainer.send("spent?")
    _, ours, memory_mb = await told(drainer)
    await asyncio.sleep(1.1)  # statistics reach the others within a second
    commits = await connection.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    pids = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = $1", APPLICATION)
    return commits, ours, sum(_cpu_s(row["pid"]) for row in pids), memory_mb


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process of this machine; nothing where the server runs elsewhere."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def tell(rested: list[float], often: list[float], idling: Idling, terms: Terms) -> None:
    for name, waits in (("after a rest", rested), ("soon after another", often)):
        waits.sort()
        print(f"commit to request, {name:18} {_told(waits)}   of {len(waits)} edits")
    print(
        f"idle, looks every {terms.poll_s * 1000:.0f} ms          {idling.transactions:.0f} transactions/s   "
        f"{idling.drainer_ms:.1f} ms/s of a processor here, {idling.postgres_ms:.1f} ms/s in Postgres"
    )
    print(f"peak memory of the drainer           {idling.peak_mb:.0f} MB")
    note(Figure("commit to request, idle daemon", _told(rested), "", rested[len(rested) // 2], TARGET_MS, "ms", True))
    note(Figure("commit to request, soon after another", _told(often), "", often[len(often) // 2], None, "ms", True))
    spent_ms = idling.drainer_ms + idling.postgres_ms
    note(Figure("idling", f"{idling.transactions:.0f} transactions/s", "", spent_ms / 10, None, "% of a processor"))


def _told(waits: list[float]) -> str:
    p50, p99 = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rested", type=int, default=30, help="edits after a rest")
    parser.add_argument("--edits", type=int, default=200, help="edits soon after another")
    parser.add_argument("--idle", type=float, default=10, help="seconds of watching it do nothing")
    parser.add_argument("--poll", type=float, default=DrainLimits().poll_interval_s * 1000, help="milliseconds")
    parser.add_argument("--short", action="store_true", help="a small size: shows that it works, measures little")
    given = parser.parse_args()
    size = (1, 5, 0.5) if given.short else (given.rested, given.edits, given.idle)
    asyncio.run(measure(Terms(*size, given.poll / 1000)))


if __name__ == "__main__":
    main()
