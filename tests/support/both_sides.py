"""Both sides at once: a simulated CRM that is edited by its own people, a mirror that an application edits, pulls and
drains between them.

Two clocks: pulls live by one that a test moves, together with the CRM's; deliveries by the real one, which the database
shares. Back-offs and leases are ended by ``wake``, as time would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import text

from syncd.clock import SystemClock
from syncd.domain.account import Account
from syncd.domain.reports import DeliveryReport, DrainReport, RunReport
from syncd.inbound import ORDER, Puller, PullPolicy
from syncd.outbound import Drainer, DrainLimits
from syncd.policy.merge import Owners
from syncd.providers.autorespond import provider
from syncd.providers.contract import Provider, ProviderOptions
from syncd.sandbox import Sandbox, World
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.transport import Transport
from tests.support.clock import ManualClock
from tests.support.outbox import GUARDED, QUICK
from tests.support.pulling import NOON, POLICY

# Nothing lands late here, so nothing need be said once more.
LIMITS = replace(QUICK, concurrency=2, patience_s=0.0, settle_window_s=0.0, read_back_share=0.0)


@dataclass(slots=True)
class BothSides:
    """One account in both places; ``limits`` and ``policy`` are those of the next drain and pull."""

    box: Sandbox
    store: Store
    account: Account
    clock: ManualClock
    crm: Provider
    pulling: Transport
    sending: Transport
    limits: DrainLimits
    policy: PullPolicy
    runs: list[RunReport] = field(default_factory=list)
    deliveries: list[DeliveryReport] = field(default_factory=list)

    @property
    def world(self) -> World:
        return self.box.world

    async def pull(self, *streams: str) -> RunReport:
        """Pull streams one after the other, all of them unless named; return the last report."""
        for stream in streams or (name for name in ORDER if name != "invoice_files"):
            report = await self.puller.pull(stream)
        return report

    @property
    def puller(self) -> Puller:
        return Puller(self.store, self.crm, self.pulling, self.clock, self.account, self.policy, self.runs.append)

    async def drain(self, **changes: Any) -> DrainReport:
        drainer = Drainer(
            self.store,
            self.crm,
            self.sending,
            SystemClock(),
            self.account,
            replace(self.limits, **changes),
            self.deliveries.append,
        )
        async with asyncio.timeout(30):
            return await drainer.drain()

    async def advance(self, seconds: float) -> None:
        """Move the CRM's clock and the pulls'."""
        await self.clock.advance(seconds)
        self.box.clock.advance(seconds)

    async def wake(self) -> None:
        """Let every lease and back-off be over, as time would."""
        await self.edit(
            "UPDATE syncd.entries SET next_attempt_at = now() WHERE next_attempt_at > now()",
            "UPDATE syncd.lanes SET profile_lands_until = NULL, address_lands_until = NULL",
            "UPDATE syncd.lanes SET ready_at = now() WHERE ready_at > now()",
            "UPDATE syncd.account_states SET throttled_until = NULL, next_probe_at = now() WHERE account_id = :account",
            "UPDATE syncd.account_states SET limits = jsonb_set(limits, '{breaking,probe_at}', '0')"
            " WHERE account_id = :account AND limits #> '{breaking}' IS NOT NULL",
        )

    async def edit(self, *statements: str, **binds: Any) -> None:
        """Edit the mirror as an application does, in one transaction; ``:account`` is bound."""
        async with self.store.begin() as connection:
            for statement in statements:
                given = {"account": self.account.id, **binds}
                await connection.execute(text(statement), {n: v for n, v in given.items() if f":{n}" in statement})

    async def rows(self, query: str, **binds: Any) -> list[tuple[Any, ...]]:
        """Read the database, in a transaction of its own; ``:account`` is bound."""
        async with self.store.begin() as connection:
            given = {"account": self.account.id, **binds}
            found = await connection.execute(text(query), {n: v for n, v in given.items() if f":{n}" in query})
            return [tuple(row) for row in found]

    async def value(self, query: str, **binds: Any) -> Any:
        return (await self.rows(query, **binds))[0][0]


@asynccontextmanager
async def both_sides(
    store: Store, world: World, *, owners: Owners | None = None, name: str = "default", faults_seed: int = 1
) -> AsyncIterator[BothSides]:
    """Start a simulator on a world that stands at noon, and what keeps its mirror in step."""
    async with Sandbox(world, seed=faults_seed) as box:
        crm = provider(ProviderOptions(administration=box.admin, allowed_operations=GUARDED))
        auth, clock = crm.auth({"admin": box.admin, "key": box.key}), ManualClock(NOON)
        pulling = Transport.open(box.base_url, auth, clock=clock)
        sending = Transport.open(box.base_url, auth, clock=SystemClock())
        async with store.begin_remote() as connection:
            account = await ensure_account(connection, name, crm.name)
        chosen = owners or Owners()
        limits, policy = replace(LIMITS, owners=chosen), replace(POLICY, owners=chosen, grace_s=0.0)
        try:
            yield BothSides(box, store, account, clock, crm, pulling, sending, limits, policy)
        finally:
            await pulling.close()
            await sending.close()
