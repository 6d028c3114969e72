"""Pulling in the daemon: which stream when, one at a time per account, by the lease's holder alone.

A round that finds the lease elsewhere, the account paused or the database away does nothing: the next one is due
soon enough. What a pull did is in its own report; what is logged here is only why rounds do not happen, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from syncd import log
from syncd.clock import Clock
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.domain.reports import RunReport
from syncd.service.accounts import AccountRuntime
from syncd.service.database import DatabaseWatch
from syncd.service.lease import Lease
from syncd.service.schedule import Job
from syncd.store import Store
from syncd.store.account_states import look, pause

RETRY_FIRST_S = 5.0


class AccountPulls:
    """One account's rounds. ``jobs`` are what the schedule calls; ``lead`` is what happens on taking the lease."""

    def __init__(self, runtime: AccountRuntime, lease: Lease, store: Store, watch: DatabaseWatch, clock: Clock) -> None:
        self._runtime, self._lease, self._store, self._watch, self._clock = runtime, lease, store, watch, clock
        self._turn = asyncio.Lock()
        self._is_stopping = False
        self._pause_told: str | None = None
        self._log = log.get("syncd.service")

    def jobs(self) -> tuple[Job, ...]:
        """Return one job for each stream that has a cadence; the first round of all is ``lead``'s."""
        cadences = {
            name.removeprefix("cadence_").removesuffix("_s"): float(seconds)
            for name, seconds in self._runtime.config.pull.model_dump().items()
            if name.startswith("cadence_")
        }
        return tuple(
            Job(f"{self._runtime.account.name}/{stream}", every_s, self._round_of(stream), first_s=every_s)
            for stream, every_s in cadences.items()
            if stream in self._runtime.provider.streams and every_s > 0
        )

    async def lead(self) -> None:
        """Whenever this replica becomes the holder, pull everything once in the right order; runs until cancelled."""
        while True:
            await self._lease.taken.wait()
            await self._round(self._pull_all)
            while self._lease.is_held:
                await self._clock.sleep(1.0)
            self._lease.taken.clear()

    async def finish(self) -> None:
        """Start no new round and wait for the one under way."""
        self._is_stopping = True
        async with self._turn:
            return

    def _round_of(self, stream: str) -> Callable[[], Awaitable[None]]:
        async def pull() -> tuple[RunReport, ...]:
            return (await self._runtime.puller.pull(stream, "schedule"),)

        async def round_of_stream() -> None:  # APScheduler runs coroutine functions alone on the loop
            await self._round(pull)

        return round_of_stream

    async def _pull_all(self) -> tuple[RunReport, ...]:
        return await self._runtime.puller.pull_all("start")

    async def _round(self, pull: Callable[[], Awaitable[tuple[RunReport, ...]]]) -> None:
        """Run one round if it may run; the boundary at which a failed one is reported and forgotten."""
        async with self._turn:
            try:
                if await self._may_pull():
                    await self._judge(await pull())
            except (InfrastructureError, ConfigurationError) as error:
                self._watch.lost(error)
            except Exception as error:  # noqa: BLE001 (one broken round must not end the daemon)
                self._log.error("round.crashed", account=self._runtime.account.name, exc_info=error)

    async def _may_pull(self) -> bool:
        if self._is_stopping or not self._lease.is_held:
            return False
        async with self._store.begin() as connection:
            outlook = await look(connection, self._runtime.account.id)
        self._watch.found()
        self._tell_pause(outlook.paused)
        return outlook.paused is None

    async def _judge(self, reports: tuple[RunReport, ...]) -> None:
        """Pause the account when its credentials or its host are the trouble; the drainer's probe lifts the pause."""
        fault = next((report for report in reports if report.is_fault), None)
        if fault is None:
            return
        async with self._store.begin() as connection:
            await pause(connection, self._runtime.account.id, fault.reason or "the CRM refuses us")

    def _tell_pause(self, reason: str | None) -> None:
        """Log the edges of a pause."""
        if reason is not None and self._pause_told is None:
            self._log.warning("account.paused", account=self._runtime.account.name, reason=reason)
        if reason is None and self._pause_told is not None:
            self._log.warning("account.resumed", account=self._runtime.account.name)
        self._pause_told = reason
