"""Draining in the daemon: one loop per account, on every replica, that outlives a database that goes away."""

from __future__ import annotations

import asyncio

from syncd import log
from syncd.clock import Clock
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.service.accounts import AccountRuntime
from syncd.service.database import DatabaseWatch

CRASH_PAUSE_S = 5.0


async def keep_draining(runtime: AccountRuntime, watch: DatabaseWatch, clock: Clock, stop: asyncio.Event) -> None:
    """Drain until told to stop; start again when the database is back, and after a crash with a pause."""
    while not stop.is_set():
        try:
            await runtime.drainer.run(stop)
        except (InfrastructureError, ConfigurationError):
            await watch.until_it_answers(stop)
            await watch.pause(1.0, stop)
        except Exception as error:  # noqa: BLE001 (one broken entry must not end the daemon)
            log.get("syncd.service").error("drain.crashed", account=runtime.account.name, exc_info=error)
            await watch.pause(CRASH_PAUSE_S, stop)
