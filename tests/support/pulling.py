"""A circle to pull in: a simulated CRM, a real database, a puller, and two clocks that only a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from syncd.domain.account import Account
from syncd.domain.reports import RunReport
from syncd.inbound import Puller, PullPolicy
from syncd.policy.windows import WindowRule
from syncd.providers.autorespond import provider
from syncd.providers.contract import ProviderOptions
from syncd.sandbox import Sandbox, Switches, World
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.transport import Transport
from tests.support.clock import ManualClock

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
POLICY = PullPolicy(window=WindowRule(horizon_s=3650 * 86400.0))


@dataclass(slots=True)
class Circle:
    """One account in both places. ``reports`` are those of every run so far."""

    box: Sandbox
    store: Store
    transport: Transport
    puller: Puller
    account: Account
    clock: ManualClock
    reports: list[RunReport] = field(default_factory=list)

    @property
    def world(self) -> World:
        return self.box.world

    async def pull(self, *streams: str) -> RunReport:
        """Pull streams one after the other; return the last report."""
        for stream in streams:
            report = await self.puller.pull(stream)
        return report

    async def advance(self, seconds: float) -> None:
        """Move both clocks."""
        await self.clock.advance(seconds)
        self.box.clock.advance(seconds)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the database, in a transaction of its own."""
        async with self.store.begin() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(query)]

    async def value(self, query: str) -> Any:
        return (await self.rows(query))[0][0]

    async def edit(self, *statements: str) -> None:
        """Edit the mirror as an application does, in one transaction."""
        async with self.store.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    def requested(self, operation: str) -> int:
        """Count the requests of an operation so far."""
        return sum(1 for line in self.box.requests if line.operation == operation)


@asynccontextmanager
async def circle(
    store: Store,
    *,
    relations: int = 10,
    orders: int = 30,
    invoices: int = 20,
    policy: PullPolicy = POLICY,
    switches: Switches | None = None,
    key: str | None = None,
    world: World | None = None,
    now: datetime = NOON,
    time_zone: str = "Europe/Amsterdam",
) -> AsyncIterator[Circle]:
    """Start a simulator with a seeded world at noon (or ``now``), and a puller that knows it as account ``default``."""
    seeded = world or World.seeded(relations, orders, invoices, seed=7, now=now)
    async with Sandbox(seeded, switches) as box:
        crm = provider(ProviderOptions(administration=box.admin, time_zone=time_zone))
        clock = ManualClock(now)
        transport = Transport.open(box.base_url, crm.auth({"admin": box.admin, "key": key or box.key}), clock=clock)
        async with store.begin_remote() as connection:
            account = await ensure_account(connection, "default", crm.name)
        reports: list[RunReport] = []
        puller = Puller(store, crm, transport, clock, account, policy, reports.append)
        try:
            yield Circle(box, store, transport, puller, account, clock, reports)
        finally:
            await transport.close()
