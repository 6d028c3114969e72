"""The guard at staging: a burst is held before anybody can see a part of it, and nothing else is."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import text

from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.store import Connection, Store
from syncd.store.incidents import list_incidents
from syncd.store.outbox import Sightings, Stager, set_first_guard, set_guard, stage
from syncd.store.outbox_guard import read_guard
from tests.support.claims import account_with, changed, claimed, claimed_one, delivered, lane_of, settled
from tests.support.holds import TIGHT, burst, decided, guarded, holds, relations_in, staged, staged_all
from tests.support.lanes import add, new_field
from tests.support.outbox import new_account, remote_sql, rows, run_sql

BATCHES = pytest.mark.parametrize("most", [1, 7, 5000])


@BATCHES
async def test_a_transaction_above_the_limit_is_held_whole(store: Store, most: int) -> None:
    """The first batch of a large UPDATE must not be sent before the whole of it is seen."""
    account = await guarded(store)
    await burst(store, 1, 30)
    while await staged(store, most=most):
        assert (await claimed(store, account)).lanes == ()
    assert await relations_in(store, "held") == list(range(1, 31))
    assert [hold["status"] for hold in await holds(store)] == ["open"]


@BATCHES
async def test_at_the_limit_nothing_is_held(store: Store, most: int) -> None:
    """The limit is what may change."""
    account = await guarded(store)
    await burst(store, 1, 10)
    await staged_all(store, most=most)
    assert len((await claimed(store, account)).lanes) == 10
    assert await holds(store) == []


async def test_what_others_commit_beside_a_large_transaction_goes_out(store: Store) -> None:
    """A nightly update of everything must not delay the shop."""
    account = await guarded(store)
    await burst(store, 41, 45, tag=2)
    await burst(store, 1, 30)
    await burst(store, 46, 49, tag=2)
    await staged_all(store, most=8)
    assert await relations_in(store, "pending") == list(range(41, 50))
    assert len((await claimed(store, account)).lanes) == 9


async def test_a_loop_of_small_transactions_is_held_when_its_window_is_full(store: Store) -> None:
    """An import that commits row by row is the same slip; what went out before it was one stays out."""
    account = await guarded(store)
    sightings = Sightings()
    for relation in range(1, 9):
        await burst(store, relation, relation)
        await staged(store, sightings=sightings)
    sent = (await claimed(store, account)).lanes
    await settled(store, account, *map(delivered, sent))
    for relation in range(9, 21):
        await burst(store, relation, relation)
        await staged(store, sightings=sightings)
    assert await relations_in(store, "accepted") == list(range(1, 9))
    assert await relations_in(store, "held") == list(range(9, 21))
    assert len(await holds(store)) == 1
    assert len(sightings.news) == 1


@pytest.mark.parametrize("has_begun", [True, False])
async def test_what_a_worker_has_in_hand_is_left_to_it(store: Store, has_begun: bool) -> None:
    """To stop a call that may be under way, or may begin at any moment, would leave doubt behind."""
    account = await guarded(store)
    for relation in range(1, 9):
        await burst(store, relation, relation)
    await staged_all(store)
    in_hand = (await claimed(store, account, most=3)).lanes
    if not has_begun:  # as a claim leaves what is not repeat-safe
        await run_sql(store, "UPDATE syncd.lanes SET sending_upto = -sending_upto")
    await burst(store, 9, 14)
    await staged_all(store)
    taken = sorted(lane.relation_id or 0 for lane in in_hand)
    assert await relations_in(store, "pending") == taken
    assert not (await settled(store, account, *map(delivered, in_hand))).fenced
    assert len(await relations_in(store, "held")) == 11


async def test_a_lane_that_is_being_claimed_is_not_waited_for(store: Store) -> None:
    """Whoever claims it has read its entries already; the stager is one for all accounts."""
    await guarded(store)
    await burst(store, 1, 8)
    await staged_all(store)
    async with store.begin() as claimer:
        await claimer.execute(text("SELECT 1 FROM syncd.lanes WHERE relation_id <= 3 FOR UPDATE"))
        await burst(store, 9, 14)
        async with asyncio.timeout(5):
            await staged_all(store)
    assert await relations_in(store, "pending") == [1, 2, 3]


async def test_after_the_burst_edits_go_out_while_the_hold_waits(store: Store) -> None:
    """A hold of last night must not stop this morning's work."""
    account = await guarded(store)
    for relation in range(1, 16):
        await burst(store, relation, relation, ago_s=300)
    await staged_all(store)
    assert await relations_in(store, "held") == list(range(1, 16))
    await burst(store, 40, 45)
    await staged_all(store)
    assert await relations_in(store, "pending") == list(range(40, 46))
    assert len((await claimed(store, account)).lanes) == 6
    assert len(await holds(store)) == 1


async def test_a_days_ordinary_edits_that_waited_for_a_daemon_are_no_burst(store: Store) -> None:
    """Time is that of the edit: after an outage the backlog drains without asking anybody."""
    account = await guarded(store)
    for relation in range(1, 31):
        await burst(store, relation, relation, ago_s=3600 * relation)
    await staged_all(store, most=7)
    assert len((await claimed(store, account)).lanes) == 30


@BATCHES
async def test_a_burst_that_was_made_while_no_daemon_ran_is_held_all_the_same(store: Store, most: int) -> None:
    """A slip does not become harmless by waiting."""
    account = await guarded(store)
    for relation in range(1, 16):
        await burst(store, relation, relation, ago_s=3600)
    await burst(store, 40, 45)
    await staged_all(store, most=most)
    assert await relations_in(store, "held") == list(range(1, 16))
    assert len((await claimed(store, account)).lanes) == 6


async def test_a_second_large_transaction_joins_the_open_hold(store: Store) -> None:
    """One question at a time."""
    await guarded(store)
    await burst(store, 1, 20)
    await staged_all(store)
    await burst(store, 21, 40, tag=2)
    await staged_all(store)
    (hold,) = await holds(store)
    assert len(hold["xacts"]) == 2
    assert len(await relations_in(store, "held")) == 40


async def test_another_accounts_stager_guards_it_too(store: Store) -> None:
    """Whoever stages, stages for all: the limits must be where every stager finds them."""
    await guarded(store)
    await burst(store, 1, 20)
    await staged_all(store, sightings=Sightings())
    assert len(await relations_in(store, "held")) == 20


async def test_accounts_do_not_count_together(store: Store) -> None:
    """Two shops that each have a busy minute are no burst."""
    await guarded(store, 20)
    other = await new_account(store, "other")
    await remote_sql(store, "UPDATE crm.relations SET account_id = :o WHERE id > 10", o=other.id)
    async with store.begin() as connection:
        await set_guard(connection, other.id, TIGHT)
    await burst(store, 1, 8)
    for relation in range(11, 19):
        await changed(store, other, relation, add())
    await staged_all(store)
    assert len(await relations_in(store, "pending")) == 16
    assert await holds(store) == []


async def test_new_relations_count_too(store: Store) -> None:
    """An import of a wrong file makes a thousand strangers relations of the CRM."""
    account = await guarded(store, 1)
    await run_sql(
        store,
        """INSERT INTO crm.relations (id, account_id, email)
           SELECT n, :a, n || '@y.example' FROM generate_series(101, 120) n""",
        a=account.id,
    )
    await staged_all(store, most=6)
    assert len(await relations_in(store, "held")) == 20


async def test_the_share_holds_what_the_count_would_let_pass(store: Store) -> None:
    """A quarter of a small account is everybody on the list."""
    await guarded(store, 40, Guard(relations=500, share=0.25, floor=5))
    await burst(store, 1, 10)
    await staged_all(store)
    assert await holds(store) == []
    await burst(store, 1, 11, tag=2)
    await staged_all(store)
    assert len(await relations_in(store, "held")) == 11


async def test_without_a_guard_nothing_is_held(store: Store) -> None:
    """Off means off."""
    account = await guarded(store, 60, None)
    await burst(store, 1, 60)
    await staged_all(store)
    assert len((await claimed(store, account)).lanes) == 60


async def test_the_incident_says_how_many_and_what(store: Store) -> None:
    """Whoever is woken by it decides whether to get up."""
    await guarded(store)
    await burst(store, 1, 30)
    sightings = Sightings()
    await staged_all(store, most=7, sightings=sightings)
    async with store.begin() as connection:
        (incident,) = await list_incidents(connection)
    assert (incident.kind, incident.subject) == ("mass_change", f"hold:{(await holds(store))[0]['id']}")
    assert "30 relations changed in one transaction" in incident.summary
    assert json.loads(incident.detail)["operations"] == {"add_tag": 30}
    assert [news.summary for news in sightings.news] == [incident.summary]


async def test_a_held_lane_costs_no_claim(store: Store) -> None:
    """A hundred thousand lanes with nothing to send would stand in front of the live ones."""
    account = await guarded(store)
    await burst(store, 1, 30)
    await staged_all(store, most=7)
    assert (await claimed(store, account)).looked == 0
    assert (await lane_of(store, 1))["ready_at"] is None


async def test_a_held_lane_with_something_else_to_send_stays_awake(store: Store) -> None:
    """The hold is about its own changes only."""
    account = await guarded(store)
    await changed(store, account, 1, add(5))
    await burst(store, 1, 30)
    await staged_all(store)
    lane = await claimed_one(store, account)
    assert [step.carrier.facet for step in lane.plan.steps] == ["tag:5"]
    await settled(store, account, delivered(lane))
    assert await relations_in(store, "accepted") == [1]


async def test_a_later_value_of_a_held_facet_waits_behind_it(store: Store) -> None:
    """Order per facet, whatever is decided."""
    account = await guarded(store)
    await burst(store, 1, 30)
    await staged_all(store)
    await run_sql(store, "DELETE FROM crm.relation_tags WHERE relation_id = 1")
    await staged_all(store)
    assert (await claimed(store, account)).lanes == ()
    await decided(store, (await holds(store))[0]["id"], HoldStatus.REJECTED)
    (step,) = (await claimed_one(store, account)).plan.steps
    assert (step.carrier.operation, step.carrier.facet) == ("remove_tag", "tag:1")


async def test_a_doubtful_entry_is_never_held(store: Store) -> None:
    """It may have been applied: only reading back can settle it, and rejecting it would be a lie."""
    account = await guarded(store)
    await changed(store, account, 1, add(1))
    await run_sql(store, "UPDATE syncd.entries SET is_uncertain = true")
    for relation in range(2, 15):
        await burst(store, relation, relation)
    await staged_all(store)
    assert await relations_in(store, "pending") == [1]


async def test_a_transaction_that_lies_half_below_the_mark_is_seen_whole(store: Store) -> None:
    """A long one took its first ids before the mark was set: what is above the mark alone would pass."""
    await guarded(store)
    stager = Stager()
    async with store.begin() as slow:
        await _tag(slow, 1, 7)
        for at in range(3):
            await burst(store, 20, 20)
            async with store.begin() as connection:
                await stage(connection, stager, now=float(at))
            stager.committed(float(at))
            await run_sql(store, "DELETE FROM crm.relation_tags WHERE relation_id = 20")
        assert stager.marks.starts_from(3.0).capture_id > 7
        await _tag(slow, 8, 14)
    async with store.begin() as connection:
        await stage(connection, stager, now=3.0)
    assert await relations_in(store, "held") == list(range(1, 15))


async def _tag(connection: Connection, first: int, last: int) -> None:
    sql = f"INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT n, 1 FROM generate_series({first}, {last}) n"
    await connection.execute(text(sql))


async def test_a_guard_of_a_later_version_still_guards() -> None:
    """A replica of yesterday must not let a burst pass because it cannot read a word."""
    assert read_guard('{"relations": "many"}') == Guard()
    assert read_guard('{"relations": 7, "mood": "bad"}') == Guard(relations=7)
    assert read_guard(None) is None


async def test_a_stager_that_has_counted_does_not_count_again(store: Store) -> None:
    """An ordinary edit must not cost a look at everything of the last minute: it is taken for one more relation."""
    account = await guarded(store)
    sightings = Sightings()
    believed = []
    for relation in (1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2):
        await run_sql(store, "DELETE FROM crm.relation_tags WHERE relation_id = :r", r=relation)
        await burst(store, relation, relation)
        await run_sql(store, "DELETE FROM syncd.captures WHERE operation = 'remove_tag'")
        await staged(store, sightings=sightings)
        believed.append(sightings.seen[account.id].relations)
    assert believed == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 3], "counted anew only when it could be too many"


async def test_what_another_stager_staged_meanwhile_is_counted(store: Store) -> None:
    """Two replicas take turns; neither sees the other's memory."""
    await guarded(store)
    first, second = Sightings(), Sightings()
    for relation in range(1, 15):
        await burst(store, relation, relation)
        await staged(store, sightings=first if relation % 2 else second)
    assert len(await relations_in(store, "held")) == 14


async def test_a_transaction_that_commits_late_is_held(store: Store) -> None:
    """Its edits are old when they are first seen; its size is not."""
    account = await guarded(store)
    sightings = Sightings()
    async with store.begin() as slow:
        await slow.execute(
            text("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT n, 1 FROM generate_series(1, 20) n")
        )
        await slow.execute(text("UPDATE syncd.captures SET captured_at = captured_at - interval '1 hour'"))
        await burst(store, 40, 42)
        await staged(store, sightings=sightings)
    await staged_all(store, sightings=sightings)
    assert len(await relations_in(store, "held")) == 20
    assert len((await claimed(store, account)).lanes) == 3


async def test_a_daemon_keeps_the_guard_of_its_account(store: Store) -> None:
    """Whoever drains from a shell that knows nothing of the daemon's settings must not let a burst pass."""
    account = await guarded(store)
    loose = Guard(relations=500, share=0)
    async with store.begin() as connection:
        assert await set_guard(connection, account.id, TIGHT, kept_s=60) == TIGHT
        assert await set_guard(connection, account.id, loose) == TIGHT
        assert await set_guard(connection, account.id, None) == TIGHT
        assert await set_guard(connection, account.id, loose, kept_s=60) == loose, (
            "another daemon may have new settings"
        )
        assert await set_guard(connection, account.id, TIGHT, kept_s=60) == TIGHT
    later = "UPDATE syncd.account_states SET limits = jsonb_set(limits, '{guard_kept_until}', '1')"
    await run_sql(store, later)
    async with store.begin() as connection:
        assert await set_guard(connection, account.id, loose) == loose
        assert await set_guard(connection, account.id, None) is None
        assert await set_guard(connection, account.id, TIGHT) == TIGHT


async def test_who_sends_nothing_sets_an_account_s_first_guard_alone(store: Store) -> None:
    """None is a guard as well: whoever switched it off has said so."""
    account = await account_with(store)
    loose = Guard(relations=500, share=0)

    async def said(guard: Guard | None, kept_s: float | None = None) -> Guard | None:
        async with store.begin() as connection:
            if kept_s is None:
                await set_first_guard(connection, account.id, guard)
            else:
                await set_guard(connection, account.id, guard, kept_s=kept_s)
        found = await rows(store, "SELECT CAST(limits -> 'guard' AS text) AS guard FROM syncd.account_states")
        return read_guard(found[0]["guard"])

    assert await said(None) is None
    assert await said(TIGHT) == TIGHT
    assert await said(loose) == TIGHT
    assert await said(None, kept_s=0) is None
    assert await said(loose) is None
    assert await said(None, kept_s=60) is None
    assert await said(loose) is None


@pytest.mark.parametrize("is_one", [True, False])
async def test_a_guard_that_is_lowered_asks_nobody_about_what_was_sent(store: Store, is_one: bool) -> None:
    """Neither of one transaction nor of many: there is nothing to decide."""
    account = await guarded(store, guard=None)
    for first in (1,) if is_one else range(1, 31):
        await burst(store, first, 30 if is_one else first)
    await staged_all(store)
    await settled(store, account, *map(delivered, (await claimed(store, account)).lanes))
    async with store.begin() as connection:
        await set_guard(connection, account.id, TIGHT)
    await changed(store, account, None, new_field())
    assert await holds(store) == []
    await burst(store, 31, 31)
    await staged_all(store)
    assert await relations_in(store, "held") == ([] if is_one else [31]), "a loop goes on, a transaction is over"
