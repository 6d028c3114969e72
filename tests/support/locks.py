"""Waiting until a session of the database waits for a lock: no time is guessed."""

from __future__ import annotations

import asyncio

from syncd.store import Store
from tests.support.outbox import rows

_BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def until_blocked(store: Store) -> None:
    """Return when somebody stands behind somebody else's lock."""
    async with asyncio.timeout(20):
        while not await rows(store, _BLOCKED):
            pass
