"""The simulator's own time: it runs beside the system's or stands still, and a test or the control endpoint moves it.

It is deliberately not ``syncd.clock``: a server's time is the server's, and how far it is from ours is one of the
things to try.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from zoneinfo import ZoneInfo

AMSTERDAM = ZoneInfo("Europe/Amsterdam")


class MovableClock:
    """Server time. Given an instant it stands still there until moved; given none it runs with the system's."""

    def __init__(self, now: datetime | None = None) -> None:
        self._still_at = now.astimezone(UTC) if now else None
        self._ahead = timedelta()

    @property
    def is_still(self) -> bool:
        """Whether time passes only when somebody moves it."""
        return self._still_at is not None

    def now(self) -> datetime:
        """Return the server's instant, aware, in UTC."""
        return self._still_at or datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> datetime:
        """Move time forward (or back, if negative) and return the new instant."""
        return self.set(self.now() + timedelta(seconds=seconds))

    def set(self, at: datetime) -> datetime:
        """Jump to an aware instant; a running clock runs on from there."""
        if self._still_at is None:
            self._ahead = at - datetime.now(UTC)
        else:
            self._still_at = at.astimezone(UTC)
        return self.now()

    def run(self) -> None:
        """Let a clock that stands still run on from where it stands."""
        if self._still_at is not None:
            self._ahead = self._still_at - datetime.now(UTC)
            self._still_at = None


def http_date(at: datetime) -> str:
    """Spell an instant as the ``Date`` and ``Retry-After`` headers want it."""
    return formatdate(at.timestamp(), usegmt=True)


def monotonic() -> float:
    """Return seconds that never go back, for the rate limit alone."""
    return time.monotonic()
