"""Two daemons on one database, in simulated time: one pulls, the other waits, and whichever is left goes on.

A replica here is what the service runs: its lease, its jobs, its rounds. ``tests/process/test_two_daemons.py`` does the
same to real processes, with signals.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from syncd.policy.coverage import Interval, covers
from syncd.sandbox import World
from syncd.service.lease import Lease
from syncd.service.pulls import AccountPulls
from syncd.store import Store, coverage
from tests.support.news import BREAD
from tests.support.proving import Say
from tests.support.simulated import Replica, Simulated, simulated

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
LEASE_S = 700.0


async def test_two_daemons_ask_no_more_than_one_and_take_over_from_each_other(store: Store, proof: Say) -> None:
    """A second replica is for the day on which the first is gone: until then it may not cost the CRM one call."""
    async with simulated(store, World.seeded(6, 0, 0, seed=7, now=NOON), NOON) as it:
        await it.pull_all()
        alone = await _asked_in_an_hour(it, await _replica(it, "one"))
        both = await _asked_in_an_hour(it, await _replica(it, "one"), await _replica(it, "two"))
        assert both <= alone * 1.05, "two ask what one does"
        await _lease_ends(it)
        left = await _asked_in_an_hour(it, await _replica(it, "two"), await _replica(it, "one"))
        assert 0.9 * alone <= left <= alone * 1.05, "whoever is left does all of it"
        assert await it.value("SELECT lease_owner FROM syncd.account_states") == "two"
        await _nothing_is_lost(it)
    proof(f"replicas: {alone} requests in an hour alone, {both} by two, {left} after a take-over")


async def test_a_replica_that_sleeps_through_its_lease_in_mid_pull_brings_nothing_late(store: Store) -> None:
    """Stopped between question and answer, it wakes with an old answer in its hands while another pulls."""
    async with simulated(store, World.seeded(6, 0, 0, seed=7, now=NOON), NOON) as it:
        await it.pull_all()
        one, two = await _replica(it, "one"), await _replica(it, "two")
        order = it.world.add_order(next(iter(it.world.relations)), BREAD, is_paid=False)
        it.box.faults.add("hold_answer", operation="orders")
        asleep = asyncio.create_task(_round(one, "orders"))
        await it.box.until_held()
        await it.advance(LEASE_S)
        await _lease_ends(it)
        it.world.pay_order(order.id)
        await two.lease.renew()
        assert (one.lease.is_held, two.lease.is_held) == (False, True)
        await it.runtime.puller.recover()
        await _round(two, "orders")
        it.box.release()
        await asleep
        asked = it.requested()["orders"]
        await _round(one, "orders")
        assert it.requested()["orders"] == asked, "whoever has lost the lease asks nothing more"
        assert [run.status for run in it.told.runs if run.stream == "orders"][-2:] == ["succeeded", "abandoned"]
        assert await it.value(f"SELECT is_paid FROM crm.orders WHERE remote_id = '{order.id}'") is True
        await _nothing_is_lost(it)


async def _replica(it: Simulated, owner: str) -> Replica:
    """Start a daemon that tries for the lease."""
    lease = Lease(it.store, it.clock, it.runtime.account, owner, LEASE_S)
    await lease.renew()
    return Replica(AccountPulls(it.runtime, lease, it.store, it.clock), lease)


async def _asked_in_an_hour(it: Simulated, *replicas: Replica) -> int:
    """Let daemons run for an hour in which orders are placed; return how many requests they made."""
    before = it.box.requests.total
    for _ in range(6):
        it.world.add_order(next(iter(it.world.relations)), BREAD)
        for replica in replicas:
            await replica.lease.renew()
        await it.run(600, *replicas)
    return it.box.requests.total - before


async def _round(replica: Replica, stream: str) -> None:
    await next(job for job in replica.pulls.jobs() if job.name == f"default/{stream}").run()


async def _lease_ends(it: Simulated) -> None:
    """Let the lease run out, which is kept by the database's clock."""
    async with it.store.begin() as connection:
        await connection.exec_driver_sql("UPDATE syncd.account_states SET lease_until = now() - interval '1 s'")


async def _nothing_is_lost(it: Simulated) -> None:
    """All time since noon is proven, and every order of it is in the mirror."""
    async with it.store.begin() as connection:
        proven = await coverage.proven(connection, it.runtime.account.id, "orders")
    assert covers(proven, Interval(NOON, it.clock.now() - timedelta(minutes=4)))
    assert await it.value("SELECT count(*) FROM crm.orders") == len(it.world.orders)
