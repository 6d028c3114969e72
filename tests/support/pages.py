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
