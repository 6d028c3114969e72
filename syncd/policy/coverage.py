"""Coverage: the arithmetic of proven time.

What has been read is a set of half-open intervals ``[lower, upper)``. A hole is time inside a span that no interval
proves; it has an age and is the next thing to ask for. Values in, values out: the ledger itself is ``store.coverage``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A half-open span of time, aware UTC. An interval whose ends meet or cross is empty."""

    lower: datetime
    upper: datetime

    @property
    def is_empty(self) -> bool:
        return self.upper <= self.lower

    @property
    def span_s(self) -> float:
        return max(0.0, (self.upper - self.lower).total_seconds())

    def clipped(self, within: Interval) -> Interval:
        """Return the part of this interval that lies inside another."""
        return Interval(max(self.lower, within.lower), min(self.upper, within.upper))


def union(*sets: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the smallest ordered set of disjoint intervals that covers the given ones; touching ones merge."""
    merged: list[Interval] = []
    for interval in sorted(interval for intervals in sets for interval in intervals if not interval.is_empty):
        if merged and interval.lower <= merged[-1].upper:
            merged[-1] = Interval(merged[-1].lower, max(merged[-1].upper, interval.upper))
        else:
            merged.append(interval)
    return tuple(merged)


def holes(proven: Iterable[Interval], within: Interval) -> tuple[Interval, ...]:
    """Return what ``proven`` lacks inside ``within``, oldest first."""
    found: list[Interval] = []
    upto = within.lower
    for interval in union(part.clipped(within) for part in proven):
        if interval.lower > upto:
            found.append(Interval(upto, interval.lower))
        upto = max(upto, interval.upper)
    if upto < within.upper:
        found.append(Interval(upto, within.upper))
    return tuple(found)


def covers(proven: Iterable[Interval], wanted: Interval) -> bool:
    """Tell whether every instant of ``wanted`` is proven."""
    return not holes(proven, wanted)


def age_s(hole: Interval, now: datetime) -> float:
    """Return how long ago the hole began: what an operator should look at."""
    return max(0.0, (now - hole.lower).total_seconds())
