"""Windows: the plan reaches an overlap before the oldest hole, and an answer never proves more than it can know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.policy.coverage import Interval
from syncd.policy.windows import WindowRule, corrected, latest, plan, proven_by

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
RULE = WindowRule(overlap_s=7200, horizon_s=86400, margin_s=60, max_skew_s=3600)


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def test_the_first_pull_asks_for_the_whole_horizon() -> None:
    """Nothing is proven yet."""
    assert plan((), NOW, RULE).asked_from == ago(26)


def test_a_steady_pull_asks_for_an_overlap() -> None:
    """The overlap is what the witnesses stand in."""
    assert plan([Interval(ago(48), ago(0.1))], NOW, RULE).asked_from == ago(2.1)


def test_a_downtime_widens_the_window() -> None:
    """Nobody should have to tell the daemon that it was away."""
    assert plan([Interval(ago(48), ago(10))], NOW, RULE).asked_from == ago(12)


def test_the_oldest_hole_counts_and_what_is_beyond_the_horizon_does_not() -> None:
    """A hole between two proven spans is refilled; ancient history is a backfill's."""
    assert plan([Interval(ago(48), ago(20)), Interval(ago(19), ago(0))], NOW, RULE).asked_from == ago(22)
    assert plan([Interval(ago(24), ago(0))], NOW, RULE).hole.span_s == 0


def test_a_reach_asks_further_back() -> None:
    """Late truth is found by re-reading proven time."""
    assert plan([Interval(ago(48), ago(0))], NOW, RULE, reach_s=72 * 3600).asked_from == ago(72)


def test_proof_ends_a_margin_before_the_request_began() -> None:
    """Rows written while the CRM answered may be missing from the answer."""
    assert proven_by(ago(3), NOW, 0.0, 0.0, RULE) == Interval(ago(3), NOW - timedelta(seconds=60))


def test_a_skew_learned_by_the_answer_narrows_the_proof_on_both_ends() -> None:
    """If the CRM's clock turns out to be ahead, its window began later than we thought."""
    proof = proven_by(ago(3), NOW, None, 600.0, RULE)
    assert proof == Interval(ago(3) + timedelta(seconds=600), NOW + timedelta(seconds=540))
    behind = proven_by(ago(3), NOW, None, -600.0, RULE)
    assert behind == Interval(ago(3), NOW - timedelta(seconds=660))


@pytest.mark.parametrize(("before", "after"), [(0.0, 4000.0), (None, -4000.0), (-1000.0, 1000.0)])
def test_a_clock_that_is_mad_or_jumped_proves_nothing(before: float | None, after: float) -> None:
    """Claiming time by a clock that cannot be trusted is silent loss."""
    assert proven_by(ago(3), NOW, before, after, RULE) is None


def test_an_empty_span_proves_nothing() -> None:
    """A window shorter than the margin has nothing left."""
    assert proven_by(NOW - timedelta(seconds=30), NOW, 0.0, 0.0, RULE) is None


def test_the_crms_time_is_ours_and_its_skew() -> None:
    """An unknown skew is taken for none."""
    assert corrected(NOW, 90.0) == NOW + timedelta(seconds=90)
    assert corrected(NOW, None) == NOW


@pytest.mark.parametrize("jump_s", [1600.0, -1600.0, 3600.0, -3600.0])
def test_an_answer_whose_own_clock_has_jumped_proves_nothing(jump_s: float) -> None:
    """A median of earlier answers would believe in the old clock for five answers more."""
    assert proven_by(ago(3), NOW, 0.0, jump_s, WindowRule()) is None


def test_a_clock_off_by_whole_hours_is_not_believed_by_default() -> None:
    """A server that spells its local time as GMT counts its hours rightly all the same: our windows would be off."""
    assert proven_by(ago(3), NOW, 3600.0, 3600.0, WindowRule()) is None
    assert proven_by(ago(3), NOW, 600.0, 600.0, WindowRule()) is not None


def test_no_time_can_have_come_beyond_the_later_of_both_clocks() -> None:
    """What was claimed beyond it is taken back; what is within a margin may be an error of measuring."""
    assert latest(NOW, 0.0, 600.0, RULE) == NOW + timedelta(seconds=660)
    assert latest(NOW, 600.0, 0.0, RULE) == NOW + timedelta(seconds=660)
    assert latest(NOW, None, -600.0, RULE) == NOW - timedelta(seconds=540)
