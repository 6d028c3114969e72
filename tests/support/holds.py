"""Builders around the guard: an account that is guarded tightly, bursts as an application makes them, holds as rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from syncd.domain.account import Account
from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.store import Store
from syncd.store.outbox import Sightings, Stager, carry_out, decide, set_guard, stage
from tests.support.claims import account_with
from tests.support.outbox import rows

TIGHT = Guard(relations=10, share=0, window_s=60)


async def guarded(store: Store, relations: int = 60, guard: Guard | None = TIGHT) -> Account:
    """An account with bound relations 1.. and tags 1..5, under a guard."""
    account = await account_with(store, relations)
    async with store.begin() as connection:
        await set_guard(connection, account.id, guard)
    return account


async def burst(store: Store, first: int, last: int, *, tag: int = 1, ago_s: float = 0.0) -> None:
    """Tag relations first..last in one transaction, made so long ago."""
    async with store.begin() as connection:
        await connection.execute(
            text(
                """INSERT INTO crm.relation_tags (relation_id, tag_id)
                   SELECT n, :tag FROM generate_series(CAST(:a AS integer), :b) n"""
            ),
            {"tag": tag, "a": first, "b": last},
        )
        if ago_s:
            await connection.execute(
                text(
                    """UPDATE syncd.captures SET captured_at = captured_at - make_interval(secs => :ago_s)
                       WHERE xact = pg_current_xact_id()"""
                ),
                {"ago_s": ago_s},
            )


async def staged(store: Store, *, most: int = 5000, sightings: Sightings | None = None) -> int:
    """Stage one batch."""
    async with store.begin() as connection:
        return await stage(connection, Stager(sightings or Sightings()), most=most) or 0


async def staged_all(store: Store, *, most: int = 5000, sightings: Sightings | None = None) -> None:
    while await staged(store, most=most, sightings=sightings):
        pass


async def decided(store: Store, hold_id: int, status: HoldStatus, *, most: int = 1000) -> int:
    """Decide and carry out; return how many entries followed."""
    async with store.begin() as connection:
        await decide(connection, hold_id, status, "jan", "as planned")
    return await carried_out(store, hold_id, most=most)


async def carried_out(store: Store, hold_id: int, *, most: int = 1000) -> int:
    return sum([moved async for moved in carry_out(store, hold_id, most=most)])


async def holds(store: Store) -> list[dict[str, Any]]:
    return await rows(store, "SELECT * FROM syncd.holds ORDER BY id")


async def relations_in(store: Store, status: str) -> list[int]:
    found = await rows(store, "SELECT relation_id FROM syncd.entries WHERE status = :s ORDER BY relation_id", s=status)
    return [row["relation_id"] for row in found]
