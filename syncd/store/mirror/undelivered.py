"""Undelivered: the local changes that an answer must not overwrite (G5), and the fields that wait for a person.

Three kinds protect: captured and not staged yet, staged and not delivered, and delivered after the answer was asked
for. A change that was given up since the row was last written protects nothing; it only tells what was agreed on before
it. Read this *after* the rows it protects were read or locked, in a statement of its own: an edit that was committed
before those rows were read is then certainly among the captures or entries seen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import text

from syncd.domain.changes import LocalChange, read_change
from syncd.policy.merge import Edit, Trail
from syncd.policy.states import UNDELIVERED
from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope

# "Possibly sent" is said too often rather than too rarely: an echo taken for news would be a conflict with ourselves.
_CHANGES = text("""
    SELECT relation_id, operation, CAST(payload AS text) AS payload, captured_at, is_sent, is_delivered, is_given_up,
           0 AS part, seq AS position
    FROM (SELECT e.relation_id, e.operation, e.payload, e.seq, e.captured_at, e.status = 'skipped' AS is_given_up,
                 e.status IN ('verified', 'accepted', 'superseded') AS is_delivered,
                 e.attempts > 0 OR e.is_uncertain OR e.status NOT IN ('pending', 'held', 'skipped')
                     OR e.seq <= l.sending_upto AS is_sent
          FROM syncd.lanes l
          JOIN syncd.entries e ON e.lane_id = l.id
          JOIN crm.relations r ON r.id = l.relation_id
          WHERE l.account_id = :account_id AND l.relation_id = ANY(CAST(:ids AS bigint[]))
            AND (e.status = ANY(CAST(:undelivered AS text[]))
                 OR (e.status <> 'skipped' AND e.settled_at >= :asked_at)
                 OR (e.status = 'skipped' AND e.settled_at > r.changed_at))) AS staged
    UNION ALL
    SELECT relation_id, operation, CAST(syncd.payload_of(operation, facet, payload, before, after) AS text),
           captured_at, false, false, false, 1, id
    FROM syncd.captures
    WHERE relation_id = ANY(CAST(:ids AS bigint[]))
    ORDER BY part, position
""")
_HELD = text("""
    SELECT row_id, field, base, noticed_at FROM syncd.conflicts
    WHERE account_id = :account_id AND table_name = :table_name AND status = 'open'
      AND row_id = ANY(CAST(:ids AS bigint[]))
""")


async def undelivered(
    connection: Connection, scope: Scope, relation_ids: Sequence[int]
) -> Mapping[int, tuple[Edit, ...]]:
    """Return the local changes of each relation that has any, in commit order."""
    if not relation_ids:
        return {}
    values = {
        "account_id": scope.account_id,
        "ids": list(relation_ids),
        "undelivered": sorted(UNDELIVERED),
        "asked_at": scope.asked_at,
    }
    found: dict[int, tuple[Edit, ...]] = {}
    for row in await connection.execute(_CHANGES, values):
        change = _readable(row.operation, row.payload)
        if change is not None:
            edit = Edit(change, row.captured_at, bool(row.is_sent), row.is_delivered, row.is_given_up)
            found[row.relation_id] = (*found.get(row.relation_id, ()), edit)
    return found


async def held(
    connection: Connection, scope: Scope, table: str, relation_ids: Sequence[int]
) -> Mapping[int, Mapping[str, Trail]]:
    """Return the fields of each relation that an open conflict protects from being overwritten until it is decided."""
    if not relation_ids:
        return {}
    values = {"account_id": scope.account_id, "table_name": table, "ids": list(relation_ids)}
    found: dict[int, dict[str, Trail]] = {}
    for row in await connection.execute(_HELD, values):
        found.setdefault(row.row_id, {})[row.field] = Trail(row.base, row.noticed_at)
    return found


def _readable(operation: str, payload: str) -> LocalChange | None:
    """Decode a change; one that nobody can read protects nothing, and must not stop every pull of its relation."""
    return read_change(operation, payload)[0]
