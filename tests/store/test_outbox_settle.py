"""Settle: results are written once, by whoever still holds the lane, and never move anything back."""

import asyncio

from syncd.store import Store
from syncd.store.outbox import EntrySettlement, stage
from tests.support.claims import (
    account_with,
    changed,
    claimed,
    claimed_one,
    delivered,
    entry_of,
    expire,
    failed,
    lane_of,
    plain,
    settled,
)
from tests.support.lanes import add, email, field, profile, remove, subscribe
from tests.support.locks import until_blocked
from tests.support.outbox import remote_sql, rows, run_sql


async def test_a_delivered_lane_sleeps_with_its_cursor_at_the_tail(store: Store) -> None:
    """An idle lane must cost no claim."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await settled(store, account, delivered(await claimed_one(store, account)))
    row = await lane_of(store, 1)
    assert (row["acked_seq"], row["ready_at"], row["sending_upto"], row["claimed_by"]) == (2, None, None, None)
    assert (await entry_of(store, 1))["status"] == "accepted"
    assert [a["status_code"] for a in await rows(store, "SELECT * FROM syncd.attempts")] == [200, 200]


async def test_an_old_epoch_settles_nothing(store: Store) -> None:
    """A worker that was stopped past its lease comes back with an answer about a lane that moved on."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    late = await claimed_one(store, account)
    await expire(store)
    current = await claimed_one(store, account)
    assert (await settled(store, account, delivered(late, "verified"))).fenced == {late.lane_id}
    assert (await entry_of(store, 1))["status"] == "pending"
    assert await rows(store, "SELECT 1 FROM syncd.attempts UNION ALL SELECT 1 FROM syncd.changes") == []
    assert not (await settled(store, account, delivered(current))).fenced


async def test_a_fenced_lane_does_not_take_its_batch_with_it(store: Store) -> None:
    """The others in the batch are nobody else's."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add())
    late = await claimed_one(store, account)
    await expire(store)
    await claimed_one(store, account, "other")
    await changed(store, account, 2, add())
    good = await claimed_one(store, account)
    assert (await settled(store, account, delivered(late), delivered(good))).fenced == {late.lane_id}
    assert (await entry_of(store, 2))["status"] == "accepted"
    assert (await entry_of(store, 1))["status"] == "pending"


async def test_an_old_epoch_is_not_carried_past_the_guard_by_a_newer_one(store: Store) -> None:
    """One drainer may claim a lane again while its older result still waits to be written; both come in one batch."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    late = await claimed_one(store, account)
    await expire(store)
    current = await claimed_one(store, account)
    await settled(store, account, failed(late, "dead"), delivered(current))
    entry = await entry_of(store, 1)
    assert (entry["status"], entry["attempts"]) == ("accepted", 1)
    assert [a["epoch"] for a in await rows(store, "SELECT epoch FROM syncd.attempts")] == [current.epoch]


async def test_settling_twice_writes_once(store: Store) -> None:
    """A commit whose answer was lost is tried again; it must not count attempts twice or wake the lane."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    lane = await claimed_one(store, account)
    await settled(store, account, delivered(lane))
    assert (await settled(store, account, delivered(lane))).fenced == {lane.lane_id}
    assert (await entry_of(store, 1))["attempts"] == 1


async def test_a_lane_that_grew_while_it_was_sent_is_looked_at_again(store: Store) -> None:
    """Deciding by whether entries exist would miss one that is being staged right now."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    await changed(store, account, 1, add(2))
    await settled(store, account, delivered(lane))
    row = await lane_of(store, 1)
    assert row["is_due"]
    assert (row["acked_seq"], row["tail_seq"]) == (1, 2)


async def test_a_lane_that_grows_while_its_settle_waits_is_looked_at_again(store: Store) -> None:
    """The settle stands behind the stager's lock with a snapshot from before: only the lane row tells of the entry."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    await run_sql(
        store,
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
           VALUES (:a, 1, 'add_tag', 'tag:2', '{"tag_id": 2, "tag_remote_id": "2", "tag_name": "x"}')""",
        a=account.id,
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, store.begin() as stager:
        assert await stage(stager) == 1
        settling = group.create_task(settled(store, account, delivered(lane)))
        await until_blocked(store)
    assert not settling.result().fenced
    row = await lane_of(store, 1)
    assert (row["is_due"], row["acked_seq"], row["tail_seq"]) == (True, 1, 2)


async def test_the_cursor_never_goes_back(store: Store) -> None:
    """An operator may retry an old entry; what was passed stays passed."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, add(3))
    lane = await claimed_one(store, account)
    await settled(store, account, plain(lane, acked_seq=0, is_more=True))
    assert (await lane_of(store, 1))["acked_seq"] == 2


async def test_a_failed_entry_backs_off_by_the_databases_clock(store: Store) -> None:
    """Replicas disagree about the time; there is one database."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, failed(await claimed_one(store, account), delay_s=60, error="503"))
    entry, lane = await entry_of(store, 1), await lane_of(store, 1)
    assert (entry["status"], entry["attempts"], entry["error"]) == ("pending", 1, "503")
    assert lane["ready_at"] == entry["next_attempt_at"]
    assert lane["failures"] == 1


async def test_a_released_lane_is_due_at_once_and_no_attempt_is_used(store: Store) -> None:
    """Graceful stop, throttle, pause: what was claimed and not begun goes back as it was."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    await settled(store, account, plain(await claimed_one(store, account), is_more=True))
    entry = await entry_of(store, 1)
    assert (entry["attempts"], entry["is_uncertain"], (await lane_of(store, 1))["is_due"]) == (0, False, True)
    assert not (await claimed_one(store, account)).plan.steps[0].carrier.is_uncertain


async def test_superseded_entries_settle_with_their_carrier(store: Store) -> None:
    """A folded call settles all its entries, and each says which one carried it."""
    account = await account_with(store)
    await changed(store, account, 1, add(), remove())
    await settled(store, account, delivered(await claimed_one(store, account)))
    first, last = await entry_of(store, 1, 1), await entry_of(store, 1, 2)
    assert (first["status"], first["superseded_by"], first["attempts"]) == ("superseded", last["id"], 0)


async def test_every_delivered_call_leaves_one_history_row(store: Store) -> None:
    """The history tells what the CRM held before and after, of the call as it was sent: folded."""
    account = await account_with(store)
    await remote_sql(store, "INSERT INTO crm.fields (id, account_id, code) VALUES (1, :a, 'f1')", a=account.id)
    await changed(store, account, 1, field("b", "a"), field("c", "b"), profile({"gender": "M"}, gender="F"), add(2))
    await settled(store, account, delivered(await claimed_one(store, account)))
    found = await rows(
        store, "SELECT table_name, row_id, link_id, kind, before, after, origin FROM syncd.changes ORDER BY id"
    )
    assert [tuple(row.values()) for row in found] == [
        ("relation_fields", 1, 1, "update", {"value": "a"}, {"value": "c"}, "local"),
        ("relations", 1, None, "update", {"gender": "M"}, {"gender": "F"}, "local"),
        ("relation_tags", 1, 2, "insert", None, None, "local"),
    ]


async def test_nothing_that_settle_writes_is_captured(store: Store) -> None:
    """Our own writes would come back as local changes, for ever."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), email("new@x.example", "1@x.example"))
    for _ in range(2):
        await settled(store, account, delivered(await claimed_one(store, account)))
    assert await rows(store, "SELECT 1 FROM syncd.captures") == []


async def test_uncertainty_stays_until_somebody_looks(store: Store) -> None:
    """A certain failure after a lost answer does not make the lost answer a no."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    lane = await claimed_one(store, account)
    doubt = plain(lane, is_failed=True, after_s=0.0)
    doubt.entries.append(EntrySettlement(1, "pending", True, 0.0, True, "lost"))
    await settled(store, account, doubt)
    await settled(store, account, failed(await claimed_one(store, account), delay_s=0))
    assert (await entry_of(store, 1))["is_uncertain"]


async def test_a_hundred_lanes_settle_in_one_batch(store: Store) -> None:
    """Batches are what makes it fast."""
    account = await account_with(store, 100)
    for relation in range(1, 101):
        await remote_sql(
            store,
            """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
               VALUES (:a, :r, 'add_tag', 'tag:1', '{"tag_id": 1, "tag_remote_id": "1", "tag_name": "tag 1"}')""",
            a=account.id,
            r=relation,
        )
    await changed(store, account, 1, add(2))
    lanes = (await claimed(store, account)).lanes
    assert len(lanes) == 100
    assert not (await settled(store, account, *map(delivered, lanes))).fenced
    assert await rows(store, "SELECT DISTINCT status FROM syncd.entries") == [{"status": "accepted"}]
