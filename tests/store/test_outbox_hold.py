"""Deciding about a mass change: whole, once, by whom, and finished even after a crash."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from syncd.domain.errors import UserError
from syncd.policy.states import HoldStatus
from syncd.store import Store
from syncd.store.incidents import list_incidents
from syncd.store.outbox import (
    Selection,
    Sightings,
    carry_out,
    decide,
    list_entries,
    list_holds,
    show_entry,
    stage,
    summarise,
    unfinished,
)
from tests.support.claims import changed, claimed, claimed_one, delivered, entry_of, expire, lane_of, settled
from tests.support.holds import burst, carried_out, decided, guarded, holds, relations_in, staged, staged_all
from tests.support.lanes import add, field, remove
from tests.support.outbox import remote_sql, retry_entry, rows, run_sql, skip_entry

APPROVED, REJECTED = HoldStatus.APPROVED, HoldStatus.REJECTED


async def _held(store: Store, relations: int = 30) -> int:
    await burst(store, 1, relations)
    await staged_all(store)
    return int((await holds(store))[0]["id"])


@pytest.mark.parametrize("most", [1, 7, 1000])
async def test_an_approved_burst_goes_out_whole(store: Store, most: int) -> None:
    """The person said yes to all of it."""
    account = await guarded(store)
    hold_id = await _held(store)
    assert await decided(store, hold_id, APPROVED, most=most) == 30
    assert await relations_in(store, "pending") == list(range(1, 31))
    assert len((await claimed(store, account)).lanes) == 30
    (hold,) = await holds(store)
    assert hold["status"] == "approved"
    assert hold["finished_at"] is not None


async def test_a_rejected_burst_never_goes_out(store: Store) -> None:
    """The person said no."""
    account = await guarded(store)
    hold_id = await _held(store)
    assert await decided(store, hold_id, REJECTED) == 30
    assert await relations_in(store, "skipped") == list(range(1, 31))
    assert (await claimed(store, account)).looked == 0
    lane = await lane_of(store, 1)
    assert (lane["acked_seq"], lane["tail_seq"], lane["ready_at"]) == (1, 1, None)
    assert (await entry_of(store, 1))["settled_at"] is not None


async def test_an_approved_burst_is_not_held_again(store: Store) -> None:
    """Whoever must approve the same thing twice switches the guard off."""
    account = await guarded(store)
    hold_id = await _held(store)
    await decided(store, hold_id, APPROVED)
    await burst(store, 40, 43)
    await staged_all(store)
    assert await relations_in(store, "held") == []
    assert len((await claimed(store, account)).lanes) == 34


@pytest.mark.parametrize(("verdict", "status"), [(APPROVED, "pending"), (REJECTED, "skipped")])
async def test_what_is_still_in_captures_follows_the_decision(store: Store, verdict: HoldStatus, status: str) -> None:
    """A burst of a hundred thousand may be decided before the half of it is staged."""
    await guarded(store)
    await burst(store, 1, 30)
    await staged(store, most=12)
    hold_id = (await holds(store))[0]["id"]
    assert await decided(store, hold_id, verdict) == 12
    await staged_all(store, most=12)
    assert await relations_in(store, status) == list(range(1, 31))
    assert len(await holds(store)) == 1
    last = await entry_of(store, 30)
    assert (last["hold_id"], last["settled_at"] is not None) == (hold_id, verdict is REJECTED)


async def test_a_loop_goes_on_after_its_approval_and_the_next_one_is_asked_about(store: Store) -> None:
    """To approve an import of an hour once a minute is no approval."""
    await guarded(store, 100)
    sightings = Sightings()
    for relation in range(1, 21):
        await burst(store, relation, relation, ago_s=600)
    await staged_all(store, sightings=sightings)
    await decided(store, (await holds(store))[0]["id"], APPROVED)
    for relation in range(21, 41):
        await burst(store, relation, relation, ago_s=560)
        await staged(store, sightings=sightings)
    assert await relations_in(store, "held") == []
    for relation in range(41, 61):
        await burst(store, relation, relation, ago_s=300)
        await staged(store, sightings=sightings)
    assert len(await relations_in(store, "held")) == 20
    assert len(await holds(store)) == 2


async def test_a_loop_that_was_rejected_is_held_again(store: Store) -> None:
    """No is no for what comes next, too; but it is asked about, not thrown away."""
    await guarded(store)
    for relation in range(1, 16):
        await burst(store, relation, relation)
    await staged_all(store)
    await decided(store, (await holds(store))[0]["id"], REJECTED)
    await burst(store, 20, 20)
    await staged_all(store)
    assert await relations_in(store, "held") == [20]
    assert [hold["status"] for hold in await holds(store)] == ["rejected", "open"]


async def test_a_large_transaction_is_held_while_an_approved_loop_goes_on(store: Store) -> None:
    """The approval was for the import, not for the slip beside it."""
    await guarded(store)
    for relation in range(1, 16):
        await burst(store, relation, relation)
    await staged_all(store)
    await decided(store, (await holds(store))[0]["id"], APPROVED)
    await burst(store, 16, 40)
    await staged_all(store)
    assert await relations_in(store, "held") == list(range(16, 41))


async def test_a_decision_cut_short_by_a_crash_is_finished_by_whoever_comes_next(store: Store) -> None:
    """Never half approved for good, and never asked again."""
    account = await guarded(store)
    hold_id = await _held(store)
    async with store.begin() as connection:
        await decide(connection, hold_id, APPROVED, "jan")
    async with aclosing(carry_out(store, hold_id, most=9)) as batches:
        assert await anext(batches) == 9
    assert len(await relations_in(store, "held")) == 21
    async with store.begin() as connection:
        assert await unfinished(connection, account.id) == (hold_id,)
        assert not await decide(connection, hold_id, APPROVED, "piet"), "decided already"
    assert await carried_out(store, hold_id) == 21
    async with store.begin() as connection:
        assert await unfinished(connection, account.id) == ()
    assert len(await rows(store, "SELECT 1 FROM syncd.decisions")) == 1


async def test_a_decision_waits_for_the_stager_that_is_adding_to_the_hold(store: Store) -> None:
    """Else what it adds would be held by a hold that nobody will be asked about again."""
    await guarded(store)
    await burst(store, 1, 30)
    await staged(store, most=12)
    hold_id = (await holds(store))[0]["id"]
    async with asyncio.TaskGroup() as group, store.begin() as stager:
        await stage(stager, most=12)
        deciding = group.create_task(decided(store, hold_id, APPROVED))
        await stager.execute(_UNTIL_SOMEBODY_WAITS)
    assert deciding.result() == 24
    await staged_all(store)
    assert await relations_in(store, "held") == []


# The server itself watches its locks: no sleeping in the test.
_UNTIL_SOMEBODY_WAITS = text(
    """
    DO $$ BEGIN
        FOR n IN 1..1000 LOOP
            EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted);
            PERFORM pg_sleep(0.01);
        END LOOP;
    END $$
    """
)


async def test_a_hold_that_grew_unseen_is_not_decided(store: Store) -> None:
    """Nobody said yes to the second transaction."""
    await guarded(store)
    hold_id = await _held(store)
    async with store.begin() as connection:
        (shown,) = await list_holds(connection)
    await burst(store, 1, 30, tag=2)
    await staged_all(store)
    with pytest.raises(UserError, match="grown"):
        async with store.begin() as connection:
            await decide(connection, hold_id, APPROVED, "jan", transactions=shown.transactions)
    assert len(await relations_in(store, "held")) == 60


async def test_what_was_decided_stays_decided(store: Store) -> None:
    """A rejected campaign does not go out because somebody clicks again."""
    await guarded(store)
    hold_id = await _held(store)
    await decided(store, hold_id, REJECTED)
    async with store.begin() as connection:
        with pytest.raises(UserError, match="rejected already"):
            await decide(connection, hold_id, APPROVED, "jan")
        with pytest.raises(UserError, match="no hold 99"):
            await decide(connection, 99, APPROVED, "jan")


async def test_the_decision_is_recorded_and_the_incident_closed(store: Store) -> None:
    """Who, what, why, when: asked a year later."""
    await guarded(store)
    hold_id = await _held(store)
    await decided(store, hold_id, APPROVED)
    async with store.begin() as connection:
        story = await show_entry(connection, (await entry_of(store, 1))["id"])
        assert await list_incidents(connection) == ()
    assert story is not None
    assert [(d.verb, d.actor, d.reason) for d in story.decisions] == [("approve", "jan", "as planned")]


async def test_approving_does_not_put_a_later_value_before_an_earlier_one(store: Store) -> None:
    """What waited behind the held value goes after it."""
    account = await guarded(store)
    hold_id = await _held(store)
    await changed(store, account, 1, remove(1))
    await decided(store, hold_id, APPROVED)
    lane = next(lane for lane in (await claimed(store, account)).lanes if lane.relation_id == 1)
    (step,) = lane.plan.steps
    assert (step.carrier.operation, [e.operation for e in step.superseded]) == ("remove_tag", ["add_tag"])


async def test_approving_a_lane_that_a_worker_holds_loses_no_wake_up(store: Store) -> None:
    """The worker planned without it; its end must not put the lane to sleep."""
    account = await guarded(store)
    hold_id = await _held(store)
    await changed(store, account, 1, add(5))
    lane = await claimed_one(store, account)
    await decided(store, hold_id, APPROVED)
    assert (await settled(store, account, delivered(lane))).fenced == {lane.lane_id}
    await expire(store)
    again = next(x for x in (await claimed(store, account)).lanes if x.relation_id == 1)
    assert sorted(step.carrier.facet for step in again.plan.steps) == ["tag:1", "tag:5"]


async def test_rejecting_beside_a_worker_leaves_it_alone(store: Store) -> None:
    """Nothing that it sends is touched by the decision."""
    account = await guarded(store)
    hold_id = await _held(store)
    await changed(store, account, 1, add(5))
    lane = await claimed_one(store, account)
    await decided(store, hold_id, REJECTED)
    assert not (await settled(store, account, delivered(lane))).fenced


async def test_one_held_change_may_be_sent_or_given_up_alone(store: Store) -> None:
    """The one that cannot wait for the meeting about the others; it is not held again."""
    account = await guarded(store)
    hold_id = await _held(store)
    first, second = (await entry_of(store, 1))["id"], (await entry_of(store, 2))["id"]
    async with store.begin() as connection:
        await retry_entry(connection, first, actor="jan")
        await skip_entry(connection, second, actor="jan")
    await burst(store, 40, 42)
    await staged_all(store)
    assert 1 in {lane.relation_id for lane in (await claimed(store, account)).lanes}
    assert await decided(store, hold_id, APPROVED) == 28
    assert (await entry_of(store, 2))["status"] == "skipped"


async def test_the_summary_says_what_would_happen(store: Store) -> None:
    """How many, which tags, who for example: what a person needs to say yes or no."""
    account = await guarded(store)
    await remote_sql(store, "INSERT INTO crm.fields (id, account_id, code) VALUES (1, :a, 'f1')", a=account.id)
    async with store.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT n, 1 + n % 2 FROM generate_series(1, 30) n"
        )
        await connection.exec_driver_sql("UPDATE crm.relations SET first_name = 'x', gender = 'F' WHERE id <= 4")
    await staged(store, most=12)
    async with store.begin() as connection:
        (hold,) = await list_holds(connection, is_open=True)
        summary = await summarise(connection, hold, examples=2)
    assert hold.held == 12
    assert (summary.members.changes, summary.members.relations) == (34, 30)
    assert summary.members.operations == {"add_tag": 30, "update_profile": 4}
    assert [(t.operation, t.about, t.changes) for t in summary.things] == [
        ("add_tag", "tag 1", 15),
        ("add_tag", "tag 2", 15),
        ("update_profile", "first_name, gender", 4),
    ]
    assert [(e.email, e.about) for e in summary.examples] == [("1@x.example", "tag 2"), ("2@x.example", "tag 1")]
    assert summary.costs == {}


async def test_the_summary_learns_from_what_deliveries_took(store: Store) -> None:
    """An estimate is worth something when it is measured."""
    account = await guarded(store)
    await changed(store, account, 1, add(5), field("x"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await _held(store)
    async with store.begin() as connection:
        (hold,) = await list_holds(connection)
        costs = (await summarise(connection, hold)).costs
    assert {name: (cost.calls, round(cost.elapsed_s, 3)) for name, cost in costs.items()} == {
        "add_tag": (1.0, 0.01),
        "set_field": (1.0, 0.01),
    }


async def test_entries_are_listed_by_hold(store: Store) -> None:
    """To look closer before deciding."""
    account = await guarded(store)
    await changed(store, account, 50, add(2))
    hold_id = await _held(store)
    async with store.begin() as connection:
        listed = await list_entries(connection, Selection(hold_id=hold_id, facet="tag:1"))
    assert len(listed) == 30
    assert {entry.hold_id for entry in listed} == {hold_id}


async def test_a_transaction_is_judged_anew_after_a_day(store: Store) -> None:
    """What it left in captures is staged within seconds; holds of last year must not be read at every stage."""
    await guarded(store)
    hold_id = await _held(store)
    await decided(store, hold_id, APPROVED)
    day_ago = datetime.now(UTC) - timedelta(days=2)
    await run_sql(store, "UPDATE syncd.holds SET decided_at = :then WHERE id = :id", then=day_ago, id=hold_id)
    await run_sql(
        store,
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, xact)
           SELECT account_id, 50, 'add_tag', 'tag:1', '{}', xacts[1] FROM syncd.holds""",
    )
    await staged_all(store)
    assert await relations_in(store, "held") == [50]
