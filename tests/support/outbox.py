"""A circle for the outbox: a simulator, its mirror in Postgres, and drainers between the two."""

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
from syncd.inbound import Puller, PullPolicy
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth, Provider, ProviderOptions
from syncd.sandbox import Sandbox, World
from syncd.store import Connection, Store
from syncd.store.accounts import ensure_account
from syncd.store.outbox import retry_entries, skip_entries, stage
from syncd.transport import Transport

GUARDED = frozenset({"subscribe", "subscribe_with_consent", "unsubscribe", "end_subscription"})
# Small times, so that a test that waits out a back-off is quick.
QUICK = DrainLimits(concurrency=4, backoff_s=0.02, backoff_max_s=0.1, poll_interval_s=0.01, patience_s=2.0, lease_s=30)


async def rows(store: Store, sql: str, **binds: Any) -> list[dict[str, Any]]:
    """Run a query and return its rows as dictionaries."""
    async with store.begin() as connection:
        return [dict(row) for row in (await connection.execute(text(sql), binds)).mappings()]


async def run_sql(store: Store, sql: str, **binds: Any) -> None:
    """Run a statement as an application would: in a transaction of its own."""
    async with store.begin() as connection:
        await connection.execute(text(sql), binds)


async def remote_sql(store: Store, sql: str, **binds: Any) -> None:
    """Run a statement as a pull would: nothing of it is captured."""
    async with store.begin_remote() as connection:
        await connection.execute(text(sql), binds)


async def new_account(store: Store, name: str = "default") -> Account:
    async with store.begin_remote() as connection:
        return await ensure_account(connection, name, "autorespond")


async def stage_all(store: Store) -> int:
    """Stage until nothing is left."""
    total = 0
    while True:
        async with store.begin() as connection:
            staged = await stage(connection)
        if not staged:
            return total
        total += staged


async def skip_entry(connection: Connection, entry_id: int, **given: Any) -> bool:
    """Give up one entry; return whether a worker had it in hand."""
    return bool(await skip_entries(connection, [entry_id], **given))


async def retry_entry(connection: Connection, entry_id: int, **given: Any) -> None:
    """Send one entry again."""
    await retry_entries(connection, [entry_id], **given)


@dataclass
class Circle:
    """One account, mirrored by hand; local ids equal the simulator's, which keeps tests readable."""

    store: Store
    sandbox: Sandbox
    account: Account
    transport: Transport
    provider: Provider
    reports: list[DeliveryReport] = field(default_factory=list)

    def drainer(self, limits: DrainLimits = QUICK, **changes: Any) -> Drainer:
        return Drainer(
            self.store,
            self.provider,
            self.transport,
            SystemClock(),
            self.account,
            replace(limits, **changes),
            self.reports.append,
        )

    async def drain(self, limits: DrainLimits = QUICK, **changes: Any) -> DrainReport:
        async with asyncio.timeout(30):
            return await self.drainer(limits, **changes).drain()

    async def pull(self, *streams: str, policy: PullPolicy | None = None) -> RunReport:
        """Pull streams one after the other; return the last report."""
        puller = Puller(
            self.store,
            self.provider,
            self.transport,
            SystemClock(),
            self.account,
            policy or PullPolicy(),
            lambda _: None,
        )
        for stream in streams:
            report = await puller.pull(stream)
        return report

    async def edit(self, sql: str, **binds: Any) -> None:
        await run_sql(self.store, sql, account_id=self.account.id, **binds)

    async def entries(self) -> list[dict[str, Any]]:
        return await rows(self.store, "SELECT * FROM syncd.entries ORDER BY lane_id, seq")

    async def lanes(self) -> list[dict[str, Any]]:
        return await rows(self.store, "SELECT * FROM syncd.lanes ORDER BY id")

    async def wake(self) -> None:
        """Let every lease, back-off and settle window be over, as time would."""
        await run_sql(self.store, "UPDATE syncd.entries SET next_attempt_at = now() WHERE next_attempt_at > now()")
        await run_sql(self.store, "UPDATE syncd.lanes SET profile_lands_until = NULL, address_lands_until = NULL")
        await run_sql(self.store, "UPDATE syncd.lanes SET ready_at = now() WHERE ready_at > now()")


@asynccontextmanager
async def circle(
    store: Store,
    *,
    relations: int = 6,
    options: ProviderOptions | None = None,
    key: str | None = None,
    through: type[Transport] = Transport,
) -> AsyncIterator[Circle]:
    """Start a simulator and mirror its relations, tags, fields, groups and lists. ``through``: how to talk to it."""
    world = World.seeded(relations=relations, orders=4, invoices=0, seed=7)
    async with Sandbox(world) as sandbox:
        account = await new_account(store)
        await mirror(store, account, world)
        auth = Auth(query={"admin": sandbox.admin, "key": key or sandbox.key})
        transport = through.open(sandbox.base_url, auth, clock=SystemClock())
        try:
            chosen = provider(options or ProviderOptions(allowed_operations=GUARDED))
            yield Circle(store, sandbox, account, transport, chosen)
        finally:
            await transport.close()


async def mirror(store: Store, account: Account, world: World) -> None:
    async with store.begin_remote() as connection:
        for table, columns, given in _tables(world):
            names = ", ".join(columns)
            places = ", ".join(f":{name}" for name in columns)
            sql = text(f"INSERT INTO crm.{table} (id, account_id, {names}) VALUES (:id, :account_id, {places})")
            for values in given:
                await connection.execute(sql, {"account_id": account.id, **values})
            beyond = f"SELECT setval(pg_get_serial_sequence('crm.{table}', 'id'), max(id)) FROM crm.{table}"
            await connection.execute(text(beyond))


def _tables(world: World) -> list[tuple[str, tuple[str, ...], list[dict[str, Any]]]]:
    return [
        (
            "relations",
            ("remote_id", "email", "first_name", "last_name", "gender"),
            [
                {"id": r.id, "remote_id": str(r.id), "email": r.email, "first_name": r.first_name}
                | {"last_name": r.last_name, "gender": r.gender}
                for r in world.relations.values()
            ],
        ),
        (
            "tags",
            ("remote_id", "name"),
            [{"id": t.id, "remote_id": str(t.id), "name": t.name} for t in world.tags.values()],
        ),
        (
            "fields",
            ("code", "name", "is_writable"),
            [{"id": f.id, "code": f.code, "name": f.name, "is_writable": True} for f in world.fields.values()],
        ),
        (
            "groups",
            ("remote_id", "title"),
            [{"id": g.id, "remote_id": str(g.id), "title": g.title} for g in world.groups.values()],
        ),
        (
            "lists",
            ("remote_id", "name"),
            [{"id": m.id, "remote_id": str(m.id), "name": m.name} for m in world.lists.values()],
        ),
    ]
