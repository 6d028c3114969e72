"""How many pages of the database a statement touches: what it costs, told without any noise of time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from syncd.store import Connection


async def explained(connection: Connection, statement: str, binds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run a statement and return the top node of its plan, with what it touched."""
    told = (await connection.execute(text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"), binds)).scalar_one()
    plan: dict[str, Any] = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]
    return plan


async def pages(connection: Connection, statement: str, binds: Mapping[str, Any] | None = None) -> int:
    """Run a statement and return how many pages it touched, in memory or not."""
    return touched(await explained(connection, statement, binds))


def touched(plan: Mapping[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def pages_so_far(connection: Connection) -> int:
    """Return how many pages of syncd's and the mirror's tables and indexes this session has touched, by its own count.

    It is reset now and then, but never within a transaction: compare two of one. What others do is not in it.
    """
    counted = await connection.execute(
        text(
            """SELECT sum(pg_stat_get_xact_blocks_fetched(c.oid)) FROM pg_class c
               WHERE c.relnamespace IN ('syncd'::regnamespace, 'crm'::regnamespace) AND c.relkind IN ('r', 'i')"""
        )
    )
    return int(counted.scalar_one())
