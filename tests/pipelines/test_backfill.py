"""Backfill: what is proven is not asked for again, live traffic goes first, and nothing unproven is called proven."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from syncd.policy.coverage import Interval
from syncd.policy.states import RunStatus
from syncd.sandbox import Switches, World
from syncd.service.backfills import backfill as service_backfill
from syncd.service.yielding import LOOK_S, MOST_S, GiveWay
from syncd.store import Store, account_states, backfilled, runs
from syncd.store.leases import release_lease, take_lease
from syncd.store.runs import Ending
from tests.support.pulling import NOON, POLICY, Circle, circle
from tests.support.simulated import simulated

LONG_AGO = NOON - timedelta(days=3650)
UNPROVE = "UPDATE syncd.readings SET proven_at = proven_at - interval '8 days' WHERE row_id IN"


async def backfill(it: Circle, *streams: str) -> None:
    give_way = GiveWay(it.store, it.clock, it.account.id)
    await it.puller.backfill(LONG_AGO, streams, give_way=give_way)


async def asleep(it: Circle) -> None:
    """Wait until the backfill gives way."""
    async with asyncio.timeout(10):
        await it.clock.until_sleeping()


async def test_a_sweep_asks_for_what_is_not_proven_alone(store: Store) -> None:
    """A backfill of hours that is begun anew must go on, not begin anew."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members", "orders")
        known = await it.value("SELECT count(*) FROM crm.relations")
        await backfill(it, "relation_tags")
        assert it.requested("relation_tags") == known
        await backfill(it, "relation_tags")
        assert it.requested("relation_tags") == known
        await it.edit(f"{UNPROVE} (SELECT id FROM crm.relations ORDER BY id LIMIT 3)")
        await backfill(it, "relation_tags")
        assert it.requested("relation_tags") == known + 3


async def test_an_answer_that_was_not_believed_proves_nothing(store: Store) -> None:
    """Whoever could not be read is what the next backfill is for, and the summary says so."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members", "orders")
        known = await it.value("SELECT count(*) FROM crm.relations")
        it.box.faults.add("malformed", operation="relation_tags", nth=4, times=2)
        await backfill(it, "relation_tags")
        async with it.store.begin() as connection:
            told = await backfilled.of_parents(connection, "default", it.account.id, "relation_tags", 3600)
        assert (told.parts, told.proven, told.is_whole) == (known, known - 2, False)
        before = it.requested("relation_tags")
        await backfill(it, "relation_tags")
        assert it.requested("relation_tags") == before + 2
        async with it.store.begin() as connection:
            assert (await backfilled.of_parents(connection, "default", it.account.id, "relation_tags", 3600)).is_whole


async def test_an_hour_that_comes_twice_keeps_nobody_unproven(store: Store) -> None:
    """Every account has an order of such a night; its relation, and nineteen beside it, would be asked for for ever."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members")
        model = next(iter(it.world.orders.values()))
        it.world.add_order(model.relation_id, model.lines, at=datetime(2023, 10, 29, 0, 30, tzinfo=UTC))
        await backfill(it, "relation_orders")
        assert "came twice" in str(it.reports[-1].warnings)
        async with it.store.begin() as connection:
            assert (await backfilled.of_parents(connection, "default", it.account.id, "relation_orders", 3600)).is_whole


async def test_what_one_answer_left_open_is_asked_for_again_and_nobody_elses(store: Store) -> None:
    """One tag of an unknown name must not unprove all that were written in the same transaction."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members")
        holder = next(iter(it.world.relations.values()))
        it.world.tag(holder, it.world.add_tag("Made since").id)
        await backfill(it, "relation_tags")
        before = len(asked(it))
        await backfill(it, "relation_tags")
        assert asked(it)[before:] == [str(holder.id)]
        await it.pull("tags")
        await backfill(it, "relation_tags")
        await backfill(it, "relation_tags")
        assert asked(it)[before:] == [str(holder.id)] * 2


async def test_two_tags_of_one_name_are_told_and_keep_nobody_unproven(store: Store) -> None:
    """Which of them a relation holds no answer will ever tell: a backfill that waited for it would never be done."""
    async with circle(store, relations=12, switches=Switches(duplicate_tags=True)) as it:
        await it.pull("tags", "groups", "group_members", "orders")
        await backfill(it, "relation_tags")
        async with it.store.begin() as connection:
            told = await backfilled.of_parents(connection, "default", it.account.id, "relation_tags", 3600)
        assert (told.is_whole, told.proven, told.ambiguous) == (True, told.parts, (it.world.tags[301].name,))


async def test_a_window_that_failed_is_told_as_a_hole(store: Store) -> None:
    """A summary that counted runs instead of proven time would call half a history whole."""
    async with circle(store) as it:
        it.box.faults.add("truncated", operation="orders")
        await backfill(it, "orders")
        wanted = Interval(LONG_AGO, NOON - timedelta(minutes=15))
        async with it.store.begin() as connection:
            told = await backfilled.of_window(connection, "default", it.account.id, "orders", wanted)
        assert told.unproven == (wanted,)
        await backfill(it, "orders")
        async with it.store.begin() as connection:
            told = await backfilled.of_window(connection, "default", it.account.id, "orders", wanted)
        assert (told.is_whole, told.unproven) == (True, ())


async def test_while_a_round_of_the_daemon_is_under_way_a_request_goes_in_ten_seconds(store: Store) -> None:
    """A backfill of days must not take from orders of this minute what the CRM allows in a second."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members")
        async with it.store.begin() as connection:
            await take_lease(connection, it.account.id, "daemon", 3600)
            run = await runs.start(connection, it.account.id, "orders", "schedule", NOON)
        history = asyncio.create_task(backfill(it, "relation_tags"))
        for sent in (1, 2):
            for _ in range(int(MOST_S / LOOK_S)):
                await asleep(it)
                assert it.requested("relation_tags") == sent - 1
                await it.clock.advance(LOOK_S)
            await it.box.until_requests("relation_tags", sent)
        await asleep(it)
        async with it.store.begin() as connection:
            await runs.finish(connection, run, Ending(RunStatus.SUCCEEDED))
        await it.clock.advance(LOOK_S)
        await history
        assert it.requested("relation_tags") == await it.value("SELECT count(*) FROM crm.relations")


async def test_what_waits_to_be_delivered_goes_first(store: Store) -> None:
    """An edit made here is what somebody waits for; history waits for nobody."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members")
        async with it.store.begin() as connection:
            await take_lease(connection, it.account.id, "daemon", 3600)
        await it.edit(
            "INSERT INTO syncd.lanes (account_id, relation_id, ready_at)"
            " SELECT account_id, id, now() - interval '1 s' FROM crm.relations LIMIT 1"
        )
        history = asyncio.create_task(backfill(it, "relation_tags"))
        await asleep(it)
        assert it.requested("relation_tags") == 0
        await it.edit("UPDATE syncd.lanes SET ready_at = NULL")
        await it.clock.advance(LOOK_S)
        await history
        assert it.requested("relation_tags") > 1


async def test_when_the_crm_asked_to_be_left_alone_a_backfill_sends_nothing(store: Store) -> None:
    """It asked all of us, and ten seconds are no excuse."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members")
        give_way = GiveWay(it.store, it.clock, it.account.id)
        async with it.store.begin() as connection:
            await account_states.throttle(connection, it.account.id, 600)
        waiting = asyncio.create_task(give_way())
        await asleep(it)
        await it.clock.advance(3 * MOST_S)
        assert not waiting.done()
        await it.edit("UPDATE syncd.account_states SET throttled_until = NULL")
        await it.clock.advance(600)
        async with asyncio.timeout(10):
            await waiting


async def test_nobody_gives_way_to_a_daemon_that_is_gone(store: Store) -> None:
    """What a killed daemon left open would slow every backfill to a crawl until somebody starts it again."""
    async with circle(store, relations=12) as it:
        await it.pull("tags", "groups", "group_members")
        async with it.store.begin() as connection:
            await take_lease(connection, it.account.id, "daemon", 3600)
            await runs.start(connection, it.account.id, "orders", "schedule", NOON)
            await release_lease(connection, it.account.id, "daemon")
        async with asyncio.timeout(20):
            await backfill(it, "relation_tags")
        assert it.requested("relation_tags") == await it.value("SELECT count(*) FROM crm.relations")


async def test_a_daemon_and_a_backfill_side_by_side_disturb_each_other_in_nothing(store: Store) -> None:
    """History is read for days; nobody stops the orders of today for it, and neither may refuse the other's answer."""
    async with simulated(store, World.seeded(30, 60, 12, seed=7, now=NOON), NOON) as it:
        daemon = await it.replica()
        streams = it.runtime.puller.order_of(())
        history = asyncio.create_task(service_backfill(it.runtime, it.clock, LONG_AGO, streams))
        async with asyncio.timeout(60):
            while not history.done():
                await it.run(600, daemon)
        reports, proven = await history
        assert {report.stream for report in reports} == set(streams)
        assert {report.trigger for report in it.told.runs} == {"backfill", "schedule"}
        assert [report for report in it.told.runs if not report.is_success] == []
        assert [one for one in proven if not one.is_whole] == []


async def test_none_known_is_whole_only_where_somebody_looked(store: Store) -> None:
    """A new user who names the members of groups alone must not read that all of them are mirrored."""
    async with circle(store) as it:

        async def told() -> bool:
            async with it.store.begin() as connection:
                found = await backfilled.of_parents(connection, "default", it.account.id, "group_members", 3600)
            assert found.parts == 0
            return found.is_whole

        async def details() -> bool:
            async with it.store.begin() as connection:
                return (await backfilled.of_follow_up(connection, "default", it.account.id, "invoice_details")).is_whole

        it.world.groups.clear()
        it.world.invoices.clear()
        await backfill(it, "group_members", "invoice_details")
        assert (await told(), await details()) == (False, False)
        await backfill(it, "groups", "invoices")
        assert (await told(), await details()) == (True, True)


async def test_the_recently_active_go_first_and_not_with_every_call(store: Store) -> None:
    """Whoever bought today likely got a tag today; whoever never buys still has a turn."""
    async with circle(store, relations=40, policy=replace(POLICY, sweep_budget=20)) as it:
        await it.pull("tags", "groups", "group_members", "orders")
        latest = """SELECT n.remote_id FROM crm.relations n LEFT JOIN crm.orders o ON o.relation_id = n.id
            GROUP BY n.id ORDER BY max(o.purchased_at) DESC NULLS LAST, n.id LIMIT 20"""
        await it.pull("relation_tags")
        assert asked(it) == [remote_id for (remote_id,) in await it.rows(latest)]
        await backfill(it, "relation_tags")
        oldest = "SELECT row_id FROM syncd.readings WHERE stream = 'relation_tags' ORDER BY read_at, row_id"
        await it.edit(
            "UPDATE syncd.readings SET read_at = read_at - make_interval(secs => row_id),"
            " proven_at = proven_at + interval '1 hour' WHERE stream = 'relation_tags'"
        )
        old = [row_id for (row_id,) in await it.rows(oldest)]
        active = old[-10:]  # those read last: by age alone they would be the last of all
        async with it.store.begin_remote() as connection:
            later = f"UPDATE crm.orders SET changed_at = now() + interval '2 hours' WHERE relation_id IN {in_(active)}"
            await connection.exec_driver_sql(later)
        ours = "SELECT id FROM crm.relations WHERE remote_id = ANY(ARRAY[{}])"
        before = len(asked(it))
        await it.pull("relation_tags")
        names = ", ".join(f"'{name}'" for name in asked(it)[before:])
        now = {row_id for (row_id,) in await it.rows(ours.format(names))}
        assert len(now) == 20
        assert len(now & set(active)) == 2, "a tenth of the calls"
        assert set(old[:18]) <= now, "the rest by age"


def asked(it: Circle) -> list[str]:
    return [line.path.split("/")[-2] for line in it.box.requests if line.operation == "relation_tags"]


def in_(ids: list[int]) -> str:
    return f"({', '.join(map(str, ids))})"
