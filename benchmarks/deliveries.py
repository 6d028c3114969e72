"""Deliveries a second: 20k tag adds over 5k relations through the whole outbox, beside a bare aiohttp loop.

Both send the same requests to the same local server, in turns in one run; of each the best round counts. The outbox's
time counts everything: staging, claiming, sending in order, settling with history and attempts. Once with answers at
once, once with answers after 20 ms. The processor time of this process per call is printed too, and the ratio of the
two: on a busy machine, which takes from the longer way more than from the shorter one, it is the steadier figure. Needs
a Postgres server whose role may create databases: ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

import aiohttp
from aiohttp import web
from sqlalchemy import text

from benchmarks.databases import beside, database
from benchmarks.figures import Figure, note, peak_mb
from syncd.clock import SystemClock
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth
from syncd.store import Store
from syncd.transport import Transport, TransportLimits

TAGS = 4
TARGETS = {0.0: 0.45, 0.02: 0.4}


@dataclass(frozen=True, slots=True)
class Job:
    relations: int
    concurrency: int
    latency_s: float
    base_url: str

    @property
    def deliveries(self) -> int:
        return self.relations * TAGS


def serve(pipe: Pipe, latency_s: float) -> None:
    """Answer everything with yes; say first where."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        if latency_s:
            await asyncio.sleep(latency_s)
        return web.Response(body=b'{"data":true}', content_type="application/json")

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        pipe.send(f"http://127.0.0.1:{runner.addresses[0][1]}/api/1.0/")
        await asyncio.Event().wait()

    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Pace:
    """Calls a second by the wall, and this process's microseconds of processor time per call."""

    per_s: float
    cpu_us: float


async def bare(job: Job) -> Pace:
    """Measure a loop that does nothing but send."""
    numbers = iter(range(job.deliveries))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            url = f"{job.base_url}relation/{number // TAGS}/addtag/{number % TAGS}?admin=1&key=k"
            async with session.post(url) as response:
                await response.read()

    connector = aiohttp.TCPConnector(limit=job.concurrency)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker(session) for _ in range(job.concurrency)))
        return _pace(job.deliveries, time.perf_counter() - started, time.process_time() - cpu)


def _pace(calls: int, elapsed_s: float, cpu_s: float) -> Pace:
    return Pace(calls / elapsed_s, cpu_s / calls * 1e6)


async def outbox(job: Job) -> Pace:
    """Measure a one-shot drain, on a database of its own."""
    async with database() as (url, account):
        store = Store.open(url)
        await fill(store, account.id, job.relations)
        limits = DrainLimits(concurrency=job.concurrency, patience_s=1.0)
        transport = Transport.open(
            job.base_url, Auth(query={"admin": "1", "key": "k"}), clock=SystemClock(),
            limits=TransportLimits(connections=job.concurrency),
        )  # fmt: skip
        cpu = time.process_time()
        try:
            report = await Drainer(store, provider(), transport, SystemClock(), account, limits).drain()
            cpu = time.process_time() - cpu
        finally:
            await transport.close()
            await store.close()
    assert (report.delivered, report.pending, report.fenced) == (job.deliveries, 0, 0), report
    return _pace(report.delivered, report.elapsed_s, cpu)


async def fill(store: Store, account_id: int, relations: int) -> None:
    """Mirror relations and tags, then tag every relation as an application would, one transaction per tag."""
    async with store.begin_remote() as connection:
        binds = {"account_id": account_id, "relations": relations, "tags": TAGS}
        await connection.execute(
            text("""INSERT INTO crm.relations (id, account_id, remote_id, email)
                    SELECT n, :account_id, n, n || '@relation.example' FROM generate_series(1, :relations) n"""),
            binds,
        )
        await connection.execute(
            text("""INSERT INTO crm.tags (id, account_id, remote_id, name)
                    SELECT n, :account_id, n, 'tag ' || n FROM generate_series(1, :tags) n"""),
            binds,
        )
    for tag in range(1, TAGS + 1):
        async with store.begin() as connection:
            await connection.execute(
                text("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, :tag FROM crm.relations"),
                {"tag": tag},
            )


async def measure(job: Job, rounds: int) -> None:
    found = [(await bare(job), await outbox(job)) for _ in range(rounds)]
    loop, delivered = (_best(side) for side in zip(*found, strict=True))
    ratio, by_cpu = delivered.per_s / loop.per_s, loop.cpu_us / delivered.cpu_us
    answers = f"{job.latency_s * 1000:.0f} ms answers"
    print(f"deliveries        {job.deliveries} over {job.relations} relations, {answers}")
    print(f"bare aiohttp loop {loop.per_s:10.0f} requests/s   {loop.cpu_us:6.0f} us each")
    print(f"outbox            {delivered.per_s:10.0f} deliveries/s {delivered.cpu_us:6.0f} us each")
    print(f"ratio             {ratio:10.2f}              {by_cpu:6.2f} by processor time")
    print(f"peak memory       {peak_mb():10.0f} MB")
    what = f"outbox deliveries, {answers}"
    per_s, beside_it = f"{delivered.per_s:.0f} /s", f"{loop.per_s:.0f} of a bare aiohttp loop"
    note(Figure(what, per_s, beside_it, ratio, TARGETS.get(job.latency_s)))
    note(Figure(f"{what}, by processor time", f"{delivered.cpu_us:.0f} us", f"{loop.cpu_us:.0f} us", by_cpu))


def _best(side: tuple[Pace, ...]) -> Pace:
    return Pace(max(pace.per_s for pace in side), min(pace.cpu_us for pace in side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relations", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="the best of them counts, for both")
    parser.add_argument("--latency", type=float, action="append", help="milliseconds; again for more (0 and 20)")
    parser.add_argument("--short", action="store_true", help="a small size: shows that it works, measures little")
    given = parser.parse_args()
    relations, rounds = (50, 1) if given.short else (given.relations, given.rounds)
    for latency_ms in given.latency or (0, 20):
        one_latency(relations, given.concurrency, latency_ms / 1000, rounds)


def one_latency(relations: int, concurrency: int, latency_s: float, rounds: int) -> None:
    with beside(serve, latency_s) as server:
        asyncio.run(measure(Job(relations, concurrency, latency_s, server.recv()), rounds))


if __name__ == "__main__":
    main()
