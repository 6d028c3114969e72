"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from datetime import UTC, datetime, timedelta

_NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


class ManualClock:
    """Implements ``syncd.clock.Clock``. Sleeps end when ``advance`` passes their instant, in order of instant.

    ``random`` is seeded; set ``fixed_random`` to make jitter exact.
    """

    def __init__(self, now: datetime = _NOON, *, seed: int = 1, fixed_random: float | None = None) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept_upon = asyncio.Event()
        self.fixed_random = fixed_random

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def random(self) -> float:
        return self._random.random() if self.fixed_random is None else self.fixed_random

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), woken))
        self._slept_upon.set()
        await woken

    @property
    def sleeping(self) -> int:
        """How many sleeps are under way."""
        return sum(1 for _, _, woken in self._sleepers if not woken.done())

    @property
    def next_wake_s(self) -> float | None:
        """Seconds until the earliest sleep ends; None when nobody sleeps."""
        live = [at for at, _, woken in self._sleepers if not woken.done()]
        return min(live) - self._monotonic if live else None

    async def until_sleeping(self, count: int = 1) -> None:
        """Wait, without time passing, until at least ``count`` tasks sleep on this clock."""
        while self.sleeping < count:
            self._slept_upon.clear()
            await self._slept_upon.wait()

    async def advance(self, seconds: float) -> None:
        """Move on, waking each sleeper at its own instant and letting it run before time goes further."""
        goal = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= goal:
            at, _, woken = heapq.heappop(self._sleepers)
            self._move_to(max(at, self._monotonic))
            if not woken.done():
                woken.set_result(None)
            await settle()
        self._move_to(goal)
        await settle()

    def set(self, now: datetime) -> None:
        """Jump the wall time, as a corrected machine clock would; ``monotonic`` and sleepers are not moved."""
        self._now = now

    def _move_to(self, monotonic: float) -> None:
        self._now += timedelta(seconds=monotonic - self._monotonic)
        self._monotonic = monotonic


async def settle(turns: int = 10) -> None:
    """Let every task that can run without input or output do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
