"""Lateness: how long after its own timestamp a row first appeared, and how far a window must overlap because of it.

Only a row that appears in time which was proven already was late for certain: that time had been read and did not hold
it. How late is known from above alone (it may have appeared at any moment since the last look), and that is the side
to err on. A row of the young time just being read was on time. Everything else (a first load, the hours after a
downtime) says nothing and is not counted.

The histogram has fixed buckets whose edges grow by the square root of two, so that histograms of different months,
replicas and versions add up. The overlap is the narrowest edge which no more than the accepted share of rows exceeded,
inside the floor and the ceiling of the settings. What is later still is the residual risk: it is named, not hidden,
and the wider reads of the ladder are there for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STEADY_S = 2 * 3600.0  # a longer gap since the last proven instant is a downtime: what it brings may all look late

EDGES_S: tuple[float, ...] = tuple(float(round(60 * 2 ** (step / 2))) for step in range(41))  # a minute to two years


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts[n]`` rows were late by at least ``EDGES_S[n - 1]`` and by less than ``EDGES_S[n]``; the last has no end.

    Rows that were on time are in the first.
    """

    counts: tuple[int, ...] = (0,) * (len(EDGES_S) + 1)

    @classmethod
    def of(cls, buckets: Iterable[tuple[int, int]]) -> Histogram:
        """Build one from (bucket, rows); a bucket may come several times."""
        counts = [0] * (len(EDGES_S) + 1)
        for bucket, rows in buckets:
            counts[bucket] += rows
        return cls(tuple(counts))

    @property
    def rows(self) -> int:
        return sum(self.counts)

    def later_than(self, seconds: float) -> int:
        """Return how many rows may have been later: a bucket that reaches beyond ``seconds`` counts whole."""
        return sum(rows for rows, upto_s in zip(self.counts, (*EDGES_S, float("inf")), strict=True) if upto_s > seconds)


@dataclass(frozen=True, slots=True)
class OverlapRule:
    """Never less than ``floor_s`` nor more than ``ceiling_s``; ``risk`` is the share of rows that may come later."""

    floor_s: float = 2 * 3600
    ceiling_s: float = 86400
    risk: float = 0.001


@dataclass(frozen=True, slots=True)
class Residue:
    """What an overlap leaves to chance: ``later`` of ``rows`` measured ones came later than ``overlap_s``, and
    ``beyond`` of those later than the widest read of the ladder reaches."""

    overlap_s: float
    rows: int
    later: int
    beyond: int


def overlap_s(seen: Histogram, rule: OverlapRule) -> float:
    """Return how far a window must reach back into proven time; a floor above the ceiling wins."""
    ceiling_s = max(rule.floor_s, rule.ceiling_s)
    accepted = seen.rows * rule.risk
    fitting = (edge for edge in EDGES_S if seen.later_than(edge) <= accepted)
    return min(ceiling_s, max(rule.floor_s, next(fitting, ceiling_s)))


def residue(seen: Histogram, rule: OverlapRule, widest_s: float = 0) -> Residue:
    """Return the overlap together with what it leaves to chance, and to reads of ``widest_s``."""
    reached_s = overlap_s(seen, rule)
    return Residue(reached_s, seen.rows, seen.later_than(reached_s), seen.later_than(max(reached_s, widest_s)))
