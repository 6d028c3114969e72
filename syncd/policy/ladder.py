"""The cadence ladder: recent time is read often, older time rarely.

An order's payment, its invoice number and the dates of its subscriptions change without any timestamp, so time that is
proven must be read again. A **rung** promises that everything back to its reach is read again within its interval.
The rungs stand on one cadence: each round asks as far back as the widest rung that is due, so a wide read takes the
place of a short one and costs no request more. When a rung was last kept is in the database: a restart or another
replica goes on where the last one stood.

A rung whose read fails is tried again after a share of its interval; until then rounds go on without it, so that a
wide answer that never succeeds costs neither the recent time nor the CRM's patience.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

RETRY_SHARE = 1 / 12
SLACK_S = 300.0  # two measures of the CRM's clock differ a little


@dataclass(frozen=True, slots=True, order=True)
class Rung:
    """Every ``every_s`` seconds ask for at least the last ``reach_s`` seconds; an interval of 0 switches it off."""

    reach_s: float
    every_s: float


@dataclass(frozen=True, slots=True)
class Footing:
    """When a reach was last read with proof, and when it was last tried, by the CRM's time."""

    read_at: datetime | None = None
    tried_at: datetime | None = None


def reach_due_s(rungs: Iterable[Rung], taken: Mapping[float, Footing], now: datetime) -> float:
    """Return the reach of the widest rung that is due, 0 if none is. ``taken`` is by reach in seconds."""
    return max((rung.reach_s for rung in rungs if _is_due(rung, taken, now)), default=0.0)


def kept(rungs: Iterable[Rung], asked_from: datetime, now: datetime) -> tuple[float, ...]:
    """Return the reaches that a proven read from ``asked_from`` to ``now`` keeps."""
    span_s = (now - asked_from).total_seconds()
    return tuple(sorted({rung.reach_s for rung in rungs if rung.reach_s <= span_s}))


def _is_due(rung: Rung, taken: Mapping[float, Footing], now: datetime) -> bool:
    if rung.every_s <= 0:
        return False
    as_wide = [footing for reach_s, footing in taken.items() if reach_s >= rung.reach_s]
    if any(_is_within(footing.read_at, now, rung.every_s) for footing in as_wide):
        return False
    return not any(_is_within(footing.tried_at, now, rung.every_s * RETRY_SHARE) for footing in as_wide)


def _is_within(at: datetime | None, now: datetime, seconds: float) -> bool:
    """Tell whether it was so recently. What is noted for the future was noted by a wrong clock, and does not count."""
    return at is not None and now - timedelta(seconds=seconds) < at <= now + timedelta(seconds=SLACK_S)
