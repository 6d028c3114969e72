"""Breaker: when many different entries fail in a row, the trouble is the host's, not theirs.

      closed ──N different entries fail in a row──▶ open ──pause over──▶ half_open ──probe succeeds──▶ closed
                                                     ▲                      │
                                                     └────probe fails───────┘  (the pause doubles, up to a cap)

The probe is a safe read, never a delivery. While it is not closed nothing is sent and no retry budget is spent.
A pure value: every event returns the next breaker; time is an argument (monotonic seconds).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """``failures`` counts different entries that failed since the last success; ``last`` is the latest of them."""

    threshold: int
    pause_s: float
    pause_cap_s: float
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    last: int | None = None
    openings: int = 0
    opened_at: float = 0.0

    def succeeded(self) -> Breaker:
        """The host answered sensibly."""
        if self.state is BreakerState.CLOSED and self.failures == 0:
            return self
        return replace(self, state=BreakerState.CLOSED, failures=0, last=None, openings=0)

    def failed(self, entry_id: int, now: float) -> Breaker:
        """A delivery failed in a way that may be the host's; the same entry again says nothing new."""
        if self.state is not BreakerState.CLOSED or entry_id == self.last:
            return self
        counted = replace(self, failures=self.failures + 1, last=entry_id)
        return counted if counted.failures < self.threshold else counted._open(now)

    def probe_wait_s(self, now: float) -> float:
        """Return how long until a probe may be sent; zero when it may be sent now."""
        pause = min(self.pause_cap_s, self.pause_s * 2.0 ** min(max(0, self.openings - 1), 62))
        return max(0.0, self.opened_at + pause - now)

    def probing(self) -> Breaker:
        """The pause is over and a probe is on its way."""
        return replace(self, state=BreakerState.HALF_OPEN)

    def probe_failed(self, now: float) -> Breaker:
        return self._open(now)

    def _open(self, now: float) -> Breaker:
        return replace(self, state=BreakerState.OPEN, openings=self.openings + 1, opened_at=now)
