"""Queue: the claimed lanes that wait for a worker, oldest first, and how many of them there should be.

A lane that waits here is kept from other drainers, so the queue holds about as much as the workers get through in a
second or two, measured, and never more than one claim's batch. Leases are renewed meanwhile; one that could not be is
found too short by whoever takes the lane, and the lane is given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from syncd.clock import Clock
from syncd.outbound.leases import Lease
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace

_HORIZON_S = 2.0


class LaneQueue:
    """Leased lanes. ``hunger`` is set when the queue runs low."""

    def __init__(self, limits: DrainLimits, pace: Pace, clock: Clock, hunger: asyncio.Event) -> None:
        self._limits = limits
        self._clock = clock
        self._pace = pace
        self._lanes: deque[Lease] = deque()
        self._calls: dict[int, asyncio.Future[None]] = {}
        self._hunger = hunger
        self._is_closed = False
        self._lane_s: float | None = None
        pace.on_widened = self.call_workers

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def wanted(self) -> int:
        """How many lanes to claim now; zero while enough are waiting."""
        return 0 if len(self._lanes) > self._depth() // 2 else self._depth() - len(self._lanes)

    def put(self, leases: Iterable[Lease]) -> None:
        self._lanes.extend(leases)
        self.call_workers()

    async def take(self, place: int) -> Lease | None:
        """Return the next lane for the worker at ``place``, or None when the queue is closed and empty."""
        while not (self._lanes and self._may_take(place)):
            if self._is_closed:
                return None
            await self._called(place)
        return self._pop()

    def call_workers(self) -> None:
        """Wake as many idle workers as there are lanes and places for."""
        left = len(self._lanes)
        for place in sorted(self._calls):
            if self._is_closed or (left > 0 and self._may_take(place)):
                left -= 1
                if not self._calls[place].done():
                    self._calls[place].set_result(None)

    def close(self) -> None:
        """Let the workers end once the queue is empty."""
        self._is_closed = True
        self.call_workers()

    def _may_take(self, place: int) -> bool:
        return self._is_closed or self._pace.has_place(place)

    async def _called(self, place: int) -> None:
        self._calls[place] = asyncio.get_running_loop().create_future()
        try:
            await self._calls[place]
        finally:
            del self._calls[place]

    def note(self, elapsed_s: float) -> None:
        """Learn how long a lane takes a worker."""
        self._lane_s = elapsed_s if self._lane_s is None else 0.9 * self._lane_s + 0.1 * elapsed_s

    def _pop(self) -> Lease:
        taken = self._lanes.popleft()
        if len(self._lanes) <= self._depth() // 2:
            self._hunger.set()
        return taken

    def _depth(self) -> int:
        width = self._pace.allowed
        if self._lane_s is None:
            return min(self._limits.batch, 2 * width)
        horizon_s = min(_HORIZON_S, self._limits.lease_s / 8)
        return max(width, min(self._limits.batch, int(width * horizon_s / max(self._lane_s, 1e-6))))
