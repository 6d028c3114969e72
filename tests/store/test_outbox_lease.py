"""Leases: prolonged by the database's time, for whom the lane is, and for nobody else."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from syncd.store import Store
from syncd.store.outbox import LaneSettlement, Renewal, already_settled, renew
from tests.support.claims import account_with, changed, claimed, claimed_one, delivered, expire, failed, plain, settled
from tests.support.lanes import add
from tests.support.outbox import rows, run_sql


async def _renewed(store: Store, *lanes: tuple[int, int], worker: str = "w", lease_s: float = 600.0) -> Renewal:
    async with store.begin() as connection:
        return await renew(connection, worker, lanes, lease_s)


async def test_a_renewal_counts_from_the_databases_now(store: Store) -> None:
    """Replicas disagree about the time; there is one database."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    lane = await claimed_one(store, account)
    assert (await _renewed(store, (lane.lane_id, lane.epoch))).renewed == {lane.lane_id}
    left = await rows(store, "SELECT extract(epoch FROM ready_at - now()) AS s, epoch, claimed_by FROM syncd.lanes")
    assert 590 < left[0]["s"] <= 600
    assert (left[0]["epoch"], left[0]["claimed_by"]) == (lane.epoch, "w")


async def test_lanes_that_nobody_has_counted_are_looked_up_one_by_one(store: Store) -> None:
    """A database that was restored a minute ago: to read all lanes for each lease would take it half a second."""
    account = await account_with(store)
    await run_sql(
        store,
        "INSERT INTO syncd.lanes (account_id, relation_id) SELECT :a, n FROM generate_series(1000, 30000) AS n",
        a=account.id,
    )
    given = [(n, 1) for n in range(1, 101)]
    async with store.begin() as connection:
        await renew(connection, "w", given, 600.0)
        done = [LaneSettlement(lane_id, None, epoch, 1, 1) for lane_id, epoch in given]
        await already_settled(connection, done)
        read = text("SELECT seq_scan, seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'lanes'")
        assert tuple((await connection.execute(read)).one()) == (0, 0)


async def test_a_lane_that_moved_on_is_not_renewed(store: Store) -> None:
    """By epoch and by name: taken over, given back, or raised by an operator."""
    account = await account_with(store, 3)
    for relation in (1, 2, 3):
        await changed(store, account, relation, add())
    lanes = [lane.lane_id for lane in (await claimed(store, account)).lanes]
    await run_sql(store, "UPDATE syncd.lanes SET epoch = epoch + 1 WHERE id = :id", id=lanes[0])
    await run_sql(store, "UPDATE syncd.lanes SET claimed_by = NULL WHERE id = :id", id=lanes[1])
    await run_sql(store, "UPDATE syncd.lanes SET claimed_by = 'other' WHERE id = :id", id=lanes[2])
    before = await rows(store, "SELECT id, ready_at FROM syncd.lanes ORDER BY id")
    assert await _renewed(store, *((id_, 1) for id_ in lanes)) == Renewal(frozenset(), frozenset(lanes), frozenset())
    assert await rows(store, "SELECT id, ready_at FROM syncd.lanes ORDER BY id") == before


async def test_a_lane_that_somebody_has_locked_is_neither_renewed_nor_lost(store: Store) -> None:
    """An operator or a stager at work must not hold up the renewal of all the others."""
    account = await account_with(store, 2)
    for relation in (1, 2):
        await changed(store, account, relation, add())
    lanes = {lane.relation_id: lane.lane_id for lane in (await claimed(store, account)).lanes}
    async with asyncio.timeout(10), store.begin() as operator:
        await operator.execute(text("SELECT 1 FROM syncd.lanes WHERE relation_id = 1 FOR UPDATE"))
        renewal = await _renewed(store, (lanes[1], 1), (lanes[2], 1))
    assert renewal == Renewal(frozenset({lanes[2]}), frozenset(), frozenset())


async def test_a_claim_that_was_rolled_back_is_told_from_one_that_was_taken_over(store: Store) -> None:
    """The one may still be committing; the other never will."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    lane_id = (await rows(store, "SELECT id FROM syncd.lanes"))[0]["id"]
    assert (await _renewed(store, (lane_id, 1))).unclaimed == {lane_id}
    await claimed_one(store, account, "other")
    assert await _renewed(store, (lane_id, 1)) == Renewal(frozenset(), frozenset({lane_id}), frozenset())


async def _done(store: Store, settlement: LaneSettlement) -> bool:
    async with store.begin() as connection:
        return bool(await already_settled(connection, [settlement]))


async def test_a_settle_that_did_commit_is_recognised(store: Store) -> None:
    """Whether the lane rests since or was claimed again by anybody."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    first = delivered(await claimed_one(store, account))
    assert not await _done(store, first)
    await settled(store, account, first)
    assert await _done(store, first)
    await changed(store, account, 1, add(2))
    await claimed_one(store, account, "other")
    assert await _done(store, first)


async def test_a_settle_that_did_not_commit_is_not_mistaken_for_one(store: Store) -> None:
    """Taken over and settled by somebody else: what we knew was not written."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    lost = delivered(await claimed_one(store, account))
    await expire(store)
    taken = await claimed_one(store, account, "other")
    assert not await _done(store, lost)
    await settled(store, account, delivered(taken), worker="other")
    assert not await _done(store, lost)


async def test_a_lane_taken_over_and_left_to_sleep_does_not_look_settled(store: Store) -> None:
    """Whoever takes over a lane with nothing to send now puts it to sleep: its last holder settled nothing."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    await settled(store, account, failed(await claimed_one(store, account), delay_s=3600))
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = NULL")
    lost = plain(await claimed_one(store, account), is_more=True)
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour'")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    assert (await claimed(store, account, "other")).lanes == ()
    assert not await _done(store, lost)
