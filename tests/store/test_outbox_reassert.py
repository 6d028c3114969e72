"""Reassert: appended with the settle or not at all, one per facet, and saying what was delivered last."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.domain.changes import LocalChange
from syncd.store import Store
from syncd.store.outbox import ClaimedLane, LaneSettlement, Reassertion
from tests.support.claims import (
    account_with,
    begun,
    changed,
    claimed,
    claimed_one,
    delivered,
    entry_of,
    expire,
    failed,
    lane_of,
    settled,
)
from tests.support.lanes import add, email, field, profile, remove, sent, subscribe
from tests.support.outbox import rows, run_sql, stage_all


def doubted(lane: ClaimedLane, *changes: LocalChange, window_s: float = 600.0) -> LaneSettlement:
    """Settle all steps as delivered, each change as one that may still be undone."""
    made = delivered(lane, reassertions=[])
    made.after_s = window_s
    root = lane.plan.steps[0].carrier
    made.reassertions.extend(Reassertion(change, root.reasserts or root.id, window_s) for change in changes)
    return made


async def _again(store: Store) -> list[dict[str, Any]]:
    return await rows(store, "SELECT * FROM syncd.entries WHERE reasserts IS NOT NULL ORDER BY lane_id, seq")


async def test_a_reassertion_is_appended_with_the_settle(store: Store) -> None:
    """Dense, behind the tail, due when the window is over, about the entry in doubt."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await settled(store, account, doubted(await claimed_one(store, account), add(1), add(2)))
    first = await entry_of(store, 1)
    again = await _again(store)
    assert [(e["seq"], e["facet"], e["status"]) for e in again] == [(3, "tag:1", "pending"), (4, "tag:2", "pending")]
    assert {e["reasserts"] for e in again} == {first["id"]}
    assert {e["relation_id"] for e in again} == {1}
    assert {e["reason"] for e in again} == {f"said once more: a first try of entry {first['id']} may still land"}
    row = await lane_of(store, 1)
    assert (row["tail_seq"], row["acked_seq"], row["is_due"]) == (4, 2, False)
    assert row["ready_at"] == again[0]["next_attempt_at"]


async def test_a_fenced_settle_appends_nothing(store: Store) -> None:
    """Whoever holds the lane now will find the doubt itself."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    late = await claimed_one(store, account)
    await expire(store)
    await claimed_one(store, account, "other")
    assert (await settled(store, account, doubted(late, add()))).fenced == {late.lane_id}
    assert await _again(store) == []
    assert (await lane_of(store, 1))["tail_seq"] == 1


async def test_settling_twice_appends_once(store: Store) -> None:
    """A commit whose answer was lost is tried again."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    lane = await claimed_one(store, account)
    await settled(store, account, doubted(lane, add()))
    await settled(store, account, doubted(lane, add()))
    assert len(await _again(store)) == 1


async def test_a_second_doubt_about_a_facet_renews_the_wait(store: Store) -> None:
    """One per facet: the later window covers both."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, doubted(await claimed_one(store, account), add(), window_s=60))
    before = (await _again(store))[0]
    await changed(store, account, 1, remove())
    await settled(store, account, doubted(await claimed_one(store, account), remove(), window_s=600))
    (after,) = await _again(store)
    assert after["id"] == before["id"]
    assert after["operation"] == "remove_tag"
    assert after["next_attempt_at"] > before["next_attempt_at"]
    assert after["reasserts"] == before["reasserts"], "what was in doubt first is where reading on begins"


async def test_columns_in_doubt_add_up(store: Store) -> None:
    """The earlier one's column is still in doubt."""
    account = await account_with(store)
    for edit in (profile(first_name="A"), profile(last_name="B")):
        await changed(store, account, 1, edit)
        await settled(store, account, doubted(await claimed_one(store, account), edit))
    (again,) = await _again(store)
    assert again["payload"]["new"] == {"first_name": "A", "last_name": "B"}


async def test_the_stager_and_a_reassertion_never_take_one_number(store: Store) -> None:
    """Both lengthen the lane under its lock."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    await changed(store, account, 1, add(2), add(3))
    await settled(store, account, doubted(lane, add(1)))
    await changed(store, account, 1, add(4))
    seqs = [row["seq"] for row in await rows(store, "SELECT seq FROM syncd.entries ORDER BY seq")]
    assert seqs == [1, 2, 3, 4, 5]
    assert (await lane_of(store, 1))["is_due"]


@pytest.mark.parametrize(
    ("first", "newer", "said"),
    [
        (add(), [remove()], remove()),
        (field("a"), [field("b", "a"), field("c", "b")], field("c", "b")),
        (email("b@x"), [email("c@x", "b@x")], email("c@x", "b@x")),
        (profile(first_name="A"), [profile(gender="F"), profile(first_name="B")], None),
    ],
)
async def test_a_due_reassertion_says_what_was_delivered_last(
    store: Store, first: LocalChange, newer: list[LocalChange], said: LocalChange | None
) -> None:
    """Whatever was delivered inside the window, each by itself or folded; and the entry is written so."""
    account = await account_with(store)
    await changed(store, account, 1, first)
    await settled(store, account, doubted(await claimed_one(store, account), first))
    for change in newer:
        await changed(store, account, 1, change)
        await settled(store, account, delivered(await claimed_one(store, account)))
    await expire(store)
    (change,) = sent((await claimed_one(store, account)).plan)
    if said is None:
        assert change.new == {"first_name": "B", "gender": "F"}  # type: ignore[union-attr]
    else:
        assert change == said
    (again,) = await _again(store)
    assert again["payload"].get("new", "") == getattr(change, "new", "")


async def test_a_folded_profile_edit_is_not_forgotten(store: Store) -> None:
    """The superseded edit's column went out with its carrier."""
    account = await account_with(store)
    await changed(store, account, 1, profile(first_name="A", gender="M"))
    first = await claimed_one(store, account)
    await settled(store, account, doubted(first, first.plan.steps[0].change))
    await changed(store, account, 1, profile(gender="F"), profile(first_name="B"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await expire(store)
    (change,) = sent((await claimed_one(store, account)).plan)
    assert change.new == {"first_name": "B", "gender": "F"}  # type: ignore[union-attr]


async def test_a_later_value_that_cannot_be_read_stops_its_own_reassertion_alone(store: Store) -> None:
    """A later version may have delivered it: nothing older is said after it, and everything else goes on."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add(), add(2))
    await settled(store, account, doubted(await claimed_one(store, account), add(), add(2)))
    await changed(store, account, 1, remove())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET payload = '{}' WHERE operation = 'remove_tag'")
    await changed(store, account, 2, add())
    await expire(store)
    first, second = sorted((await claimed(store, account)).lanes, key=lambda lane: lane.relation_id or 0)
    assert (sent(first.plan), sent(second.plan)) == ([add(2)], [add()])
    (broken,) = first.plan.broken
    assert broken.is_reassertion
    assert "what was delivered since cannot be said once more: the payload cannot be read" in broken.fault


async def test_what_was_never_delivered_is_not_said(store: Store) -> None:
    """A newer value that the CRM refused, or that a person skipped, changed nothing."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, doubted(await claimed_one(store, account), add()))
    await changed(store, account, 1, remove())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await expire(store)
    assert sent((await claimed_one(store, account)).plan) == [add()]


async def test_a_later_value_far_down_a_long_lane_is_said_too(store: Store) -> None:
    """The reassertion stands at the end of the lane, beyond what one claim reads; newer values stand before it."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2), remove(1), add(3))
    first = await claimed_one(store, account, window=1)
    await settled(store, account, doubted(first, add(1)))
    for _ in range(3):
        await settled(store, account, delivered(await claimed_one(store, account, window=1)))
    await expire(store)
    (change,) = sent((await claimed_one(store, account)).plan)
    assert change == remove(1)


async def test_a_dropped_claim_leaves_a_doubt_on_all_it_may_have_sent(store: Store) -> None:
    """Everything up to its intent that is no barrier; what came later was not sent."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await claimed_one(store, account)
    await changed(store, account, 1, add(3))
    await expire(store)
    lane = await claimed_one(store, account)
    assert [(e.seq, e.is_uncertain) for e in lane.entries] == [(1, True), (2, True), (3, False)]


async def test_a_dropped_barrier_is_doubted_alone(store: Store) -> None:
    """A subscription that backs off before it was not sent with it, and must not be read back for nothing."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe(1), subscribe(2))
    await settled(store, account, failed(await claimed_one(store, account), delay_s=3600))
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    second = await claimed_one(store, account)
    assert sent(second.plan) == [subscribe(2)]
    assert await begun(store, second)
    await expire(store)
    lane = await claimed_one(store, account)
    assert [(e.seq, e.is_uncertain) for e in lane.entries] == [(1, False), (2, True)]


async def test_a_barrier_beyond_the_first_look_is_doubted_as_well(store: Store) -> None:
    """A lane full of dead entries is read whole before its barrier is found; after a crash too."""
    account = await account_with(store)
    await changed(store, account, 1, *(add(n) for n in range(1, 5)), subscribe())
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE seq < 5")
    lane = await claimed_one(store, account, window=2)
    assert sent(lane.plan) == [subscribe()]
    assert await begun(store, lane)
    await expire(store)
    lane = await claimed_one(store, account, window=2)
    assert lane.plan.steps[0].carrier.is_uncertain, "sent again unread it would mail twice"


async def test_waiting_reassertions_make_no_lane_due(store: Store) -> None:
    """They cost no claim until their window is over."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, doubted(await claimed_one(store, account), add()))
    assert (await claimed(store, account)).looked == 0
    await stage_all(store)
    assert (await claimed(store, account)).looked == 0
