"""Prune: delete what was delivered or given up long ago, and its attempts, a few rows at a time.

Walked by entry number, because there is no index by age and none is worth its cost: numbers are given at staging, so
the walk ends at the first entry that was staged within what is kept. It locks no lane; the rows that it deletes are
settled, and a drain never writes to those.

What it must never delete: an entry that is not delivered, or whose proof is still awaited; one that an undelivered
entry names (its re-assertion, what superseded it) or that names an undelivered one; and one that came after an
undelivered entry of its own facet: a retry of the older value is refused by it (``outbox_operate``). Pulls look at
entries that were settled after they asked: a day at least is kept, and no pull lasts that long.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

LEAST_DAYS = 1.0

_SCOPE = text(
    """
    SELECT max(batch.id) AS upto,
           bool_or(batch.staged_at >= now() - make_interval(secs => :keep_s)) AS is_recent
    FROM (SELECT id, staged_at FROM syncd.entries WHERE id > :after ORDER BY id LIMIT :most) AS batch
    """
)

_UNDELIVERED = "('pending', 'held', 'dead', 'parked', 'diverged')"

_DELETE = text(
    f"""
    DELETE FROM syncd.entries e
    WHERE e.id > :after AND e.id <= :upto AND e.account_id = :account_id
      AND e.status IN ('verified', 'accepted', 'superseded', 'skipped')
      AND e.settled_at < now() - make_interval(secs => :keep_s)
      AND (e.prove_until IS NULL OR e.prove_until < now()) AND e.prove_at IS NULL
      AND NOT EXISTS (
          SELECT FROM syncd.entries u
          WHERE u.lane_id = e.lane_id AND u.status IN {_UNDELIVERED}
            AND (u.reasserts = e.id OR u.superseded_by = e.id OR e.superseded_by = u.id
                 OR (u.facet = e.facet AND u.seq < e.seq)))
    RETURNING e.id
    """
)

_ATTEMPTS = text("DELETE FROM syncd.attempts WHERE entry_id = ANY (CAST(:ids AS bigint[]))")


class Pruned(msgspec.Struct, frozen=True):
    """One batch: how many entries and attempts went, and the number to go on after (None: the walk is done)."""

    entries: int
    attempts: int
    after: int | None


async def prune(
    connection: Connection, account_id: AccountId, *, keep_days: float, after: int = 0, most: int = 1000
) -> Pruned:
    """Look at the next ``most`` entries and delete those of the account that nobody needs. Call until done.

    ``keep_days`` below one day is taken as one.
    """
    keep_s = max(LEAST_DAYS, keep_days) * 86400
    scope = (await connection.execute(_SCOPE, {"after": after, "most": most, "keep_s": keep_s})).one()
    if scope.upto is None:
        return Pruned(0, 0, None)
    binds = {"after": after, "upto": scope.upto, "account_id": account_id, "keep_s": keep_s}
    ids = (await connection.execute(_DELETE, binds)).scalars().all()
    attempts = await connection.execute(_ATTEMPTS, {"ids": ids}) if ids else None
    return Pruned(len(ids), attempts.rowcount if attempts is not None else 0, None if scope.is_recent else scope.upto)
