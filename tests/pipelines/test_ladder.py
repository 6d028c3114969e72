"""The cadence ladder in the daemon: kept across restarts and replicas, and not at the cost of recent time."""

from __future__ import annotations

from datetime import UTC, datetime

from syncd.sandbox import World
from syncd.store import Store
from tests.support.simulated import Replica, Simulated, simulated

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
OTHERS = ("tags", "fields", "groups", "lists", "group_members", "relation_details", "invoices", "invoice_details")
ORDERS_ALONE = {f"cadence_{name}_s": 0 for name in OTHERS}
ORDERS_ALONE |= {f"cadence_relation_{name}_s": 0 for name in ("tags", "subscriptions", "orders")}
SETTINGS = {**ORDERS_ALONE, "cadence_orders_s": 600, "deep_reread_every_s": 6 * 3600}


def world() -> World:
    return World.seeded(5, 20, 0, seed=3, now=NOON)


def asked(it: Simulated) -> list[str]:
    """How far each orders request reached back: a deep read of 90 days, a wide one of 3, or a short one."""
    hours = [int(line.parameters["hours"]) for line in it.box.requests if line.operation == "orders"]
    return ["deep" if each >= 2160 else "wide" if each >= 72 else "short" for each in hours]


async def test_a_daemon_that_restarts_often_keeps_the_ladder(store: Store) -> None:
    """A wide read that is due by a process's own memory is never made by one that lives for half an hour."""
    async with simulated(store, world(), NOON, **SETTINGS) as it:
        await it.pull_all()
        for _ in range(26):
            await it.run(1800, await it.replica())
        found = asked(it)
        assert found.count("deep") == 1 + 2, "the first load, and every six hours of thirteen"
        assert 8 <= found.count("wide") <= 11, "every hour, less those that a deep read takes the place of"


async def test_two_replicas_make_each_wide_read_once(store: Store) -> None:
    """The lease says who pulls, the database what is due: a change of the holder neither repeats nor forgets a rung."""
    async with simulated(store, world(), NOON, **SETTINGS) as it:
        await it.pull_all()
        one, two = await it.replica("one"), await it.replica("two")
        assert (one.lease.is_held, two.lease.is_held) == (True, False)
        for holder, other in [(one, two), (two, one)] * 7:
            await _hand_over(other, holder)
            await it.run(3600, holder, other)
        assert asked(it).count("deep") == 1 + 2
        assert all(run.is_success for run in it.told.runs)


async def test_a_wide_read_that_keeps_failing_costs_neither_recent_time_nor_patience(store: Store) -> None:
    """A deep answer that times out every night must not be asked for each minute, nor stop the orders of today."""
    async with simulated(store, world(), NOON, **SETTINGS) as it:
        await it.pull_all()
        daemon = await it.replica()
        await it.run(5.9 * 3600, daemon)
        before = len(asked(it))
        it.box.faults.add("status", status=504, operation="orders", times=0)
        await it.run(3600, daemon)
        failed = asked(it)[before:]
        assert len(failed) == 5, "a round each eleven minutes, and no more"
        assert failed.count("deep") == 2, "when it is due, and again after a twelfth of its interval"
        assert failed[1] != "deep", "the next round does without it"
        it.box.faults.clear()
        await it.run(1320, daemon)
        assert [run.is_success for run in it.told.runs[-2:]] == [True, True]


async def _hand_over(giver: Replica, taker: Replica) -> None:
    await giver.lease.release()
    await taker.lease.renew()
