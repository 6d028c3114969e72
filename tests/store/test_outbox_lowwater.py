"""The mark that reads begin at: what a held transaction keeps is not walked over, and what commits late is found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text

from syncd.policy.lowwater import WHOLE, LowWater, Mark
from syncd.store import Store
from syncd.store.account_states import look
from syncd.store.by_index import plan_by_index
from syncd.store.outbox import Terms, claim, stage
from tests.support.claims import account_with, changed, claimed_one, delivered, lane_of, settled
from tests.support.lanes import add, is_repeat_safe
from tests.support.outbox import rows, run_sql, stage_all
from tests.support.pages import pages

CAPTURE = "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) VALUES "
TAG = """'add_tag', 'tag:1', '{"tag_id": 1, "tag_remote_id": "1", "tag_name": "tag 1"}')"""


async def _eyes(store: Store, account_id: Any, water: LowWater, at: float, cost: float = 0.0) -> LowWater:
    """Look as a drainer does, at a time of our choosing."""
    start = water.reads_from(at)
    async with store.begin() as connection:
        outlook = await look(connection, account_id, start)
    return water.seen(outlook.sight, start, at, at + cost)


async def _dear(store: Store, account_id: Any) -> LowWater:
    """Two looks from the very start, the second of which cost a second."""
    return await _eyes(store, account_id, await _eyes(store, account_id, LowWater(), -1.0), 0.0, cost=1.0)


async def test_a_capture_that_commits_below_the_mark_is_seen_by_the_next_whole_look(store: Store) -> None:
    """Its id was taken before others that are long delivered: who looks has seen that its transaction ended."""
    account = await account_with(store, 2)
    water = await _eyes(store, account.id, await _dear(store, account.id), 1.0)
    async with store.begin() as slow:
        await slow.execute(text(f"{CAPTURE} ({account.id}, 1, {TAG}"))
        for at in (2.0, 4.0, 6.0):
            await run_sql(store, f"{CAPTURE} ({account.id}, 2, {TAG}")
            await stage_all(store)
            water = await _eyes(store, account.id, water, at)
    late = (await rows(store, "SELECT id FROM syncd.captures"))[0]["id"]
    assert water.mark.capture_id > late
    assert not water.is_owed
    water = await _eyes(store, account.id, water, 8.0)
    assert water.mark.capture_id > late, "a bounded look does not see it"
    assert water.is_owed
    water = await _eyes(store, account.id, water, 21.0)
    assert water.mark.capture_id <= late


async def test_a_lane_that_is_woken_below_the_mark_is_claimed_after_the_next_whole_look(store: Store) -> None:
    """A slow transaction may write an old time: the lane is due, and below where others read from."""
    account = await account_with(store, 1)
    await changed(store, account, 1, add())
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL")
    water = await _dear(store, account.id)
    async with store.begin() as slow:
        await slow.execute(text("UPDATE syncd.lanes SET ready_at = now() - interval '1 hour'"))
        await run_sql(store, "SELECT pg_current_xact_id()")  # or a snapshot would not list the one before
        for at in (3.0, 4.0, 5.0):
            water = await _eyes(store, account.id, water, at)
    water = await _eyes(store, account.id, water, 6.0)
    assert await _claimed(store, account.id, water.mark) == 0
    assert water.is_owed
    water = await _eyes(store, account.id, water, 21.0)
    assert await _claimed(store, account.id, water.mark) == 1


async def _claimed(store: Store, account_id: Any, mark: Mark) -> int:
    terms = Terms("w", 60.0, 100, is_repeat_safe, mark)
    async with store.begin() as connection:
        return len((await claim(connection, account_id, terms, most=10)).lanes)


async def test_a_lane_that_is_locked_while_others_are_claimed_stays_above_the_mark(store: Store) -> None:
    """Skipped, not forgotten: a look sees it whoever holds it."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add())
    await changed(store, account, 2, add())
    async with store.begin() as producer:
        await producer.execute(text("SELECT 1 FROM syncd.lanes WHERE relation_id = 1 FOR UPDATE"))
        lane = await claimed_one(store, account)
        assert lane.relation_id == 2
        water = await _eyes(store, account.id, LowWater(), 0.0, cost=1.0)
        water = await _eyes(store, account.id, water, 5.0)
    assert await _claimed(store, account.id, water.mark) == 1


async def test_nothing_that_settle_writes_lies_below_a_mark(store: Store) -> None:
    """A back-off that ended while its lane was being sent lies in the past by a whole conversation."""
    account = await account_with(store, 1)
    await changed(store, account, 1, add())
    lane = await claimed_one(store, account)
    result = delivered(lane)
    result.again_at = datetime.fromisoformat("2024-01-01T00:00:00+00:00")
    before = (await rows(store, "SELECT clock_timestamp() AS now"))[0]["now"]
    await settled(store, account, result)
    assert (await lane_of(store, 1))["ready_at"] >= before


async def test_what_is_staged_is_ready_by_the_clock_not_by_the_transactions_begin(store: Store) -> None:
    """A stager that waited a minute for a lock must not write a time of a minute ago."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add())
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL")
    async with store.begin() as connection:
        began = (await connection.execute(text("SELECT now()"))).scalar_one()
        for relation in (1, 2):
            await run_sql(store, f"{CAPTURE} ({account.id}, {relation}, {TAG}")
        await stage(connection)
    assert all(r["ready_at"] > began for r in await rows(store, "SELECT ready_at FROM syncd.lanes"))


async def test_a_look_from_the_mark_does_not_walk_over_what_a_held_transaction_keeps(store: Store) -> None:
    """A report of an hour must not make each look read an hour's deliveries: here in pages, which no noise moves."""
    account = await account_with(store, 1)
    await changed(store, account, 1, add())
    async with store.begin() as held:
        await held.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await held.execute(text("SELECT count(*) FROM syncd.ready"))
        water = await _dear(store, account.id)
        for at in range(2, 12, 2):
            for _ in range(200):
                await run_sql(store, "UPDATE syncd.lanes SET ready_at = clock_timestamp()")
            water = await _eyes(store, account.id, water, float(at))
        whole, bounded = await _pages(store, WHOLE), await _pages(store, water.mark)
    assert bounded * 3 < whole, (bounded, whole)


async def _pages(store: Store, mark: Mark) -> int:
    """Return how many pages a search for a due lane touches."""
    async with store.begin() as connection:
        await plan_by_index(connection)
        search = (
            "SELECT lane_id FROM syncd.ready "
            f"WHERE account_id = 1 AND ready_at >= '{mark.ready_at.isoformat()}' ORDER BY ready_at LIMIT 1"
        )
        return await pages(connection, search)


async def test_a_large_batch_is_staged_whatever_the_planner_believes(store: Store) -> None:
    """Captures are nearly always counted when there are none: any join of them would compare each with each."""
    account = await account_with(store, 8000)
    async with store.engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(
            text(
                "INSERT INTO syncd.captures (account_id, operation, facet, payload) "
                f"SELECT {account.id}, 'x', 'x', '{{}}' FROM generate_series(1, 100)"
            )
        )
        await plain.execute(text("DELETE FROM syncd.captures"))
        await plain.execute(text("ANALYZE syncd.captures"))
    await run_sql(
        store,
        f"{CAPTURE.removesuffix('VALUES ')} SELECT {account.id}, n, {TAG.removesuffix(')')} "
        "FROM generate_series(1, 8000) n",
    )
    async with store.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '4s'"))
        assert await stage(connection, most=8000) == 8000
    assert await rows(
        store,
        "SELECT count(*) AS n FROM syncd.entries e JOIN syncd.lanes l ON l.id = e.lane_id "
        "AND l.relation_id = e.relation_id AND e.seq = 1",
    ) == [{"n": 8000}]
