"""Gate: whether the account may be talked to, asked by many workers and looked up by one.

A throttle or an open breaker that ends soon is waited out, as a one-shot drain waits; a pause is not.
"""

from __future__ import annotations

import asyncio

from syncd.clock import Clock
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.outbound.waiting import wait_for
from syncd.outbound.watch import Watch

_LOOK_AGAIN_S = 0.5
_LONGEST_LOOK_S = 1.0


class Gate:
    """One account's, for the length of one command."""

    def __init__(self, watch: Watch, pace: Pace, clock: Clock, limits: DrainLimits) -> None:
        self._watch = watch
        self._pace = pace
        self._clock = clock
        self._limits = limits
        self._lock = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._looked_at = float("-inf")

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let nothing more begin."""
        self._stopped.set()
        self._pace.stop()

    async def closed(self) -> str | None:
        """Return why nothing may be sent now or soon, or None as soon as something may."""
        async with self._lock:
            give_up_at = self._clock.monotonic() + self._limits.patience_s
            while not self._stopped.is_set():
                if self._pace.is_open and self._clock.monotonic() - self._looked_at < _LOOK_AGAIN_S:
                    return None
                _, closed_s = await self._watch.gate(self._pace)
                self._looked_at = self._clock.monotonic()
                if closed_s <= 0 and self._pace.is_open:
                    return None
                if self._watch.paused is not None:
                    return f"the account is paused: {self._watch.paused}"
                if self._looked_at + closed_s > give_up_at:
                    return self._why(closed_s)
                await wait_for(self._stopped, min(max(closed_s, self._limits.poll_interval_s), _LONGEST_LOOK_S))
            return "stopped before its turn"

    def _why(self, closed_s: float) -> str:
        if self._pace.is_broken:
            return "too many deliveries failed in a row; the account is left alone for now"
        return f"the CRM asked to be left alone for {closed_s:.0f} s more"
