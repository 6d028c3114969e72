"""Conflicts: a column that both sides moved away from what they last agreed on is written down, never passed over."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from syncd.policy.merge import Conflict
from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope

_NOTICE = text("""
    INSERT INTO syncd.conflicts (account_id, table_name, row_id, field, base, local, remote, owner, run_id)
    SELECT :account_id, :table_name, i.row_id, i.field, i.base, i.local, i.remote, 'local', :run_id
    FROM unnest(CAST(:row_ids AS bigint[]), CAST(:fields AS text[]), CAST(:bases AS text[]),
                CAST(:locals AS text[]), CAST(:remotes AS text[])) AS i (row_id, field, base, local, remote)
    WHERE NOT EXISTS (SELECT FROM syncd.conflicts c
                      WHERE c.status = 'open' AND c.account_id = :account_id AND c.table_name = :table_name
                        AND c.row_id = i.row_id AND c.field = i.field
                        AND (c.local, c.remote) IS NOT DISTINCT FROM (i.local, i.remote))
""")


async def notice(connection: Connection, scope: Scope, table: str, found: Sequence[tuple[int, Conflict]]) -> None:
    """Open a conflict for each, unless the very same one is open. While a change is undelivered its owner is local."""
    if not found:
        return
    await connection.execute(
        _NOTICE,
        {
            "account_id": scope.account_id,
            "run_id": scope.run_id,
            "table_name": table,
            "row_ids": [row_id for row_id, _ in found],
            "fields": [conflict.column for _, conflict in found],
            "bases": [conflict.base for _, conflict in found],
            "locals": [conflict.local for _, conflict in found],
            "remotes": [conflict.remote for _, conflict in found],
        },
    )
