"""Pulling: orders a second of the first load and of the unchanged re-pull over HTTP, beside raw COPY of the same rows.

The simulator runs in a process of its own; the load counts everything from the first request to the commit: HTTP,
decoding, relations, orders, lines, hashes, history and coverage. COPY then loads the very rows that the pull wrote
(relations, orders, order lines; no history) from files into the same emptied tables, keys and indexes in place. Of each
the best of the rounds counts. Needs a Postgres server whose role may create databases: ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import asyncpg

from benchmarks.databases import beside
from benchmarks.figures import Figure, note, peak_mb
from syncd.clock import SystemClock
from syncd.domain.reports import RunReport
from syncd.inbound import Puller, PullPolicy
from syncd.policy.windows import WindowRule
from syncd.providers.autorespond import provider
from syncd.sandbox import Sandbox, SandboxOptions, serve
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.store.migrate import upgrade
from syncd.store.throwaway import fresh_database
from syncd.transport import Transport

TABLES = ("relations", "orders", "order_lines")
EVERYTHING = PullPolicy(window=WindowRule(horizon_s=20 * 365 * 86400.0))


@dataclass(frozen=True, slots=True)
class Crm:
    base_url: str
    admin: str
    key: str


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of each way, and how many orders there were."""

    orders: int
    load_s: float
    again_s: float
    copy_s: float


def simulate(pipe: Pipe, orders: int) -> None:
    """Serve a seeded world until killed; say where first."""

    def ready(sandbox: Sandbox) -> None:
        pipe.send(Crm(sandbox.base_url, str(sandbox.admin), sandbox.key))

    asyncio.run(serve(SandboxOptions(relations=max(1, orders // 5), orders=orders, invoices=0, port=0), ready))


async def one_round(crm: Crm, server_url: str) -> Round:
    url = await fresh_database(server_url, f"syncd_bench_pull_{os.getpid()}")
    store = Store.open(url)
    try:
        await upgrade(store)
        async with opened_puller(store, crm) as puller:
            load = await puller.pull("orders")
            again = await puller.backfill_again()
        assert (load.status, again.inserted, again.updated) == ("succeeded", 0, 0), (load, again)
        assert again.unchanged == load.inserted, (load, again)
        return Round(load.inserted, load.elapsed_s, again.elapsed_s, await raw_copy(url))
    finally:
        await store.close()
        admin = await asyncpg.connect(server_url)
        await admin.execute(f'DROP DATABASE "syncd_bench_pull_{os.getpid()}" WITH (FORCE)')
        await admin.close()


class _Puller(Puller):
    async def backfill_again(self) -> RunReport:
        """Ask for the same whole window once more."""
        return await self.pull("orders", reach_s=EVERYTHING.window.horizon_s)


@asynccontextmanager
async def opened_puller(store: Store, crm: Crm) -> AsyncIterator[_Puller]:
    crm_api = provider()
    auth = crm_api.auth({"admin": crm.admin, "key": crm.key})
    transport = Transport.open(crm.base_url, auth, clock=SystemClock())
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "bench", crm_api.name)
    try:
        yield _Puller(store, crm_api, transport, SystemClock(), account, EVERYTHING, lambda _: None)
    finally:
        await transport.close()


async def raw_copy(url: str) -> float:
    """Copy the mirrored rows out, empty the tables, and return the seconds that copying them back takes."""
    connection = await asyncpg.connect(url)
    with tempfile.TemporaryDirectory() as directory:
        files = {table: Path(directory) / table for table in TABLES}
        for table, file in files.items():
            await connection.copy_from_table(table, schema_name="crm", output=file)
        await connection.execute("SET syncd.origin = 'remote'; SET session_replication_role = replica")
        await connection.execute("TRUNCATE crm.relations, syncd.changes CASCADE")
        await connection.execute("SET session_replication_role = origin")
        started = time.perf_counter()
        async with connection.transaction():
            for table, file in files.items():
                await connection.copy_to_table(table, schema_name="crm", source=file)
        elapsed_s = time.perf_counter() - started
    await connection.close()
    return elapsed_s


async def measure(crm: Crm, server_url: str, rounds: int) -> None:
    found = [await one_round(crm, server_url) for _ in range(rounds)]
    load_s, again_s, copy_s = (min(getattr(r, name) for r in found) for name in ("load_s", "again_s", "copy_s"))
    orders = found[0].orders
    print(f"orders, with lines and relations {orders:10}")
    print(f"raw COPY of the same rows        {orders / copy_s:10.0f} orders/s")
    print(f"first load over HTTP             {orders / load_s:10.0f} orders/s, {copy_s / load_s:.2f} of COPY")
    print(
        f"unchanged re-pull over HTTP      {orders / again_s:10.0f} orders/s, {load_s / again_s:.2f} x the first load"
    )
    print(f"peak memory                      {peak_mb():10.0f} MB")
    load, again = f"{orders / load_s:.0f} orders/s", f"{orders / again_s:.0f} orders/s"
    note(Figure(f"first load of {orders} orders", load, f"{orders / copy_s:.0f} by COPY", copy_s / load_s, 0.5))
    note(Figure("unchanged re-pull of them", again, f"{load} at first", load_s / again_s, 4.0, "x"))


def sizes(doc: str) -> tuple[int, int]:
    """Read from the command line how many orders, in how many rounds."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--short", action="store_true", help="a small size: shows that it works, measures little")
    options = parser.parse_args()
    return (2_000, 1) if options.short else (options.orders, options.rounds)


def main() -> None:
    orders, rounds = sizes(__doc__ or "")
    with beside(simulate, orders) as simulator:
        asyncio.run(measure(simulator.recv(), os.environ["SYNCD_TEST_SERVER"], rounds))


if __name__ == "__main__":
    main()
