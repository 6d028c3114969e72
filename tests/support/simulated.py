"""A daemon's pulling in simulated time: the jobs of the service, called when they are due by a clock that we move.

No scheduler runs and nobody waits: hours pass in seconds, and the CRM's clock moves along. A round takes no time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from syncd.domain.reports import DeliveryReport, RunReport
from syncd.policy.staleness import JITTER_MAX_S, JITTER_SHARE
from syncd.sandbox import Sandbox, World
from syncd.service.accounts import AccountRuntime, opened_accounts
from syncd.service.lease import Lease
from syncd.service.pacing import PacedTransport
from syncd.service.pulls import AccountPulls
from syncd.settings import Settings, resolve_accounts
from syncd.store import Store
from tests.support.clock import ManualClock

LONG_S = 1e9
Check = Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class Told:
    """Keeps the reports of runs."""

    runs: list[RunReport] = field(default_factory=list)

    def run(self, report: RunReport) -> None:
        self.runs.append(report)

    def delivery(self, report: DeliveryReport) -> None:
        raise AssertionError("nothing is delivered here")


@dataclass(slots=True)
class Replica:
    """One daemon: what it remembers is lost when another takes its place."""

    pulls: AccountPulls
    lease: Lease


@dataclass(slots=True)
class Simulated:
    """One account, its CRM, and the daemon that pulls for it."""

    box: Sandbox
    store: Store
    settings: Settings
    runtime: AccountRuntime
    clock: ManualClock
    told: Told

    @property
    def world(self) -> World:
        return self.box.world

    async def replica(self, owner: str = "one") -> Replica:
        """Start a daemon that remembers nothing, and let it try for the lease."""
        lease = Lease(self.store, self.clock, self.runtime.account, owner, LONG_S)
        await lease.renew()
        return Replica(AccountPulls(self.runtime, lease, self.store, self.clock), lease)

    async def pull_all(self) -> None:
        """Pull everything once, as a daemon does that has just become the holder."""
        for report in await self.runtime.puller.pull_all("start"):
            assert report.is_success, report

    async def run(self, seconds: float, *replicas: Replica, until: Check | None = None) -> float | None:
        """Let daemons run so long; return after how many seconds ``until`` came true (None: it did not).

        Each round comes as late as its jitter allows.
        """
        queue: list[tuple[float, int, float, Callable[[], Awaitable[None]]]] = []
        order, started = itertools.count(), self.clock.monotonic()
        for job in (job for replica in replicas for job in replica.pulls.jobs() if job.every_s > 0):
            every_s = job.every_s + min(JITTER_MAX_S, job.every_s * JITTER_SHARE)
            heapq.heappush(queue, (started + every_s, next(order), every_s, job.run))
        while queue and queue[0][0] <= started + seconds:
            at, _, every_s, call = heapq.heappop(queue)
            await self.advance(max(0.0, at - self.clock.monotonic()))
            await call()
            if until is not None and await until():
                return self.clock.monotonic() - started
            heapq.heappush(queue, (at + every_s, next(order), every_s, call))
        await self.advance(max(0.0, started + seconds - self.clock.monotonic()))
        return None

    async def advance(self, seconds: float) -> None:
        """Move both clocks."""
        await self.clock.advance(seconds)
        self.box.clock.advance(seconds)

    async def value(self, query: str) -> object:
        async with self.store.begin() as connection:
            return (await connection.exec_driver_sql(query)).scalar_one()

    def requested(self) -> dict[str, int]:
        """Count the requests so far by operation."""
        return dict(self.box.requests.by_operation)


@asynccontextmanager
async def simulated(store: Store, world: World, now: datetime, **given: object) -> AsyncIterator[Simulated]:
    """Open an account whose settings are the defaults but for ``given``, at ``now`` by both clocks."""
    clock, told = ManualClock(now), Told()
    async with Sandbox(world) as box:
        values = {"base_url": box.base_url, "autorespond_admin": box.admin, "autorespond_key": SecretStr(box.key)}
        settings = Settings(**{**values, "cadence_administration_s": 0, **given})  # type: ignore[arg-type]
        async with opened_accounts(resolve_accounts(settings).configs, store, clock, told) as (runtime,):
            assert isinstance(runtime.transport, PacedTransport)
            runtime.transport.pacer = None  # its waits would wait for a clock that stands while a round is under way
            yield Simulated(box, store, settings, runtime, clock, told)
