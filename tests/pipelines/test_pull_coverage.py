"""Coverage through the pipeline: what is asked for, what is proven, what a downtime does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from syncd.inbound import Progress, PullPolicy
from syncd.policy.windows import WindowRule
from syncd.sandbox import OrderLine
from syncd.store import Store
from syncd.store.coverage import proven
from syncd.store.lateness import learned
from tests.support.pulling import NOON, circle

BREAD = (OrderLine("product", 7001, "Brood", 2),)
WEEK = PullPolicy(window=WindowRule(horizon_s=7 * 86400.0))


async def test_a_pull_proves_time_up_to_its_own_start_less_the_margin(store: Store) -> None:
    """Time must never be claimed up to the newest row: what was written while the CRM answered may be missing."""
    async with circle(store, policy=WEEK) as it:
        report = await it.pull("orders")
        async with store.begin() as connection:
            (interval,) = await proven(connection, it.account.id, "orders")
        assert abs(interval.upper - (NOON - timedelta(seconds=60))) < timedelta(seconds=2)
        assert interval.lower <= NOON - timedelta(days=7)
        assert report.asked_upto == interval.upper


async def test_a_downtime_widens_the_next_window_by_itself(store: Store) -> None:
    """Ten hours without a daemon are a hole like any other; nobody has to remember to fill it."""
    async with circle(store, policy=WEEK, orders=0) as it:
        await it.pull("orders")
        await it.advance(60)
        short = await it.pull("orders")
        assert short.asked_from is not None
        assert it.clock.now() - short.asked_from < timedelta(hours=2, minutes=5)
        await it.advance(3600)
        missed = it.world.add_order(next(iter(it.world.relations)), BREAD)
        await it.advance(9 * 3600)
        wide = await it.pull("orders")
        assert wide.asked_from is not None
        assert it.clock.now() - wide.asked_from > timedelta(hours=12)
        assert await it.rows("SELECT remote_id::int FROM crm.orders") == [(missed.id,)]
        async with store.begin() as connection:
            assert len(await proven(connection, it.account.id, "orders")) == 1


async def test_what_a_downtime_brings_is_not_taken_for_late(store: Store) -> None:
    """Ten hours without a daemon would else make every later window ten hours wide."""
    async with circle(store, policy=WEEK, orders=0) as it:
        await it.pull("orders")
        for hours in (0.02, 10):
            it.world.add_order(next(iter(it.world.relations)), BREAD)
            await it.advance(hours * 3600)
            await it.pull("orders")
        async with store.begin() as connection:
            seen = await learned(connection, it.account.id, "orders", it.clock.now())
        assert (seen.rows, seen.counts[0]) == (1, 1)
        await it.advance(60)
        again = await it.pull("orders")
        assert again.asked_from is not None
        assert it.clock.now() - again.asked_from < timedelta(hours=2, minutes=5)


async def test_a_server_clock_that_is_off_is_corrected_and_a_mad_one_proves_nothing(store: Store) -> None:
    """The window counts from the CRM's now: with its clock behind, our idea of the window would leave a gap."""
    async with circle(store, policy=WEEK, orders=0) as it:
        it.box.clock.advance(-600)
        await it.pull("tags", "orders")
        async with store.begin() as connection:
            (interval,) = await proven(connection, it.account.id, "orders")
        assert abs(interval.upper - (NOON - timedelta(seconds=660))) < timedelta(seconds=4)
        it.box.clock.advance(-7200)
        report = await it.pull("orders")
        assert report.is_success
        assert "clock" in report.warnings[0]
        async with store.begin() as connection:
            assert (await proven(connection, it.account.id, "orders")) == (interval,)


async def test_a_backfill_reads_history_and_not_twice(store: Store) -> None:
    """History is asked for once: what is proven already costs a short window, not another gigabyte."""
    async with circle(store, policy=WEEK, orders=200) as it:
        recent = await it.pull("orders")
        heard: list[Progress] = []
        since = NOON - timedelta(days=3650)
        (first,) = await it.puller.backfill(since, ["orders"], heard.append)
        assert recent.received < 200
        assert (first.status, first.received) == ("succeeded", 200)
        assert heard[-1].rows == 200
        assert heard[-1].bytes > 10_000
        await it.advance(60)
        (again,) = await it.puller.backfill(since, ["orders"])
        assert again.received < 200


async def test_a_backfill_outlasts_the_rounds_of_the_daemon_beside_it(store: Store) -> None:
    """History takes minutes to come, a round comes every minute: neither may undo or refuse the other."""
    async with circle(store, policy=WEEK, orders=200) as it:
        order = it.world.add_order(next(iter(it.world.relations)), BREAD, is_paid=False)
        await it.advance(60)
        await it.pull("orders")
        it.box.faults.add("hold_answer", operation="orders")
        history = asyncio.create_task(it.puller.backfill(NOON - timedelta(days=3650), ["orders"]))
        await it.box.until_held()
        it.world.pay_order(order.id)
        await it.advance(60)
        assert (await it.pull("orders")).updated == 1
        it.box.release()
        (late,) = await history
        assert (late.status, late.received) == ("succeeded", 201)
        assert await it.value(f"SELECT is_paid FROM crm.orders WHERE remote_id = '{order.id}'") is True
        assert await it.value("SELECT count(*) FROM crm.orders") == 201


async def test_reaching_back_reads_older_time_without_unproving_anything(store: Store) -> None:
    """Late truth (an order paid three days on) is found by asking further back now and then."""
    async with circle(store, policy=WEEK, orders=0) as it:
        order = it.world.add_order(next(iter(it.world.relations)), BREAD, is_paid=False)
        await it.pull("orders")
        await it.advance(3 * 86400)
        await it.pull("orders")
        it.world.pay_order(order.id)
        await it.advance(60)
        await it.pull("orders")
        assert await it.value("SELECT is_paid FROM crm.orders") is False
        await it.puller.pull("orders", "late truth", reach_s=4 * 86400)
        assert await it.value("SELECT is_paid FROM crm.orders") is True
