"""Windows: from when to ask, and what a complete answer proves.

All instants are the CRM's time: ours corrected by the measured skew, because that is the clock its rows carry and
its ``hours`` count from. A window begins an overlap before the earliest hole inside the horizon, so time lost to a
downtime widens the next window by itself. It proves time up to the *start* of the request less a margin, never up to
the newest row: rows written while the CRM was answering may be missing from the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.policy.coverage import Interval, holes
from syncd.policy.lateness import OverlapRule


@dataclass(frozen=True, slots=True)
class WindowRule:
    """``overlap_s`` is read again each time, more if rows were seen to come later: up to ``overlap_max_s``, until no
    more than the share ``overlap_risk`` of them is missed. Older time than ``horizon_s`` is left to a backfill;
    ``margin_s`` is not claimed at the young end; a clock further off than ``max_skew_s``, or that moved by half of it
    during a run, proves nothing. That is less than an hour, because a server that is wrong by whole hours most likely
    spells its local time as GMT, and counts its ``hours`` from the right time all the same."""

    overlap_s: float = 2 * 3600
    overlap_max_s: float = 86400
    overlap_risk: float = 0.001
    horizon_s: float = 90 * 86400
    margin_s: float = 60
    max_skew_s: float = 3000

    @property
    def overlap(self) -> OverlapRule:
        """The bounds between which the overlap is learned."""
        return OverlapRule(self.overlap_s, self.overlap_max_s, self.overlap_risk)


@dataclass(frozen=True, slots=True)
class Plan:
    """``hole`` is the unproven time that made us ask; ``asked_from`` lies an overlap before it."""

    asked_from: datetime
    hole: Interval


def plan(proven: Iterable[Interval], now: datetime, rule: WindowRule, reach_s: float = 0) -> Plan:
    """Return the window to ask for at ``now``; ``reach_s`` asks at least that far back (late truth)."""
    within = Interval(now - timedelta(seconds=rule.horizon_s), now)
    found = holes(proven, within)
    hole = found[0] if found else Interval(now, now)
    asked_from = min(hole.lower - timedelta(seconds=rule.overlap_s), now - timedelta(seconds=reach_s))
    return Plan(asked_from, hole)


def corrected(now: datetime, skew_s: float | None) -> datetime:
    """Return the CRM's time for ours: later by the skew (theirs minus ours), which is unknown before any answer."""
    return now + timedelta(seconds=skew_s or 0)


def latest(started_at: datetime, skew_before_s: float | None, skew_after_s: float | None, rule: WindowRule) -> datetime:
    """Return the end of all time that can have come at the CRM by then: what is claimed beyond it is void.

    A clock that ran ahead and was set right has claimed time that nobody can have read.
    """
    ahead_s = max(skew_before_s or 0.0, skew_after_s or 0.0) if skew_before_s is not None else skew_after_s or 0.0
    return corrected(started_at, ahead_s) + timedelta(seconds=rule.margin_s)


def proven_by(
    complete_from: datetime,
    started_at: datetime,
    skew_before_s: float | None,
    skew_after_s: float | None,
    rule: WindowRule,
) -> Interval | None:
    """Return what a believed answer proves, or None when the clocks were too far apart to tell.

    ``complete_from`` was computed with the skew known before the request, ``started_at`` is our own clock. If the
    answer itself showed another skew, the CRM's window began that much later or earlier; the later end is the safe one.
    ``skew_after_s`` must be that of this answer alone: a median of earlier ones believes for a while in a clock that
    has jumped.
    """
    before, after = skew_before_s or 0.0, skew_after_s or 0.0
    if abs(after) > rule.max_skew_s or (skew_before_s is not None and abs(after - before) > rule.max_skew_s / 2):
        return None
    lower = complete_from + timedelta(seconds=max(0.0, after - before))
    upper = corrected(started_at, min(before, after) if skew_before_s is not None else after)
    interval = Interval(lower, upper - timedelta(seconds=rule.margin_s))
    return None if interval.is_empty else interval
