"""When lanes are due: the table that the claim searches is equal to the lanes, and what it spares."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from syncd.domain.account import Account
from syncd.store import Store, outbox_claim, outbox_settle, outbox_stage
from syncd.store.outbox import Terms, claim, renew
from syncd.store.outbox_claim import take
from tests.support.claims import account_with, changed, claimed, claimed_one, delivered, failed, lane_of, settled
from tests.support.lanes import add, is_repeat_safe
from tests.support.outbox import retry_entry, rows, run_sql, skip_entry
from tests.support.pages import explained, touched
from tests.support.ready import unkept

# Five hundred versions of each lane.
AGED = """
    DO $$ BEGIN
        FOR n IN 1..500 LOOP
            UPDATE syncd.lanes SET failures = n;
        END LOOP;
    END $$
"""

# As many times of two lanes that were and are no more.
RESTLESS = """
    DO $$ BEGIN
        FOR n IN 1..1500 LOOP
            UPDATE syncd.lanes SET ready_at = clock_timestamp();
        END LOOP;
    END $$
"""


async def test_every_verb_keeps_the_two_equal(store: Store) -> None:
    """A lane that is due in one place alone is claimed never, or by two."""
    account = await account_with(store, 4)
    for relation in (1, 2, 3, 4):
        await changed(store, account, relation, add(1), add(2))
    assert await unkept(store) == []
    assert len(await rows(store, "SELECT lane_id FROM syncd.ready")) == 4
    one, two, three, four = (await claimed(store, account)).lanes
    assert await unkept(store) == []
    async with store.begin() as connection:
        await renew(connection, "w", [(one.lane_id, one.epoch)], 300.0)
    await changed(store, account, 1, add(3))
    assert await unkept(store) == []
    await settled(store, account, delivered(one), delivered(two), failed(three, delay_s=60.0), failed(four, "dead"))
    assert await unkept(store) == []
    assert {row["lane_id"] for row in await rows(store, "SELECT lane_id FROM syncd.ready")} == {
        one.lane_id,  # it grew meanwhile
        three.lane_id,
    }
    async with store.begin() as connection:
        await retry_entry(connection, four.plan.steps[0].carrier.id)
    async with store.begin() as connection:
        await skip_entry(connection, three.plan.steps[0].carrier.id)
    assert await unkept(store) == []
    assert len(await rows(store, "SELECT lane_id FROM syncd.ready")) == 3


async def test_lanes_written_by_hand_are_kept_too(store: Store) -> None:
    """An operator at a prompt and an older version of syncd know nothing of the second table."""
    account = await account_with(store, 3)
    for relation in (1, 2, 3):
        await changed(store, account, relation, add())
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL WHERE relation_id = 1")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() + n * interval '1 hour' FROM (SELECT 1 AS n) AS s")
    await run_sql(store, "UPDATE syncd.lanes SET failures = 1")
    assert await unkept(store) == []
    await run_sql(store, "DELETE FROM syncd.entries WHERE relation_id = 2")
    await run_sql(store, "DELETE FROM syncd.lanes WHERE relation_id = 2")
    assert await unkept(store) == []
    assert len(await rows(store, "SELECT lane_id FROM syncd.ready")) == 2


async def test_a_lane_that_its_settle_wakes_is_claimed_at_once(store: Store) -> None:
    """What was staged while the lane was being sent has nothing else to wait for."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    await changed(store, account, 1, add(2))
    await settled(store, account, delivered(lane))
    assert [entry.seq for entry in (await claimed_one(store, account)).entries] == [2]


async def test_a_lane_that_is_staged_is_claimed_at_once(store: Store) -> None:
    """Its idleness ended in the transaction that lengthened it."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, add(2))
    assert [entry.seq for entry in (await claimed_one(store, account)).entries] == [2]


async def test_a_time_that_its_lane_does_not_confirm_is_not_believed(store: Store) -> None:
    """It may have been read a moment before somebody else took the lane: to claim it then is to send it twice."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    lane = await claimed_one(store, account, "first")
    stale = "INSERT INTO syncd.ready VALUES (:account_id, now() - interval '1 s', :lane_id)"
    await run_sql(store, stale, account_id=account.id, lane_id=lane.lane_id)
    assert (await claimed(store, account, "second")).lanes == ()
    assert (await lane_of(store, 1))["claimed_by"] == "first"


async def test_a_lane_that_is_not_where_it_was_locked_is_not_taken(store: Store) -> None:
    """Whoever sends a lane that was not written down as taken, sends what another may send as well."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    terms = Terms("w", 60.0, 100, is_repeat_safe)
    async with store.begin() as connection:
        (lane,) = (await claim(connection, account.id, terms, most=1)).lanes
        place = (await connection.execute(text("SELECT CAST(ctid AS text) FROM syncd.lanes"))).scalar_one()
        await connection.execute(text("UPDATE syncd.lanes SET failures = 7"))
        assert await take(connection, [lane], {lane.lane_id: place}, terms) == ()
    assert (await lane_of(store, 1))["epoch"] == lane.epoch


async def test_a_lane_that_still_has_entries_cannot_be_deleted(store: Store) -> None:
    """Its changes would be undelivered for ever, and nothing would say so."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    with pytest.raises(IntegrityError, match="still has entries"):
        await run_sql(store, "DELETE FROM syncd.lanes")
    await run_sql(store, "DELETE FROM syncd.entries")
    await run_sql(store, "DELETE FROM syncd.lanes")
    assert await rows(store, "SELECT lane_id FROM syncd.ready") == []


async def test_a_held_transaction_does_not_lengthen_the_look_ups_of_a_lane(store: Store) -> None:
    """No version of a lane can be removed meanwhile: whoever walks along them is slower with each delivery."""
    account = await account_with(store, 2)
    async with store.begin() as holder:
        await holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await holder.execute(text("SELECT pg_current_xact_id()"))
        early = await _pages(store, account)
        await run_sql(store, AGED)
        late = await _pages(store, account)
        assert late <= 2 * early, f"from {early} pages to {late}"


async def test_a_table_that_was_counted_empty_is_not_read_from_end_to_end(store: Store) -> None:
    """Autovacuum counts it between two bursts; a minute later a held transaction keeps thousands of dead rows of it."""
    account = await account_with(store, 2)
    await _deliver(store, account, rounds=1)
    await run_sql(store, "ANALYZE syncd.ready")
    async with store.begin() as holder:
        await holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await holder.execute(text("SELECT pg_current_xact_id()"))
        await _read_of_ready(store, RESTLESS)
        assert await _read_of_ready(store, "UPDATE syncd.lanes SET ready_at = clock_timestamp()") <= 4
        await run_sql(store, "ANALYZE syncd.ready")
        assert await _read_of_ready(store, "UPDATE syncd.lanes SET ready_at = clock_timestamp()") <= 4


async def test_a_delivery_on_a_page_with_room_touches_no_index_of_the_lanes(store: Store) -> None:
    """Three updates for each delivery, of a table with two unique indexes: the room on the page is for them."""
    account = await account_with(store, 2)
    await _deliver(store, account, rounds=8)
    async with store.begin() as connection:
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    (seen,) = await rows(
        store,
        """SELECT n_tup_upd AS updates, n_tup_hot_upd AS on_the_page FROM pg_stat_user_tables
           WHERE schemaname = 'syncd' AND relname = 'lanes'""",
    )
    assert seen["updates"] >= 2 * 3 * 6, seen
    assert seen["on_the_page"] == seen["updates"]


async def _deliver(store: Store, account: Account, *, rounds: int) -> None:
    for _ in range(rounds):
        await run_sql(
            store,
            """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
               SELECT :account_id, n, 'add_tag', 'tag:1', '{"tag_id": 1, "tag_remote_id": "1", "tag_name": "tag 1"}'
               FROM generate_series(1, 2) n""",
            account_id=account.id,
        )
        async with store.begin() as connection:
            await outbox_stage.stage(connection)
            lanes = (await claim(connection, account.id, Terms("w", 60.0, 100, is_repeat_safe), most=9)).lanes
        assert len(lanes) == 2
        await settled(store, account, *(delivered(lane) for lane in lanes))


async def _pages(store: Store, account: Account) -> int:
    """Return how many pages the claim reads to find two due lanes, and the settle to lock them."""
    for relation in (1, 2):
        await changed(store, account, relation, add(1))
    (since,) = await rows(store, "SELECT min(ready_at) AS at FROM syncd.ready")
    binds = {"account_id": account.id, "ready_at": since["at"], "most": 9}
    found = await _explained(store, str(outbox_claim._DUE), binds)
    lanes = (await claimed(store, account)).lanes
    locking = {"lane_ids": [lane.lane_id for lane in lanes], "epochs": [lane.epoch for lane in lanes], "worker": "w"}
    found += await _explained(store, str(outbox_settle._LOCK), locking)
    await settled(store, account, *(delivered(lane) for lane in lanes))
    return found


async def _explained(store: Store, statement: str, binds: dict[str, Any]) -> int:
    async with store.begin() as connection:
        await connection.execute(text("SELECT set_config('enable_seqscan', 'off', true)"))
        plan = await explained(connection, statement, binds)
        assert plan["Actual Rows"] == 2, plan
        return touched(plan)


async def _read_of_ready(store: Store, statement: str) -> int:
    """Run a statement; return how many entries of the index it read, dead ones included."""
    reading = "SELECT idx_tup_read AS n FROM pg_stat_user_indexes WHERE indexrelname = 'ready_pkey'"
    before = (await rows(store, reading))[0]["n"]
    async with store.begin() as connection:
        await connection.execute(text(statement))
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    return int((await rows(store, reading))[0]["n"] - before)
