"""The guard's two rules, against what they say in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.policy.guard import Change, Guard, crowded, duration_s, too_large

START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
WINDOW = timedelta(seconds=10)


def change(number: int, relation: int, second: float) -> Change:
    return Change(number, relation, START + timedelta(seconds=second))


@st.composite
def made(draw: st.DrawFn) -> list[Change]:
    """Edits of few relations in few seconds, many at the same instant, in order."""
    seconds = sorted(draw(st.lists(st.integers(0, 60), max_size=40)))
    return [change(number, draw(st.integers(1, 8)), second) for number, second in enumerate(seconds)]


def said_in_words(changes: list[Change], window: timedelta, limit: int) -> set[int | None]:
    """Every change inside any stretch that ends at some edit and holds more than the limit."""
    found: set[int | None] = set()
    for end in changes:
        inside = [c for c in changes if end.at - window < c.at <= end.at]
        if len({c.relation_id for c in inside}) > limit:
            found.update(c.id for c in inside)
    return found


@given(made(), st.integers(1, 6))
def test_crowded_is_every_change_in_a_stretch_above_the_limit(changes: list[Change], limit: int) -> None:
    """One missed change of a burst is one campaign mail; one too many is somebody's edit that waits for nothing."""
    found = crowded(changes, WINDOW, limit)
    assert {c.id for c in found} == said_in_words(changes, WINDOW, limit)
    assert len(found) == len({c.id for c in found})


def test_one_relation_edited_a_thousand_times_is_no_burst() -> None:
    """It is about how many people a slip reaches."""
    assert crowded([change(n, 1, n / 1000) for n in range(1000)], WINDOW, 1) == ()


def test_a_burst_ends_when_its_window_has_passed() -> None:
    """What comes after it is an ordinary edit again."""
    burst = [change(n, n, 0) for n in range(5)]
    later = change(9, 9, 30)
    assert crowded([*burst, later], WINDOW, 3) == tuple(burst)


@pytest.mark.parametrize(
    ("total", "limit"), [(0, 50), (100, 50), (400, 100), (2000, 500), (10**6, 500)], ids=lambda value: str(value)
)
def test_the_limit_is_a_count_lowered_to_a_share_with_a_floor(total: int, limit: int) -> None:
    """A quarter of a small account is a slip too; five edits by hand are not."""
    guard = Guard()
    assert guard.limit(total) == limit
    assert guard.least == 50
    assert guard.limit(guard.enough) == guard.relations


def test_without_a_share_the_count_alone_counts() -> None:
    """Whoever sets the share to zero wants to hear of numbers only."""
    guard = Guard(share=0)
    assert (guard.limit(10), guard.least, guard.enough) == (500, 500, 0)


def test_a_count_below_the_floor_is_meant() -> None:
    """The floor softens the share, never what somebody asked for by number."""
    assert Guard(relations=10).limit(10**6) == 10


def test_a_transaction_is_judged_by_itself() -> None:
    """What others commit beside a mass change is none of it."""
    assert too_large({"7": 501, "8": 500, "9": 900}, 500) == ("7", "9")


def test_a_duration_is_bound_by_rate_or_by_width() -> None:
    """Two requests a second, or one slow answer at a time: whichever is slower."""
    assert duration_s(100, 30, rate_per_s=2, concurrency=1) == 50
    assert duration_s(100, 300, rate_per_s=2, concurrency=2) == 150
