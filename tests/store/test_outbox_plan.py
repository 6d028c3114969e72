"""Reading the outbox for a plan: one instant, nothing written, captures numbered as staging will number them."""

from __future__ import annotations

import pytest

from syncd.domain.errors import InfrastructureError
from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.store import Store, account_pace, account_states
from syncd.store.incidents import open_incidents
from syncd.store.outbox_plan import WaitingLane, read_account_now, read_names, read_notes, snapshot, waiting_lanes
from tests.support.claims import account_with, begun, changed, claimed_one, delivered, settled
from tests.support.lanes import add, field, is_repeat_safe, subscribe
from tests.support.outbox import new_account, remote_sql, rows, run_sql, stage_all


async def _lanes(store: Store, account_id: int, **given: str) -> list[WaitingLane]:
    async with snapshot(store) as connection:
        now = (await read_account_now(connection, AccountId(account_id))).now
        return [lane async for lane in waiting_lanes(connection, account_id, is_repeat_safe, now, **given)]  # type: ignore[arg-type]


async def test_a_snapshot_sees_one_instant_and_cannot_write(store: Store) -> None:
    """Totals and lanes of one plan must speak of the same outbox; and a plan can move nothing, even by a bug."""
    account = await account_with(store)
    async with snapshot(store) as connection:
        now = (await read_account_now(connection, account.id)).now
        before = [lane async for lane in waiting_lanes(connection, account.id, is_repeat_safe, now)]
        await run_sql(store, "UPDATE crm.relations SET last_name = 'X' WHERE id = 1")
        assert [lane async for lane in waiting_lanes(connection, account.id, is_repeat_safe, now)] == before == []
    with pytest.raises(InfrastructureError, match="25006"):
        async with snapshot(store) as connection:
            await connection.exec_driver_sql("UPDATE syncd.lanes SET ready_at = now()")


async def test_captures_have_the_numbers_that_staging_gives_them(store: Store) -> None:
    """The saved plan names entries by their places; if staging counted otherwise, every plan would have moved."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add(1), field("a"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, add(2))
    await run_sql(store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (2, 3)")
    await run_sql(store, "UPDATE crm.relations SET email = 'z@x.example', last_name = 'Z' WHERE id = 1")
    await run_sql(store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 4)")
    planned = {
        lane.relation_id: [(entry.seq, entry.operation, entry.change, entry.captured_at) for entry in lane.entries]
        for lane in await _lanes(store, account.id)
    }
    tails = {lane.relation_id: lane.tail_seq for lane in await _lanes(store, account.id)}
    await stage_all(store)
    staged = {
        lane.relation_id: [(entry.seq, entry.operation, entry.change, entry.captured_at) for entry in lane.entries]
        for lane in await _lanes(store, account.id)
    }
    assert planned == staged
    assert [seq for seq, *_ in planned[1]] == [3, 4, 5, 6]
    assert tails == {row["relation_id"]: row["tail_seq"] for row in await rows(store, "SELECT * FROM syncd.lanes")}


async def test_lanes_come_in_the_order_of_the_claims(store: Store) -> None:
    """Due ones by their time, then those in a back-off, then those that wait for a person."""
    account = await account_with(store, 4)
    for who in (1, 2, 3, 4):
        await changed(store, account, who, add())
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() + interval '1 min' WHERE relation_id = 1")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL WHERE relation_id = 2")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() - interval '1 min' WHERE relation_id = 4")
    assert [lane.relation_id for lane in await _lanes(store, account.id)] == [4, 3, 1, 2]
    assert [lane.relation_id for lane in await _lanes(store, account.id, email="3@X.example")] == [3]


async def test_the_accounts_own_lane_is_one_of_them(store: Store) -> None:
    """A new free field is no relation's."""
    account = await account_with(store)
    await run_sql(store, "SELECT crm.create_field('kleur', 'Kleur', 'string')")
    (captured,) = await _lanes(store, account.id)
    assert (captured.relation_id, captured.lane_id, captured.entries[0].seq) == (None, None, 1)
    assert captured.entries[0].id < 0
    await stage_all(store)
    (staged,) = await _lanes(store, account.id)
    assert staged.lane_id is not None
    assert staged.entries[0].id > 0


async def test_another_accounts_changes_are_not_seen(store: Store) -> None:
    """One plan, one administration."""
    account = await account_with(store)
    other = await new_account(store, "other")
    await remote_sql(
        store, "INSERT INTO crm.relations (id, account_id, email) VALUES (50, :a, 'o@x.example')", a=other.id
    )
    await run_sql(store, "UPDATE crm.relations SET last_name = 'X' WHERE id = 50")
    assert await _lanes(store, account.id) == []
    assert [lane.relation_id for lane in await _lanes(store, other.id)] == [50]


async def test_a_lane_tells_who_sends_it_and_what_a_dead_sender_left_in_doubt(store: Store) -> None:
    """While the lease runs it is being sent; after it, its barrier may have been applied."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    lane = await claimed_one(store, account, worker="w1")
    (sending,) = await _lanes(store, account.id)
    assert (sending.sender, sending.entries[0].is_uncertain) == ("w1", False)
    assert await begun(store, lane, "w1")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    (dropped,) = await _lanes(store, account.id)
    assert (dropped.sender, dropped.entries[0].is_uncertain) == (None, True)
    assert (await rows(store, "SELECT is_uncertain FROM syncd.entries")) == [{"is_uncertain": False}]


async def test_what_forbids_sending_is_read_with_it(store: Store) -> None:
    """Pause, throttle, breaker; an account without a row has none of them."""
    account = await account_with(store)
    async with store.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM syncd.account_states")
        now = await read_account_now(connection, account.id)
        assert (now.paused, now.throttled_s, now.breaker_state) == (None, 0, "closed")
        await account_states.pause(connection, account.id, "rest", by_operator=True)
        await account_states.throttle(connection, account.id, 60)
        await account_pace.open_breaker(
            connection, account.id, account_pace.Breaking(1, reason="503"), pause_s=5.0, rounds=0
        )
        suspended = Incident(IncidentKind.BREAKER, "operation:add_tag", "add_tag is not sent: 405")
        await open_incidents(connection, account.id, [suspended])
        now = await read_account_now(connection, account.id)
    assert (now.paused, now.is_paused_by_operator, now.breaker_state) == ("rest", True, "open")
    assert now.suspended == ("add_tag is not sent: 405",)
    assert 50 < now.throttled_s <= 60


async def test_notes_and_names_are_those_of_what_is_shown(store: Store) -> None:
    """Actor, error and hold of entries and of captures; names of fields and lists; the mirror's subscriptions."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await run_sql(store, "UPDATE syncd.entries SET error = 'no', hold_id = 4, actor = 'shop'")
    await run_sql(store, "UPDATE crm.relations SET last_name = 'X' WHERE id = 1")
    await remote_sql(store, "INSERT INTO crm.fields (id, account_id, code) VALUES (1, :a, 'c1')", a=account.id)
    await remote_sql(store, "INSERT INTO crm.lists (id, account_id, name) VALUES (2, :a, 'Nieuws')", a=account.id)
    await remote_sql(
        store, "INSERT INTO crm.list_subscriptions (relation_id, list_id, status) VALUES (1, 2, 'subscribed')"
    )
    (lane,) = await _lanes(store, account.id)
    async with store.begin() as connection:
        notes = await read_notes(connection, lane.entries)
        names = await read_names(connection, account.id, [1], fields=[1], lists=[2], subscriptions=["s"])
    assert [(notes[e.id].error, notes[e.id].hold_id) for e in lane.entries] == [("no", 4), (None, None)]
    assert notes[lane.entries[0].id].actor == "shop"
    assert (names.fields, names.lists, names.list_statuses) == ({1: "c1"}, {2: "Nieuws"}, {(1, 2): "subscribed"})
