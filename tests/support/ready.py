"""Whether the tables that triggers keep say what the lanes say."""

from __future__ import annotations

from syncd.store import Store
from tests.support.outbox import rows

# In one snapshot: a lane without its time, a time without its lane, or two of one lane.
UNKEPT = """
    SELECT coalesce(l.id, r.lane_id) AS lane_id, l.ready_at AS lane_says, r.ready_at AS found
    FROM (SELECT id, account_id, ready_at FROM syncd.lanes WHERE ready_at IS NOT NULL) AS l
    FULL JOIN syncd.ready r ON r.lane_id = l.id AND r.account_id = l.account_id AND r.ready_at = l.ready_at
    WHERE l.id IS NULL OR r.lane_id IS NULL
"""


# A lane without its key, or a key without its lane.
UNKEYED = """
    (SELECT id, account_id, relation_id FROM syncd.lanes EXCEPT SELECT * FROM syncd.lane_keys)
    UNION ALL
    (SELECT * FROM syncd.lane_keys EXCEPT SELECT id, account_id, relation_id FROM syncd.lanes)
"""


async def unkept(store: Store) -> list[dict[str, object]]:
    """Return where the times differ."""
    return await rows(store, UNKEPT)


async def unkeyed(store: Store) -> list[dict[str, object]]:
    """Return where the keys differ."""
    return await rows(store, UNKEYED)
