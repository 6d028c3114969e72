"""Undelivered: the local changes that an answer must not overwrite (G5).

Three kinds count: captured and not staged yet, staged and not delivered, and delivered after the answer was asked
for. Read this *after* the rows it protects were read or locked, in a statement of its own: an edit that was committed
before those rows were read is then certainly among the captures or entries seen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import text

from syncd.domain.changes import LocalChange, decode_change
from syncd.policy.states import UNDELIVERED
from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope

_CHANGES = text("""
    SELECT relation_id, operation, CAST(payload AS text) AS payload, 0 AS part, seq AS position
    FROM (SELECT e.relation_id, e.operation, e.payload, e.seq
          FROM syncd.lanes l JOIN syncd.entries e ON e.lane_id = l.id
          WHERE l.account_id = :account_id AND l.relation_id = ANY(CAST(:ids AS bigint[]))
            AND (e.status = ANY(CAST(:undelivered AS text[])) OR e.settled_at >= :asked_at)) AS staged
    UNION ALL
    SELECT relation_id, operation, CAST(payload AS text), 1, id
    FROM syncd.captures
    WHERE relation_id = ANY(CAST(:ids AS bigint[]))
    ORDER BY part, position
""")


async def undelivered(
    connection: Connection, scope: Scope, relation_ids: Sequence[int]
) -> Mapping[int, tuple[LocalChange, ...]]:
    """Return the protecting changes of each relation that has any, in commit order."""
    if not relation_ids:
        return {}
    values = {
        "account_id": scope.account_id,
        "ids": list(relation_ids),
        "undelivered": sorted(UNDELIVERED),
        "asked_at": scope.asked_at,
    }
    found: dict[int, tuple[LocalChange, ...]] = {}
    for row in await connection.execute(_CHANGES, values):
        change = _readable(row.operation, row.payload)
        if change is not None:
            found[row.relation_id] = (*found.get(row.relation_id, ()), change)
    return found


def _readable(operation: str, payload: str) -> LocalChange | None:
    """Decode a change; one that nobody can read protects nothing, and must not stop every pull of its relation."""
    try:
        return decode_change(operation, payload)
    except (KeyError, msgspec.DecodeError):
        return None
