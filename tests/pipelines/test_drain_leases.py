"""Drain under leases: a long lane keeps its own, nobody sends under one that is over, and no lane starves others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from syncd.providers.contract import ProviderOptions
from syncd.store import Store
from tests.support.locks import until_blocked
from tests.support.logs import Captured, captured_logs
from tests.support.outbox import Circle, circle, rows, run_sql


@asynccontextmanager
async def _untagged_circle(
    store: Store, *, relations: int = 6, options: ProviderOptions | None = None
) -> AsyncIterator[Circle]:
    async with circle(store, relations=relations, options=options) as c:
        for relation in c.sandbox.world.relations.values():
            relation.tags.clear()
            relation.events.clear()
        yield c


async def _tag(store: Store, relation_id: int, *tags: int) -> None:
    for tag in tags:
        await run_sql(
            store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:r, :t)", r=relation_id, t=tag
        )


async def _epochs(store: Store) -> set[int]:
    return {a["epoch"] for a in await rows(store, "SELECT epoch FROM syncd.attempts")}


async def _until_lost(store: Store, logs: Captured) -> None:
    """Wait until the drainer has noticed; the database gives it the turns to do so."""
    async with asyncio.timeout(20):
        while "lease.lost" not in logs.getvalue():
            await rows(store, "SELECT 1")


async def test_a_long_lane_and_those_that_wait_behind_it_keep_their_leases(store: Store) -> None:
    """Six slow calls outlast the lease by far: without renewal each lane would be claimed again and again."""
    async with _untagged_circle(store) as c:
        first, second, *_ = c.sandbox.world.relations
        await _tag(store, first, 301, 302, 303, 304, 305, 306)
        await _tag(store, second, 301)
        c.sandbox.faults.add("delay", operation="tag_add", delay_s=0.4, times=0)
        report = await c.drain(concurrency=1, lease_s=1.6, timeout_s=0.8)
        assert (report.delivered, report.fenced, report.is_empty) == (7, 0, True)
        assert await _epochs(store) == {1}
        assert c.sandbox.requests.by_operation["tag_add"] == 7


async def test_no_request_is_started_that_its_lease_cannot_cover(store: Store) -> None:
    """A request that outlives its lease may land after what the next holder sends. Here the lease cannot be renewed."""
    async with _untagged_circle(store) as c:
        who = next(iter(c.sandbox.world.relations))
        await _tag(store, who, 301, 302)
        c.sandbox.faults.add("hold_answer", operation="tag_add", times=1)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            drain = group.create_task(c.drainer(lease_s=6.0, timeout_s=3.0).drain())
            await c.sandbox.until_held()
            async with store.begin() as somebody:
                await somebody.execute(text("SELECT 1 FROM syncd.lanes FOR UPDATE"))
                await until_blocked(store)  # the answer never came; what there is is being settled
                assert c.sandbox.requests.by_operation["tag_add"] == 1
        assert (drain.result().fenced, drain.result().is_empty) == (0, True)
        first = "SELECT min(epoch) AS epoch FROM syncd.attempts GROUP BY entry_id ORDER BY entry_id"
        epochs = [attempt["epoch"] for attempt in await rows(store, first)]
        assert (epochs[0], epochs[1] > 1) == (1, True), "what the first lease could not cover was left to a later claim"


async def test_a_drainer_that_finds_its_lane_taken_stops_sending_at_once(store: Store) -> None:
    """Before the next step, without waiting for its settle to be refused."""
    async with _untagged_circle(store) as c:
        who = next(iter(c.sandbox.world.relations))
        await _tag(store, who, 301, 302, 303)
        c.sandbox.faults.add("hold_answer", operation="tag_add", times=1)
        with captured_logs(json=True) as logs:
            async with asyncio.TaskGroup() as group:
                drain = group.create_task(c.drain(lease_s=4.0, timeout_s=2.0))
                await c.sandbox.until_held()
                await _take_over(store)
                await _until_lost(store, logs)
                c.sandbox.release()
        assert c.sandbox.requests.by_operation["tag_add"] == 1
        assert (drain.result().delivered, drain.result().fenced) == (0, 1)


async def test_a_conversation_ends_between_two_requests_when_its_lane_is_taken(store: Store) -> None:
    """A write of several requests is several chances to come too late."""
    async with _untagged_circle(store, options=ProviderOptions(verify_writes=True)) as c:
        who = next(iter(c.sandbox.world.relations))
        await _tag(store, who, 301)
        c.sandbox.faults.add("hold_answer", operation="tag_add", times=1)
        with captured_logs(json=True) as logs:
            async with asyncio.TaskGroup() as group:
                drain = group.create_task(c.drain(lease_s=4.0, timeout_s=2.0))
                await c.sandbox.until_held()
                await _take_over(store)
                await _until_lost(store, logs)
                c.sandbox.release()
        assert c.sandbox.requests.by_operation["relation_tags"] == 0
        assert (drain.result().delivered, drain.result().fenced) == (0, 1)


async def _take_over(store: Store) -> None:
    """As another drainer would that found the lease over."""
    await run_sql(
        store, "UPDATE syncd.lanes SET epoch = epoch + 1, claimed_by = 'other', ready_at = now() + interval '1 hour'"
    )


async def test_a_lane_of_hundreds_of_entries_goes_behind_the_others_after_each_window(store: Store) -> None:
    """One busy relation must not starve the others: with one worker, they wait for one window of it and no more."""
    async with _untagged_circle(store, relations=12) as c:
        busy, *others = c.sandbox.world.relations
        await run_sql(
            store,
            """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
               SELECT :a, :r, 'add_tag', 'tag:' || n,
                      jsonb_build_object('tag_id', n, 'tag_remote_id', CAST(n AS text), 'tag_name', 'tag')
               FROM generate_series(1, 200) n""",
            a=c.account.id,
            r=busy,
        )
        for relation in others:
            await _tag(store, relation, 301)
        c.sandbox.faults.add("status", status=200, operation="tag_add", times=0)
        await c.drain(concurrency=1, window=10, breaker_failures=1000)
        called = [relation for (relation,) in await _calls(store)]
        last = max(index for index, relation in enumerate(called) if relation != busy)
        assert called[:last].count(busy) <= 10
        assert called.count(busy) == 200


async def _calls(store: Store) -> list[tuple[int]]:
    found = await rows(
        store,
        """SELECT l.relation_id FROM syncd.attempts a JOIN syncd.lanes l ON l.id = a.lane_id
           ORDER BY a.started_at""",
    )
    return [(row["relation_id"],) for row in found]


async def test_a_change_that_commits_late_is_delivered_by_a_busy_daemon(store: Store) -> None:
    """Its id lies below everything delivered meanwhile; the transaction was open far longer than the mark lags."""
    async with _untagged_circle(store) as c:
        slow_one, busy = list(c.sandbox.world.relations)[:2]
        stop = asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(c.drainer().run(stop))
            async with store.begin() as slow:
                sql = "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:r, 301)"
                await slow.execute(text(sql), {"r": slow_one})
                for number in range(12):
                    await run_sql(
                        store, "UPDATE crm.relations SET first_name = :n WHERE id = :r", n=str(number), r=busy
                    )
                    await c.sandbox.until_requests("relation_upsert", number + 1)
                    await slow.execute(text("SELECT pg_sleep(0.15)"))
            await c.sandbox.journal.until(lambda j: bool(j.of("tag.added")), timeout_s=5)
            stop.set()
