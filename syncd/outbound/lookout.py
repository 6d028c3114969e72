"""Lookout: one look into the outbox and the account's row, from the low-water mark on.

Keeps what ``policy.lowwater`` asks to be kept between looks; the claim reads from the same mark.
"""

from __future__ import annotations

from dataclasses import replace

from syncd.clock import Clock
from syncd.domain.ids import AccountId
from syncd.policy.lowwater import WHOLE, LowWater, Mark
from syncd.store import Store, account_states
from syncd.store.account_states import Outlook


class Lookout:
    """One drainer's eyes. ``within_s``: how far ahead a lane that is not due yet is worth knowing."""

    def __init__(self, store: Store, account_id: AccountId, clock: Clock, *, within_s: float) -> None:
        self._store = store
        self._account_id = account_id
        self._clock = clock
        self._within_s = within_s
        self._water = LowWater()
        self._is_whole = False

    @property
    def mark(self) -> Mark:
        return self._water.mark

    @property
    def is_whole(self) -> bool:
        """Whether the last look missed nothing that had been committed."""
        return self._is_whole

    def insist(self) -> None:
        """Let the next look be whole, whatever it costs."""
        self._water = replace(self._water, whole_at=float("-inf"))

    async def look(self) -> Outlook:
        """Return what there is to do and what forbids it. Raises InfrastructureError."""
        async with self._store.reading() as connection:
            began = self._clock.monotonic()
            start = self._water.reads_from(began)
            outlook = await account_states.look(connection, self._account_id, start, within_s=self._within_s)
            self._water = self._water.seen(outlook.sight, start, began, self._clock.monotonic())
            self._is_whole = start == WHOLE
        return outlook
