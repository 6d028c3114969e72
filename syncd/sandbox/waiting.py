"""Requests that wait: held ones until somebody lets go, late ones until they land after newer ones.

A held request whose client has gone is still applied when it is let go: servers do not notice either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class _Late:
    """A request that lands by itself when ``left`` more requests have passed; 0: it does not."""

    apply: Callable[[], object]
    left: int


class WaitingRoom:
    """Held and late requests, and a way for a test to wait for them without sleeping."""

    def __init__(self) -> None:
        self.held = 0
        self._released = asyncio.Event()
        self._moved = asyncio.Event()
        self._late: list[_Late] = []
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def late(self) -> int:
        """How many requests have yet to land."""
        return len(self._late)

    async def hold(self) -> None:
        """Stay until everything held is let go."""
        released = self._released
        self.held += 1
        self.stir()
        try:
            await released.wait()
        finally:
            self.held -= 1

    def release(self) -> int:
        """Let go of every held request; return how many there were."""
        held = self.held
        self._released.set()
        self._released = asyncio.Event()
        return held

    def postpone(self, apply: Callable[[], object], delay_s: float, after: int = 0) -> None:
        """Keep a request to apply when ``land`` is called, or by itself: after a delay, or after so many requests."""
        late = _Late(apply, after + 1 if after else 0)  # it is itself the first that passes
        self._late.append(late)
        if delay_s:
            self._timers.append(asyncio.get_running_loop().call_later(delay_s, self._land_one, late))

    def passed(self) -> None:
        """One more request was dealt with: whatever waited for so many lands now."""
        for late in tuple(self._late):
            if late.left:
                late.left -= 1
                if not late.left:
                    self._land_one(late)

    def land(self) -> int:
        """Apply the late requests in the order in which they were sent; return how many."""
        landed, self._late = self._late, []
        for late in landed:
            late.apply()
        return len(landed)

    def _land_one(self, late: _Late) -> None:
        if late in self._late:
            self._late.remove(late)
            late.apply()

    def stir(self) -> None:
        """Tell whoever waits that something has changed."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        """Wait until a condition holds; it is looked at on every request."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await self._moved.wait()

    def close(self) -> None:
        """Let everything held go and forget what would come late."""
        self.release()
        for timer in self._timers:
            timer.cancel()
