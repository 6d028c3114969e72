"""Relations whose addresses change hands: edits, refusals and decisions, in the words of their tests."""

from __future__ import annotations

import asyncio

from syncd.store import Store
from tests.support.outbox import Circle, rows, skip_entry

MOVE = "UPDATE crm.relations SET email = :email WHERE id = :id"
MAKE = "INSERT INTO crm.relations (account_id, email, first_name) VALUES (:account_id, :email, 'Newcomer')"


async def move(c: Circle, relation_id: int, email: str) -> None:
    await c.edit(MOVE, id=relation_id, email=email)


async def refused(c: Circle, relation_id: int, email: str) -> int:
    """Change an address, and let the CRM refuse it; return the entry, which waits for a person now."""
    c.sandbox.faults.add("status", status=400, operation="relation_email", times=1)
    await move(c, relation_id, email)
    await c.drain()
    (dead,) = await rows(
        c.store, "SELECT id FROM syncd.entries WHERE status = 'dead' AND relation_id = :id", id=relation_id
    )
    return int(dead["id"])


async def until_found(store: Store, sql: str, **binds: int) -> None:
    """Wait until a query finds something that others write."""
    async with asyncio.timeout(10):
        while not await rows(store, sql, **binds):  # noqa: ASYNC110 - a table announces nothing
            await asyncio.sleep(0.01)


async def give_up(c: Circle, entry_id: int) -> None:
    async with c.store.begin() as connection:
        await skip_entry(connection, entry_id)


def email_of(c: Circle, relation_id: int) -> str:
    return c.sandbox.world.relations[relation_id].email


def people(c: Circle) -> dict[str, str | None]:
    return {relation.email: relation.first_name for relation in c.sandbox.world.relations.values()}
