"""Pulling in the daemon: which stream when, by the lease's holder alone.

Each account has two turns, one for what is quick (snapshots, windows) and one for what goes row by row (sweeps,
follow-ups): a sweep of minutes must not delay the orders of this minute. Both keep to one rate.

A round that finds the lease elsewhere, the account held or the database away does nothing: the next one is due soon
enough. What a pull did is in its own report; what is logged here is only what broke.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

from syncd import log
from syncd.clock import Clock
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.inbound import ORDER
from syncd.policy.breaker import BreakerState
from syncd.providers.contract import StreamKind
from syncd.service.accounts import AccountRuntime
from syncd.service.lease import Lease
from syncd.service.schedule import Job
from syncd.settings import PullSettings
from syncd.store import Store
from syncd.store.account_states import look, note_clock

LOOK_S = 1.0
FIRST_RETRY_S, LONGEST_RETRY_S = 5.0, 120.0
LATEST_FIRST_S = 3600.0  # a rung of a day must also be reached by a process that is restarted daily


class AccountPulls:
    """One account's rounds. ``jobs`` are what the schedule calls; ``lead`` is what happens on taking the lease."""

    def __init__(self, runtime: AccountRuntime, lease: Lease, store: Store, clock: Clock) -> None:
        self._runtime, self._lease, self._store, self._clock = runtime, lease, store, clock
        self._log = log.get("syncd.service").bind(account=runtime.account.name)
        self._is_postponed = False
        self._quick, self._slow = asyncio.Lock(), asyncio.Lock()
        self._is_stopping = False

    def jobs(self) -> tuple[Job, ...]:
        """Return the cadence ladder as jobs: each stream often, windows more widely now and then."""
        return tuple(self._jobs())

    async def lead(self) -> None:
        """Whenever this replica becomes the holder, pull everything once in the right order; runs until cancelled."""
        while True:
            await self._lease.taken.wait()
            await self._recover()
            await self._first_round()
            while self._lease.is_held:
                await self._clock.sleep(LOOK_S)
            self._lease.taken.clear()

    async def finish(self) -> None:
        """Start no new round and wait for the one under way."""
        self._is_stopping = True
        async with self._quick, self._slow:
            return

    def _jobs(self) -> Iterator[Job]:
        pull, name = self._runtime.config.pull, self._runtime.account.name
        for stream, every_s in cadences(pull).items():
            if stream in self._runtime.provider.streams:
                yield Job(f"{name}/{stream}", every_s, self._round_of(stream), every_s)
        rungs = (
            ("reread", pull.reread_every_s, pull.reread_hours * 3600.0),
            ("deep_reread", pull.deep_reread_every_s, pull.deep_reread_days * 86400.0),
        )
        for stream in (s.name for s in self._runtime.provider.streams.values() if s.kind is StreamKind.WINDOW):
            for rung, every_s, reach_s in rungs:
                pull_it = self._round_of(stream, reach_s)
                yield Job(f"{name}/{stream}/{rung}", every_s, pull_it, min(every_s, LATEST_FIRST_S))

    def _round_of(self, stream: str, reach_s: float = 0) -> Callable[[], Awaitable[None]]:
        async def round_of_stream() -> None:  # APScheduler runs coroutine functions alone on the loop
            await self._round(stream, "schedule", reach_s)

        return round_of_stream

    async def _recover(self) -> None:
        """Close the runs that the holder before us left open."""
        try:
            await self._runtime.puller.recover()
        except (InfrastructureError, ConfigurationError) as error:
            self._postpone(error)

    async def _first_round(self) -> None:
        """Pull everything once, again with growing pauses while the account or the database is the trouble."""
        retry_s = FIRST_RETRY_S
        while self._lease.is_held and not await self._pull_all():
            await self._clock.sleep(retry_s)
            retry_s = min(LONGEST_RETRY_S, retry_s * 2)

    async def _pull_all(self) -> bool:
        """Pull every stream, each in its turn, so that what falls due meanwhile need not wait for all."""
        known = [stream for stream in ORDER if stream in self._runtime.provider.streams]
        switched_off = {stream for stream, every_s in cadences(self._runtime.config.pull).items() if every_s <= 0}
        for stream in known:
            if stream not in switched_off and not await self._round(stream, "start"):
                return False
        return True

    async def _round(self, stream: str, trigger: str, reach_s: float = 0) -> bool:
        """Run one round if it may run; tell whether it ran without trouble. The boundary at which a crash ends."""
        async with self._turn_of(stream):
            try:
                if not await self._may_pull():
                    return False
                report = await self._runtime.puller.pull(stream, trigger, reach_s=reach_s)
                await self._note_clock()
            except (InfrastructureError, ConfigurationError) as error:
                self._postpone(error)
                return False
            except Exception as error:  # noqa: BLE001 (one broken round must not end the daemon)
                self._log.error("round.crashed", stream=stream, exc_info=error)
                return False
        self._resume()
        return not report.is_fault

    def _turn_of(self, stream: str) -> asyncio.Lock:
        is_slow = self._runtime.provider.streams[stream].kind in (StreamKind.SWEEP, StreamKind.FOLLOW_UP)
        return self._slow if is_slow else self._quick

    async def _may_pull(self) -> bool:
        """Ask the database; a pause or a breaker is logged by the drainer, which also finds out when it is over."""
        if self._is_stopping or not self._lease.is_held:
            return False
        async with self._store.begin() as connection:
            outlook = await look(connection, self._runtime.account.id)
        is_broken = outlook.breaker_state != BreakerState.CLOSED
        return outlook.paused is None and not is_broken and outlook.throttled_s <= 0

    async def _note_clock(self) -> None:
        """Keep what the answers' dates said, for the status page."""
        skew_s = self._runtime.transport.clock_skew_s
        if skew_s is not None:
            async with self._store.begin() as connection:
                await note_clock(connection, self._runtime.account.id, skew_s)

    def _postpone(self, error: InfrastructureError | ConfigurationError) -> None:
        """The database or the disk let a round down; logged once, until a round goes well."""
        if not self._is_postponed:
            self._log.warning("pulls.postponed", reason=str(error))
        self._is_postponed = True

    def _resume(self) -> None:
        if self._is_postponed:
            self._log.info("pulls.resumed")
        self._is_postponed = False


def cadences(pull: PullSettings) -> Mapping[str, float]:
    """Return seconds by stream name; 0 switches a stream off."""
    prefix, suffix = "cadence_", "_s"
    return {
        name.removeprefix(prefix).removesuffix(suffix): float(getattr(pull, name))
        for name in PullSettings.model_fields
        if name.startswith(prefix)
    }
