"""Rounds and waits: what a lane sends to its end, and why the rest does not go."""

from __future__ import annotations

from syncd.policy.fold import Entry, Step
from syncd.policy.landing import ALL_HAS_LANDED, Landing
from syncd.policy.rounds import Course, course, next_round
from syncd.policy.waits import Why, waits
from tests.support.lanes import (
    EARLIER,
    LATER,
    NOW,
    add,
    create,
    email,
    entry,
    is_repeat_safe,
    lane,
    profile,
    remove,
    subscribe,
)


def _course(entries: list[Entry], window: int = 100, refused: frozenset[int] = frozenset()) -> Course:
    def refusal(step: Step, is_bound: bool) -> str | None:
        return "no" if step.carrier.seq in refused else None

    return course(entries, is_repeat_safe, NOW, window, refusal, is_bound=True)


def _sent(made: Course) -> list[list[int]]:
    return [[step.carrier.seq for step in round_.plan.steps] for round_ in made.rounds]


def test_a_barrier_and_what_is_behind_it_are_rounds_of_their_own() -> None:
    """The plan must show what follows a subscription, and that it follows."""
    made = _course(lane(add(1), subscribe(), add(1), remove(1)))
    assert _sent(made) == [[1], [2], [4]]
    assert made.left == ()


def test_a_round_reads_no_further_than_a_claim() -> None:
    """Two claims of one entry each send both values; one claim of two sends the last."""
    assert _sent(_course(lane(add(), remove()), window=1)) == [[1], [2]]
    assert _sent(_course(lane(add(), remove()), window=2)) == [[2]]


def test_a_lane_whose_window_holds_nothing_is_read_whole() -> None:
    """As the claim does: what can be sent may be far behind what waits."""
    entries = [entry(1, add(1), "parked"), entry(2, add(2), "parked"), entry(3, add(3))]
    made = next_round(entries, is_repeat_safe, NOW, 2)
    assert [step.carrier.seq for step in made.plan.steps] == [3]
    assert not made.is_cut


def test_a_refused_call_ends_dead_and_its_facet_waits_behind_it() -> None:
    """A switched-off subscription is buried; the next one of the same list waits for a person."""
    made = _course(lane(subscribe(), add(), subscribe()), refused=frozenset({1}))
    assert _sent(made) == [[1], [2]]
    assert made.refused == {1: "no"}
    assert [(e.seq, e.status) for e in made.left] == [(1, "dead"), (3, "pending")]


def test_a_refused_create_stops_all_but_the_address_that_mends_it() -> None:
    """The fold lets a later address past a refused create: the plan must follow it."""
    made = _course(lane(create("wrong"), add(), email("right@x.example")), refused=frozenset({1}))
    assert _sent(made) == [[1], [3], [2]]
    assert made.rounds[1].plan.steps[0].change == create("right@x.example")


def test_refused_profile_edits_all_die_and_a_refused_value_supersedes_what_it_replaced() -> None:
    """Each as the drain settles it, so that what comes next is planned from the right entries."""
    edits = _course(lane(profile(last_name="a"), profile(last_name="b")), refused=frozenset({2}))
    assert [(e.seq, e.status) for e in edits.left] == [(1, "dead"), (2, "dead")]
    tags = _course(lane(add(), remove()), refused=frozenset({2}))
    assert [(e.seq, e.status) for e in tags.left] == [(2, "dead")]


def test_a_later_address_beyond_what_one_claim_reads_is_planned_as_the_claim_sends_it() -> None:
    """The claim is told of it, and reads on; once it may have been applied, what it passed is not sent any more."""
    between = [entry(seq, profile(first_name=f"N{seq}")) for seq in range(2, 6)]
    waiting = entry(1, email("a@x.example"), awaits=7)
    made = _course([waiting, *between, entry(6, email("b@x.example"))], window=2)
    assert _sent(made)[0] == [6]
    parked = entry(6, email("b@x.example"), "parked", is_uncertain=True)
    assert _sent(_course([entry(1, email("a@x.example")), *between, parked], window=2)) == []


def test_an_address_that_is_refused_unsent_leaves_the_one_that_it_passed() -> None:
    """That one waits for another relation, and is sent when it may."""
    made = _course([entry(1, email("a@x.example"), awaits=7), entry(2, email("b@x.example"))], refused=frozenset({2}))
    assert [(e.seq, e.status) for e in made.left] == [(1, "pending"), (2, "dead")]


def test_an_unreadable_entry_is_buried_and_the_rest_goes_on() -> None:
    """It costs its own facet."""
    made = _course([entry(1, None), entry(2, add(2)), entry(3, subscribe())])
    assert _sent(made) == [[2], [3]]
    assert [(e.seq, e.status) for e in made.left] == [(1, "dead")]


def test_each_waiting_entry_has_its_reason() -> None:
    """What a person does about it depends on which of these it is."""
    left = [
        entry(1, add(1), next_attempt_at=LATER),
        entry(2, remove(1)),
        entry(3, add(2), "held"),
        entry(4, add(3), "parked"),
        entry(5, remove(3)),
        entry(6, add(4), "diverged"),
        entry(7, email("x@x.example"), "dead"),
        entry(8, add(5)),
        entry(9, add(5), next_attempt_at=EARLIER),
    ]
    found = [(wait.why, wait.behind.seq if wait.behind else None) for wait in waits(left, NOW, ALL_HAS_LANDED)]
    assert found == [
        (Why.BACK_OFF, None),
        (Why.BEHIND, 1),
        (Why.HELD, None),
        (Why.PARKED, None),
        (Why.BEHIND, 4),
        (Why.DIVERGED, None),
        (Why.DEAD, None),
        (Why.BEHIND, 7),
        (Why.BEHIND, 7),
    ]


def test_what_another_relation_keeps_waiting_says_for_which_entry() -> None:
    """That is where to look; what is behind it waits for it as ever."""
    found = waits([entry(1, email("x@x.example"), awaits=7), entry(2, add())], NOW, ALL_HAS_LANDED)
    assert [(wait.why, wait.awaits) for wait in found] == [(Why.ADDRESS, 7), (Why.BEHIND, None)]


def test_what_a_late_call_keeps_waiting_says_until_when() -> None:
    """Nobody has to do anything about it."""
    left = [entry(1, profile(first_name="A")), entry(2, email("x@x.example")), entry(3, email("y@x.example"))]
    found = waits(left, NOW, Landing(profile_until=LATER, address_until=LATER))
    assert [(wait.why, wait.until) for wait in found] == [
        (Why.LANDING, LATER),
        (Why.LANDING, LATER),
        (Why.BEHIND, None),
    ]
