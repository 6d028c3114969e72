"""Deliveries a second: 20k tag adds over 5k relations through the whole outbox, beside a bare aiohttp loop.

Both send the same requests to the same local server, one after the other in one run. The outbox's time counts
everything: staging, claiming, sending in order, settling with history and attempts. ``--latency 20`` answers after
20 ms. The processor time of this process per call is printed too: on a busy machine it is the steadier figure. Needs a
Postgres server whose role may create databases: ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import socket
import time
import uuid
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.engine import make_url

from syncd.clock import SystemClock
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.store.migrate import upgrade
from syncd.transport import Transport, TransportLimits

TAGS = 4


@dataclass(frozen=True, slots=True)
class Job:
    relations: int
    concurrency: int
    latency_s: float
    base_url: str

    @property
    def deliveries(self) -> int:
        return self.relations * TAGS


def serve(port: int, latency_s: float) -> None:
    """Answer everything with yes."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        if latency_s:
            await asyncio.sleep(latency_s)
        return web.Response(body=b'{"data":true}', content_type="application/json")

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
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


async def outbox(job: Job, url: str) -> Pace:
    """Measure a one-shot drain."""
    store = Store.open(url)
    await upgrade(store)
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "bench", "autorespond")
    await fill(store, account.id, job.relations)
    limits = DrainLimits(concurrency=job.concurrency, patience_s=1.0)
    transport = Transport.open(
        job.base_url, Auth(query={"admin": "1", "key": "k"}), clock=SystemClock(),
        limits=TransportLimits(connections=job.concurrency),
    )  # fmt: skip
    cpu = time.process_time()
    try:
        report = await Drainer(store, provider(), transport, SystemClock(), account, limits).drain()
    finally:
        await transport.close()
        await store.close()
    assert (report.delivered, report.pending, report.fenced) == (job.deliveries, 0, 0), report
    return _pace(report.delivered, report.elapsed_s, time.process_time() - cpu)


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


async def measure(job: Job, server_url: str, rounds: int) -> None:
    await until_served(job.base_url)
    found = [await one_round(job, server_url) for _ in range(rounds)]
    loop = max((each[0] for each in found), key=lambda pace: pace.per_s)
    delivered = max((each[1] for each in found), key=lambda pace: pace.per_s)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"deliveries        {job.deliveries} over {job.relations} relations, {job.latency_s * 1000:.0f} ms answers")
    print(f"bare aiohttp loop {loop.per_s:10.0f} requests/s   {loop.cpu_us:6.0f} us each")
    print(f"outbox            {delivered.per_s:10.0f} deliveries/s {delivered.cpu_us:6.0f} us each")
    print(f"ratio             {delivered.per_s / loop.per_s:10.2f}")
    print(f"peak memory       {peak_mb:10.0f} MB")


async def one_round(job: Job, server_url: str) -> tuple[Pace, Pace]:
    """Run the bare loop, then the outbox on a database of its own."""
    name = f"syncd_bench_{uuid.uuid4().hex[:8]}"
    admin = Store.open(server_url, pool_size=1)
    url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
    try:
        async with admin.engine.connect() as connection:
            plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await plain.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
            try:
                return await bare(job), await outbox(job, url)
            finally:
                await plain.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    finally:
        await admin.close()


async def until_served(base_url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(base_url):
                    return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relations", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="the best of them counts, for both")
    parser.add_argument("--latency", type=float, default=0, help="milliseconds")
    parser.add_argument("--short", action="store_true", help="a small size: shows that it works, measures little")
    given = parser.parse_args()
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port, given.latency / 1000), daemon=True)
    server.start()
    job = Job(
        50 if given.short else given.relations,
        given.concurrency,
        given.latency / 1000,
        f"http://127.0.0.1:{port}/api/1.0/",
    )
    try:
        asyncio.run(measure(job, os.environ["SYNCD_TEST_SERVER"], 1 if given.short else given.rounds))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
