"""Prune the history: delete what is older than is kept, a few rows at a time, and say since when it is whole.

What was deleted and since when the rest is whole are written in one transaction, so that no reader is ever told half a
history as if it were whole: the ``*_as_of`` functions and the feed refuse what lies before.

The first appearance of an invoice is kept: pulls choose their witnesses by the run that first showed it. It holds no
values.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

_SCOPE = text(
    """
    SELECT max(batch.id) AS upto,
           bool_and(batch.changed_at >= now() - make_interval(secs => :keep_s)) AS is_recent
    FROM (SELECT id, changed_at FROM syncd.changes WHERE id > :after ORDER BY id LIMIT :most) AS batch
    """
)
_DELETE = text(
    """
    WITH gone AS (
        DELETE FROM syncd.changes
        WHERE id > :after AND id <= :upto AND account_id = :account_id
          AND changed_at < now() - make_interval(secs => :keep_s)
          AND NOT (table_name = 'invoices' AND kind = 'insert')
        RETURNING xact, id, changed_at
    ), horizon AS (
        INSERT INTO syncd.history_horizons AS h (account_id, kept_since, pruned_xact, pruned_id)
        SELECT :account_id, (SELECT max(changed_at) FROM gone), xact, id FROM gone ORDER BY xact DESC, id DESC LIMIT 1
        ON CONFLICT (account_id) DO UPDATE
        SET kept_since = GREATEST(h.kept_since, excluded.kept_since),
            (pruned_xact, pruned_id) = (
                SELECT best.xact, best.id
                FROM (VALUES (h.pruned_xact, h.pruned_id), (excluded.pruned_xact, excluded.pruned_id))
                    AS best (xact, id)
                ORDER BY best.xact DESC NULLS LAST, best.id DESC LIMIT 1)
    )
    SELECT count(*) FROM gone
    """
)


class HistoryPruned(msgspec.Struct, frozen=True):
    """One batch: how many changes went, and the number to go on after (None: the walk is done)."""

    changes: int
    after: int | None


async def prune_history(
    connection: Connection, account_id: AccountId, *, keep_days: float, after: int = 0, most: int = 1000
) -> HistoryPruned:
    """Look at the next ``most`` changes and delete the account's that are older than is kept. Until done."""
    keep_s = keep_days * 86400
    scope = (await connection.execute(_SCOPE, {"after": after, "most": most, "keep_s": keep_s})).one()
    if scope.upto is None:
        return HistoryPruned(0, None)
    binds = {"after": after, "upto": scope.upto, "account_id": account_id, "keep_s": keep_s}
    changes = int((await connection.execute(_DELETE, binds)).scalar_one())
    return HistoryPruned(changes, None if scope.is_recent else scope.upto)
