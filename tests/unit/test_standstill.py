"""Standstill: played to its end, what is delivered lets go who waits for it; what is left waits for a person."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from syncd.policy.fold import Entry
from syncd.policy.standstill import standstill
from tests.support.lanes import LATER, add, create, email, entry, is_repeat_safe, profile, subscribe, unsubscribe


def _left(
    lanes: Mapping[int, Sequence[Entry]], awaited: Mapping[int, Collection[int]] | None = None
) -> dict[int, list[int]]:
    found = standstill(lanes, awaited or {}, is_repeat_safe)
    return {lane_id: [one.seq for one in entries] for lane_id, entries in found.items()}


def test_what_backs_off_is_delivered_at_last() -> None:
    """Behind barriers too, one after the other."""
    lane = [
        entry(1, subscribe(), next_attempt_at=LATER),
        entry(2, unsubscribe()),
        entry(3, add()),
        entry(4, email("b")),
    ]
    assert _left({1: lane}) == {1: []}


def test_what_waits_for_a_person_stays_and_so_does_what_stands_behind_it() -> None:
    lane = [entry(1, email("b"), "parked"), entry(2, add()), entry(3, email("c"))]
    assert _left({1: lane, 2: [entry(1, add(), "dead"), entry(2, add(2))]}) == {1: [1, 2, 3], 2: [1]}


def test_who_waits_goes_when_the_last_that_it_waits_for_has_gone() -> None:
    """A chain of three lanes, whichever is looked at first; one of two that are waited for is not enough."""
    chain = {
        1: [entry(1, email("b", "a"), id=1)],
        2: [entry(1, email("a", "c"), id=2)],
        3: [entry(1, create("c"), id=3), entry(2, add(), id=4)],
    }
    awaited = {2: [1], 3: [2]}
    assert _left(chain, awaited) == {1: [], 2: [], 3: []}
    assert _left(dict(reversed(chain.items())), awaited) == {1: [], 2: [], 3: []}
    stuck = {**chain, 4: [entry(1, email("x", "c"), "dead", id=9)]}
    assert _left(stuck, {2: [1], 3: [2, 9]}) == {1: [], 2: [], 3: [1, 2], 4: [1]}
    assert _left(stuck, {2: [1], 3: [9, 2]}) == {1: [], 2: [], 3: [1, 2], 4: [1]}


def test_who_waits_for_what_is_not_there_any_more_waits_for_nobody() -> None:
    """Noted by the claim a moment before it was delivered."""
    assert _left({1: [entry(1, create("c"), awaits=77)]}, {1001: [77]}) == {1: []}


def test_lanes_in_a_circle_stand_still_until_one_goes_elsewhere() -> None:
    one = [entry(1, email("bad", "a"), "dead", is_refused=True, id=1), entry(2, email("b", "bad"), id=4)]
    lanes = {1: one, 2: [entry(1, email("a", "b"), id=2)]}
    awaited = {4: [2], 2: [1]}
    assert _left(lanes, awaited) == {1: [1, 2], 2: [1]}
    lanes[1] = [*one, entry(3, email("fresh", "b"), id=5)]
    assert _left(lanes, awaited) == {1: [], 2: []}


def test_an_older_edit_waits_behind_a_newer_one_in_doubt_of_the_same_column() -> None:
    lanes = {
        1: [entry(1, profile(first_name="A")), entry(2, profile(first_name="B"), "dead", is_uncertain=True)],
        2: [entry(1, profile(first_name="A")), entry(2, profile(last_name="B"), "dead", is_uncertain=True)],
    }
    assert _left(lanes) == {1: [1, 2], 2: [2]}
