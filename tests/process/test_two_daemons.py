"""Two daemons on one database, killed and stopped in the middle of a pull: nothing is asked twice beyond a lease, and
no window is lost. The short form is in ``tests/pipelines/test_pull_replicas.py``.

Real processes, SIGKILL and SIGSTOP, a lease of three seconds. The CRM's journal says what was asked when.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.support import proving
from tests.support.commands import Daemon, daemon
from tests.support.news import BREAD

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not proving.is_long(), reason="make prove plays it")]

# The holder of each turn is killed, or stopped while it waits for an answer, as is drawn; the first two are both.
TURNS = 8
LEASE_S = 3.0

_OVERLAPPING = text("""
    SELECT count(*) FROM syncd.runs a JOIN syncd.runs b ON a.stream = b.stream AND a.id < b.id
    WHERE a.status <> 'abandoned' AND b.status <> 'abandoned' AND b.started_at < a.finished_at
""")
_RUNS = text("SELECT count(*) FROM syncd.runs WHERE stream = 'orders'")
_LOST = text("SELECT count(*) FROM syncd.runs WHERE status IN ('abandoned', 'running', 'refused')")
_HOLES = text("""
    SELECT count(*) FROM syncd.coverage c, unnest(c.proven) AS span WHERE stream = 'orders'
""")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=4, orders=0, invoices=0, seed=3)) as running:
        yield running


async def test_whoever_holds_the_lease_may_die_or_stall_in_mid_pull(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store, proof: proving.Say
) -> None:
    """The other one goes on within a lease; what the first had asked for when it died is asked for again."""
    chance, started = random.Random(proving.seed()), time.monotonic()
    settings = {"database_url": database, "base_url": sandbox.base_url, "cadence_orders_s": "1"}
    settings |= {"autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    stops = 0
    async with AsyncExitStack() as stack:

        async def another(name: str) -> Daemon:
            return await stack.enter_async_context(daemon(tmp_path, replica=name, **settings))

        holder = await another("replica-0")
        await holder.until("lease.taken")
        waiting = await another("replica-1")
        await waiting.until("service.started")
        await holder.until("run.finished", stream="orders")
        for turn in range(TURNS):
            blow = signal.SIGSTOP if turn == 1 or (turn > 1 and chance.random() < 0.5) else signal.SIGKILL
            await _strike(sandbox, holder, waiting, blow)
            if blow is signal.SIGKILL:
                holder, waiting = waiting, await another(f"replica-{turn + 2}")
                await waiting.until("service.started")
            else:
                stops += 1
                holder.process.send_signal(signal.SIGCONT)
                await holder.until("lease.lost")
                holder, waiting = waiting, holder
        sandbox.world.add_order(next(iter(sandbox.world.relations)), BREAD)
        await _until_mirrored(store, len(sandbox.world.orders))
        assert await waiting.stopped() == 0
        assert await holder.stopped() == 0
    async with store.begin() as connection:
        overlapping, runs, lost, spans = [
            (await connection.execute(query)).scalar_one() for query in (_OVERLAPPING, _RUNS, _LOST, _HOLES)
        ]
    asked = sandbox.requests.by_operation["orders"]
    assert overlapping <= 2 * stops, "a round that was begun when its daemon was stopped, in each turn; nothing else"
    assert asked <= runs, "each question has its run"
    assert lost <= 3 * TURNS, "a blow costs what was under way, in each of the two turns and the first round"
    assert spans == 1, "a hole is left in what is proven"
    proof(f"two daemons: {TURNS} blows, {asked} orders requests in {runs} runs ({time.monotonic() - started:.0f} s)")


async def _strike(sandbox: Sandbox, holder: Daemon, waiting: Daemon, blow: signal.Signals) -> None:
    """Strike the holder while it waits for an answer; return when the other has taken over and pulled."""
    order = sandbox.world.add_order(next(iter(sandbox.world.relations)), BREAD, is_paid=False)
    sandbox.faults.add("hold_answer", operation="orders")
    await sandbox.until_held()
    holder.process.send_signal(blow)
    sandbox.world.pay_order(order.id)
    struck = time.monotonic()
    await waiting.until("lease.taken")
    assert time.monotonic() - struck < 3 * LEASE_S, "a lease is how long nobody pulls"
    sandbox.release()
    await waiting.until("run.finished", stream="orders", status="succeeded")


async def _until_mirrored(store: Store, orders: int) -> None:
    """Wait for the mirror to hold so many orders, all of them paid as the CRM says."""
    async with asyncio.timeout(30):
        while True:
            async with store.begin() as connection:
                if (await connection.execute(text("SELECT count(*) FROM crm.orders"))).scalar_one() == orders:
                    return
            await asyncio.sleep(0.1)
