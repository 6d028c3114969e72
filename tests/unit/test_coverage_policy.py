"""Coverage arithmetic: the ledger may never claim an instant that was not read, nor forget one that was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.policy.coverage import Interval, age_s, covers, holes, union

START = datetime(2024, 5, 1, tzinfo=UTC)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def span(lower: float, upper: float) -> Interval:
    return Interval(at(lower), at(upper))


spans = st.builds(span, st.integers(0, 24), st.integers(0, 24))


def test_touching_intervals_become_one() -> None:
    """A hole of no length between two pulls would be asked for for ever."""
    assert union([span(0, 2)], [span(2, 3), span(5, 6)]) == (span(0, 3), span(5, 6))


def test_holes_are_what_is_not_proven_oldest_first() -> None:
    """The oldest hole is the next to be asked for."""
    assert holes([span(1, 2), span(3, 30)], span(0, 24)) == (span(0, 1), span(2, 3))
    assert holes([], span(0, 24)) == (span(0, 24),)
    assert holes([span(0, 24)], span(0, 24)) == ()


def test_a_hole_has_an_age() -> None:
    """An operator looks at how long ago it began, not at how wide it is."""
    assert age_s(span(1, 2), at(3)) == 7200


@given(st.lists(spans), st.integers(0, 23))
def test_an_hour_is_in_the_union_exactly_when_it_is_in_a_part(parts: list[Interval], hour: int) -> None:
    """Merging must neither lose nor invent time."""
    within = span(hour, hour + 1)
    is_in_a_part = any(part.lower <= within.lower and within.upper <= part.upper for part in parts)
    assert covers(union(parts), within) == is_in_a_part
    assert bool(holes(parts, within)) != is_in_a_part


@given(st.lists(spans), spans)
def test_filling_every_hole_leaves_none(parts: list[Interval], within: Interval) -> None:
    """Asking for what is missing must end."""
    assert holes([*parts, *holes(parts, within)], within) == ()
