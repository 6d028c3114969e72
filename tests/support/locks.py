"""Waiting until a session of the database waits for a lock: no time is guessed."""

from __future__ import annotations

import asyncio

from syncd.store import Store
from tests.support.outbox import rows

_BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def until_blocked(store: Store, *, or_done: asyncio.Task[object] | None = None) -> None:
    """Return when somebody stands behind somebody else's lock, or when this task has ended without that."""
    async with asyncio.timeout(20):
        while not await rows(store, _BLOCKED) and not (or_done is not None and or_done.done()):
            pass
