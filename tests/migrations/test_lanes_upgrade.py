"""The outbox of a database that was there before ``syncd.ready``: nothing of it is lost, and it drains on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from syncd.domain.account import Account
from syncd.store import Store
from syncd.store.migrate import upgrade
from syncd.store.outbox import LaneSettlement
from tests.support.claims import claimed, delivered, expire, lane_of, settled
from tests.support.locks import until_blocked
from tests.support.outbox import new_account, retry_entry, rows, run_sql, stage_all
from tests.support.ready import unkept, unkeyed
from tests.support.throwaway import older_database

# Relation: 1 idle, 2 ready, 3 leased, 4 leased by one that is gone, 5 asleep behind a dead entry, 6 backing off; 7 has
# no lane yet, but a capture. The account's own lane is idle.
LANES = """
    INSERT INTO syncd.lanes (id, account_id, relation_id, tail_seq, acked_seq, ready_at, epoch, sending_upto,
                             claimed_by, block_reason)
    VALUES (1, :account_id, 1, 1, 1, NULL, 3, NULL, NULL, NULL),
           (2, :account_id, 2, 1, 0, now() - interval '1 min', 0, NULL, NULL, NULL),
           (3, :account_id, 3, 1, 0, now() + interval '1 hour', 5, 1, 'living', NULL),
           (4, :account_id, 4, 1, 0, now() - interval '1 s', 8, 1, 'gone', NULL),
           (5, :account_id, 5, 1, 1, NULL, 2, NULL, NULL, 'no such tag'),
           (6, :account_id, 6, 1, 0, now() + interval '1 hour', 1, NULL, NULL, NULL),
           (7, :account_id, NULL, 1, 1, NULL, 1, NULL, NULL, NULL)
"""
ENTRIES = """
    INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status, attempts,
                               next_attempt_at, xact, captured_at)
    SELECT l.id, 1, l.account_id, l.relation_id, 'add_tag', 'tag:1',
           '{"tag_id": 1, "tag_remote_id": "1", "tag_name": "tag 1"}',
           CASE l.id WHEN 1 THEN 'accepted' WHEN 7 THEN 'accepted' WHEN 5 THEN 'dead' ELSE 'pending' END,
           CASE WHEN l.id IN (5, 6) THEN 1 ELSE 0 END,
           CASE WHEN l.id = 6 THEN l.ready_at END, pg_current_xact_id(), now() - interval '5 min'
    FROM syncd.lanes l
"""
RELATIONS = """
    INSERT INTO crm.relations (id, account_id, remote_id, email)
    SELECT n, :account_id, n, n || '@x.example' FROM generate_series(1, 7) n
"""
CAPTURE = """
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
    VALUES (:account_id, :relation_id, 'add_tag', 'tag:1', '{"tag_id": 1, "tag_remote_id": "1", "tag_name": "tag 1"}')
"""


@pytest.fixture
async def before(server_url: str) -> AsyncIterator[tuple[Store, Account]]:
    """A database at 0003 with one lane of each kind."""
    async with older_database(server_url, "0003") as store:
        account = await new_account(store)
        async with store.begin_remote() as connection:
            await connection.execute(text(RELATIONS), {"account_id": account.id})
        for statement in (LANES, ENTRIES):
            await run_sql(store, statement, account_id=account.id)
        await run_sql(store, "SELECT setval('syncd.lanes_id_seq', 100)")
        await run_sql(store, CAPTURE, account_id=account.id, relation_id=7)
        yield store, account


async def test_lanes_of_every_kind_are_carried_over(before: tuple[Store, Account]) -> None:
    """A time that is not carried over is a lane that nobody ever looks at again."""
    store, _ = before
    assert (await upgrade(store)).has_moved
    assert await unkept(store) == []
    assert await unkeyed(store) == []
    found = await rows(store, "SELECT lane_id FROM syncd.ready ORDER BY lane_id")
    assert [row["lane_id"] for row in found] == [2, 3, 4, 6]


async def test_an_upgrade_and_a_drainer_never_wait_for_each_other(server_url: str) -> None:
    """A drainer locks a lane and writes it in the next statement: an upgrade that had come between would end one."""
    async with older_database(server_url, "0006") as store:
        account = await new_account(store)
        lane = "INSERT INTO syncd.lanes (id, account_id, relation_id) VALUES (2, :account_id, 2)"
        await run_sql(store, lane, account_id=account.id)
        async with store.begin() as draining:
            await draining.execute(text("SELECT 1 FROM syncd.lanes WHERE id = 2 FOR UPDATE"))
            upgrading = asyncio.create_task(upgrade(store))
            await until_blocked(store)
            await draining.execute(text("UPDATE syncd.lanes SET failures = 1 WHERE id = 2"))
        assert (await asyncio.wait_for(upgrading, 60)).has_moved
        assert await unkeyed(store) == []


async def test_what_was_ready_or_dropped_is_claimed_and_what_waits_goes_on_waiting(
    before: tuple[Store, Account],
) -> None:
    """The first drainer after the upgrade finds the outbox as the last one before it left it."""
    store, account = before
    await upgrade(store)
    assert {lane.relation_id for lane in (await claimed(store, account)).lanes} == {2, 4}
    await stage_all(store)
    assert {lane.relation_id for lane in (await claimed(store, account)).lanes} == {7}
    await run_sql(store, CAPTURE, account_id=account.id, relation_id=1)
    await stage_all(store)
    async with store.begin() as connection:
        (dead,) = await rows(store, "SELECT id FROM syncd.entries WHERE status = 'dead'")
        await retry_entry(connection, dead["id"])
    assert {lane.relation_id for lane in (await claimed(store, account)).lanes} == {1, 5}
    assert await unkept(store) == []


async def test_a_lane_that_was_being_sent_is_settled_by_whoever_sends_it(before: tuple[Store, Account]) -> None:
    """Its drainer was asked to stop for the upgrade, or not: its result is written, and no other sends it meanwhile."""
    store, account = before
    await upgrade(store)
    assert 3 not in {lane.relation_id for lane in (await claimed(store, account, "other")).lanes}
    lane = LaneSettlement(3, 3, 5, 1, 1, is_delivered=True, delivered=[(1, "accepted")])
    result = await settled(store, account, lane, worker="living")
    assert (result.fenced, result.deferred) == (frozenset(), frozenset())
    assert (await lane_of(store, 3))["ready_at"] is None
    assert await unkept(store) == []


async def test_what_was_retried_behind_its_cursor_before_the_upgrade_is_sent_after_it(
    before: tuple[Store, Account],
) -> None:
    """Nobody marked it then; unmarked it would never be read again."""
    store, account = before
    await run_sql(store, "UPDATE syncd.entries SET status = 'pending', attempts = 0 WHERE status = 'dead'")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() WHERE id = 5")
    await upgrade(store)
    (lane,) = [lane for lane in (await claimed(store, account)).lanes if lane.relation_id == 5]
    assert [step.carrier.seq for step in lane.plan.steps] == [1]


async def test_all_of_it_is_delivered_in_the_end(before: tuple[Store, Account]) -> None:
    """Leases and back-offs end; then nothing may be left that is neither delivered nor a person's to decide."""
    store, account = before
    await upgrade(store)
    await stage_all(store)
    await expire(store)
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = NULL")
    while lanes := (await claimed(store, account)).lanes:
        await settled(store, account, *(delivered(lane) for lane in lanes))
    left = await rows(store, "SELECT relation_id, status FROM syncd.entries WHERE status <> 'accepted'")
    assert [(row["relation_id"], row["status"]) for row in left] == [(5, "dead")]
    assert await rows(store, "SELECT lane_id FROM syncd.ready") == []
