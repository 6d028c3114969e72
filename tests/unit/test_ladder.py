"""The cadence ladder: the widest rung that is due, whoever remembers what; and failures that cost nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.policy.ladder import RETRY_SHARE, Footing, Rung, kept, reach_due_s

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
HOUR, DAY = 3600.0, 86400.0
WIDE, DEEP = Rung(72 * HOUR, HOUR), Rung(90 * DAY, DAY)
RUNGS = (WIDE, DEEP)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_what_was_never_read_is_due_and_the_widest_first() -> None:
    """One wide read keeps every narrower promise too."""
    assert reach_due_s(RUNGS, {}, NOW) == DEEP.reach_s


def test_a_rung_is_due_when_its_interval_is_over() -> None:
    """The wider one was read more recently than the narrower: it keeps both promises."""
    read = {WIDE.reach_s: Footing(ago(2 * HOUR)), DEEP.reach_s: Footing(ago(HOUR - 1))}
    assert reach_due_s(RUNGS, read, NOW) == 0
    assert reach_due_s(RUNGS, read, NOW + timedelta(seconds=1)) == WIDE.reach_s
    assert reach_due_s(RUNGS, read, NOW + timedelta(seconds=DAY)) == DEEP.reach_s


def test_a_rung_of_other_settings_counts_for_what_it_reaches() -> None:
    """Whoever narrows a reach need not read it all again; whoever widens it must."""
    read = {80 * DAY: Footing(ago(60))}
    assert reach_due_s((Rung(70 * DAY, DAY),), read, NOW) == 0
    assert reach_due_s((DEEP,), read, NOW) == DEEP.reach_s


def test_a_failed_read_is_tried_again_later_and_the_narrower_goes_on() -> None:
    """Ninety days that never come through must not keep three days from being read, nor be asked for each minute."""
    stands = {WIDE.reach_s: Footing(ago(2 * HOUR)), DEEP.reach_s: Footing(ago(2 * DAY), tried_at=ago(HOUR))}
    assert reach_due_s(RUNGS, stands, NOW) == WIDE.reach_s
    assert reach_due_s(RUNGS, stands, NOW + timedelta(seconds=DAY * RETRY_SHARE)) == DEEP.reach_s


def test_what_a_wrong_clock_noted_for_the_future_does_not_count() -> None:
    """A clock that was a day ahead would else silence the ladder for a day."""
    stands = {DEEP.reach_s: Footing(ago(-DAY), tried_at=ago(-DAY))}
    assert reach_due_s(RUNGS, stands, NOW) == DEEP.reach_s


def test_an_interval_of_nothing_switches_a_rung_off() -> None:
    """So the settings say."""
    assert reach_due_s((Rung(HOUR, 0),), {}, NOW) == 0


def test_a_read_keeps_every_rung_that_it_reaches() -> None:
    """The first load reads the whole horizon: nothing of it need be read again at once."""
    assert kept(RUNGS, ago(90 * DAY), NOW) == (WIDE.reach_s, DEEP.reach_s)
    assert kept(RUNGS, ago(80 * DAY), NOW) == (WIDE.reach_s,)
    assert kept(RUNGS, ago(HOUR), NOW) == ()


@given(
    st.lists(st.floats(30, 600), min_size=20, max_size=200),
    st.lists(st.tuples(st.integers(1, 20), st.floats(300, 20_000)), min_size=1, max_size=3),
)
def test_no_rung_is_later_than_its_interval_and_one_round(rounds: list[float], drawn: list[tuple[int, float]]) -> None:
    """Whatever the rounds: the state is all in the database, so any of them may be another process's first."""
    rungs = tuple(Rung(days * DAY, every_s) for days, every_s in drawn)
    stands: Mapping[float, Footing] = {}
    last = dict.fromkeys(rungs, NOW)
    now = NOW
    for step in rounds:
        now += timedelta(seconds=step)
        reach_s = reach_due_s(rungs, stands, now)
        if reach_s:
            reached = kept(rungs, now - timedelta(seconds=reach_s), now)
            stands = {**stands, **{each: Footing(now, now) for each in reached}}
            last |= {rung: now for rung in rungs if rung.reach_s in reached}
        for rung in rungs:
            assert (now - last[rung]).total_seconds() < rung.every_s + step
