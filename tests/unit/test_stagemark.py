"""Stage marks: which one a stage leaves, and which one it begins at."""

from __future__ import annotations

from syncd.policy.lowwater import LAG_S, MOST_S
from syncd.policy.stagemark import LOWEST, StageMark, StageMarks, Took


def _took(xact: int | None, *, first_id: int = 1, next_id: int = 50, last_id: int | None = None) -> Took:
    return Took(first_id, next_id, 100, frozenset({90, 95}), xact, last_id)


def test_a_mark_names_who_was_open_and_who_began_before_us() -> None:
    """Those from the end of the snapshot on are open for all that it can tell."""
    assert _took(103).mark == StageMark(50, frozenset({90, 95, 100, 101, 102}))


def test_a_mark_lies_behind_what_was_taken() -> None:
    """There may be more."""
    assert _took(103, last_id=40).mark == StageMark(41, frozenset({90, 95, 100, 101, 102}))


def test_a_stage_that_wrote_nothing_leaves_none() -> None:
    """Without a number of its own it cannot tell who began before it read the ids."""
    assert _took(None).mark is None


def test_a_transaction_of_very_many_parts_leaves_none() -> None:
    """A thousand savepoints would be a thousand names to ask for at each stage; the marks before it serve as well."""
    assert _took(100 + 5000).mark is not None
    assert _took(100 + 5001).mark is None


def test_the_newest_mark_that_is_old_enough_is_begun_at() -> None:
    """A younger one names transactions that end in a moment, and each of them would make a stage read everything."""
    marks = StageMarks(whole_at=0.0)
    for number in range(4):
        marks = marks.took(_took(103, next_id=50 + number), number * LAG_S)
    assert marks.starts_from(3 * LAG_S).capture_id == 52
    assert marks.starts_from(3.5 * LAG_S).capture_id == 52
    assert marks.starts_from(4 * LAG_S).capture_id == 53
    assert [mark.capture_id for _, mark in marks.noted] == [52, 53], "older ones are of no use any more"


def test_everything_is_read_from_time_to_time_whatever_it_costs() -> None:
    """Somebody may have given a capture its number by hand."""
    marks = StageMarks().took(_took(103, first_id=0), 10.0).took(_took(103), 11.0)
    assert marks.starts_from(10.0 + MOST_S - 0.1) != LOWEST
    assert marks.starts_from(10.0 + MOST_S) == LOWEST
