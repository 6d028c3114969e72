"""Time and chance: the one place where both enter.

Everything above the pure floors receives a ``Clock``; nothing else may call ``time``, ``datetime.now``, ``random`` or
``asyncio.sleep``. A test passes a clock it moves by hand (``tests/support/clock.py``), so no test ever waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the system knows of time and chance."""

    def now(self) -> datetime:
        """Return the wall time, aware UTC. It may jump; measure spans with ``monotonic``."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less only yields to other tasks."""

    def random(self) -> float:
        """Return a number in [0, 1), for jitter only: never for secrets."""


class SystemClock:
    """The machine's own time and chance."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def random(self) -> float:
        return random.random()
