"""By index: have a transaction reach rows through indexes alone, in the index's own order.

The planner prices a read by how many rows a table has. While anybody's transaction stays open a table that is written
all the time also has their dead versions, thousands for each lane, which no count tells: a plan that gathers all
versions first, to sort or to scan them, is cheap on paper and is the one thing that must never be done. Nor does it
know that there is one lane of each number, until it has counted them: the key is another table's (``lanes_007.sql``).
"""

from __future__ import annotations

from sqlalchemy import text

from syncd.store.engine import Connection

# For the one transaction, and part of a larger statement where there is one (``outbox_stage``).
SETTINGS = "set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
_SET = text(f"SELECT {SETTINGS}")


async def plan_by_index(connection: Connection) -> None:
    """Plan the rest of this transaction so; before its statements about lanes, because a plan once made is kept."""
    await connection.execute(_SET)
