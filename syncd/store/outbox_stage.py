"""Stage: move committed captures into the outbox, under dense sequence numbers per lane.

Single-file, under a transaction-level advisory lock, so that numbers are given in one order; whoever stands still with
it loses it. Captures are deleted as they are moved and never skipped by "id greater than the last": ids are taken
before commit, and a late commit would be lost for ever. (The mark to read from is no such cursor: ``policy.lowwater``.)
A lane is woken by the same statement that lengthens it, at the clock's time and not the transaction's: what is written
must not lie below anybody's mark.

A capture may hold what its row said, before and after (``migrations/sql/capture_004.sql``): here that becomes the
payload of its operation, the changed columns only. The same statement writes the edit into the history, dated when it
was captured. The application's transaction pays for none of it.

What belongs to a transaction that a hold names follows that hold: it is staged as held, as pending once the hold is
approved, as skipped once it is rejected. What is left is the guard's to judge (``outbox_guard``), before this
transaction ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from syncd.policy.lowwater import WHOLE, Mark
from syncd.store.by_index import SETTINGS
from syncd.store.engine import Connection
from syncd.store.outbox_guard import Sightings, Staged, guard_staged, read_guard

# Nobody else stages while this lock is held, so a stager that stands still in mid-transaction (stopped, swapped out,
# cut off) is let go by the server after seconds, or by ``end_still_stager``. And captures and lanes are reached by
# index alone. Both are for the one transaction, and cost no statement of their own.
_ALONE = text(
    f"""
    SELECT pg_try_advisory_xact_lock(hashtextextended('syncd.stage', 0)) AS is_ours, {SETTINGS},
           set_config('idle_in_transaction_session_timeout', '5s', true)
    """
)

# A driver has the server parse a statement and say so before it sends the values. A stager that stands still there is
# not idle to the server, which never ends it; what tells is that the server waits for it, and since when.
_END_STILL = text(
    """
    SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (CAST(l.classid AS bigint) << 32 | CAST(l.objid AS bigint)) = hashtextextended('syncd.stage', 0)
      AND a.usename = current_user AND a.wait_event_type = 'Client'
      AND a.state_change < clock_timestamp() - make_interval(secs => :still_s)
    """
)

# Lanes are locked in the order of their relations, as settle locks them: neither can wait for the other in a circle.
# A lane that somebody holds keeps its lease; settle sees the moved tail and wakes it. (``lengthen_lanes`` in
# ``migrations/sql/lanes_005.sql`` does both.)
#
# No two sets are joined here. The planner must guess how many captures there are, and guesses one or ten when it last
# counted an empty table: any join may then compare each capture with each lane. So the batch is deleted by its places,
# and a capture finds its lane by the lane's rank in the order in which both are sorted. (Transactions that a hold names
# are joined: there are none, or very few.)
_STAGE = """
    WITH moved AS (
        DELETE FROM syncd.captures
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM syncd.captures WHERE id >= :capture_id ORDER BY id LIMIT {most}))
        RETURNING id, account_id, relation_id, operation, facet, actor, reason, xact, captured_at,
                  syncd.payload_of(operation, facet, payload, before, after) AS payload
    ), known AS MATERIALIZED (
        SELECT DISTINCT ON (h.account_id, member.xact) h.id AS hold_id, h.account_id, member.xact,
               CASE h.status WHEN 'open' THEN 'held' WHEN 'rejected' THEN 'skipped' ELSE 'pending' END AS status
        FROM syncd.holds h CROSS JOIN LATERAL unnest(h.xacts) AS member (xact)
        WHERE h.status = 'open' OR h.decided_at > now() - interval '1 day'
        ORDER BY h.account_id, member.xact, h.id DESC
    ), numbered AS MATERIALIZED (
        SELECT moved.*, k.hold_id, coalesce(k.status, 'pending') AS status,
               row_number() OVER (lane ORDER BY moved.id) AS nth, count(*) OVER lane AS added,
               dense_rank() OVER (ORDER BY moved.account_id, moved.relation_id) AS lane_rank
        FROM moved LEFT JOIN known k ON k.account_id = moved.account_id AND k.xact = moved.xact
        WINDOW lane AS (PARTITION BY moved.account_id, moved.relation_id)
    ), grouped AS MATERIALIZED (
        SELECT account_id, relation_id, count(*) AS added, bool_or(status = 'pending') AS is_due
        FROM numbered GROUP BY account_id, relation_id
    ), ranked AS MATERIALIZED (
        SELECT l.ids, l.tails
        FROM (SELECT array_agg(account_id ORDER BY account_id, relation_id) AS accounts,
                     array_agg(relation_id ORDER BY account_id, relation_id) AS relations,
                     array_agg(added ORDER BY account_id, relation_id) AS added,
                     array_agg(is_due ORDER BY account_id, relation_id) AS due
              FROM grouped HAVING count(*) > 0) AS g
        CROSS JOIN LATERAL syncd.lengthen_lanes(g.accounts, g.relations, g.added, g.due) AS l
    ), staged AS (
        INSERT INTO syncd.entries
            (lane_id, seq, account_id, relation_id, operation, facet, payload, actor, reason, xact, captured_at,
             status, hold_id, settled_at, error)
        SELECT r.ids[n.lane_rank], r.tails[n.lane_rank] - n.added + n.nth, n.account_id, n.relation_id, n.operation,
               n.facet, n.payload, n.actor, n.reason, n.xact, n.captured_at, n.status, n.hold_id,
               CASE WHEN n.status = 'skipped' THEN now() END,
               CASE WHEN n.status = 'skipped' THEN 'rejected together with its mass change' END
        FROM numbered n, ranked r
        ORDER BY n.id
        RETURNING id, account_id, relation_id, operation, payload, captured_at
    ), edited AS (
        INSERT INTO syncd.changes
            (account_id, table_name, row_id, link_id, kind, origin, entry_id, before, after, changed_at)
        SELECT s.account_id, e.table_name, s.relation_id, e.link_id, e.kind, 'edit', s.id, e.before, e.after,
               s.captured_at
        FROM staged s CROSS JOIN LATERAL syncd.edit_of(s.operation, s.payload) AS e
        WHERE s.relation_id IS NOT NULL
    ), numbers AS MATERIALIZED (
        SELECT min(id) AS first_id, max(id) AS last_id FROM staged
    )
    SELECT n.account_id, count(*) AS moved, count(*) FILTER (WHERE n.hold_id IS NULL) AS judged,
           min(n.captured_at) FILTER (WHERE n.hold_id IS NULL) AS first_at,
           max(n.captured_at) FILTER (WHERE n.hold_id IS NULL) AS last_at,
           (SELECT CAST(CAST(xact AS text) AS bigint) FROM numbered ORDER BY xact LIMIT 1) AS oldest_xact,
           (SELECT first_id FROM numbers) AS first_id, (SELECT last_id FROM numbers) AS last_id,
           (SELECT CAST(s.limits -> 'guard' AS text) FROM syncd.account_states s WHERE s.account_id = n.account_id)
               AS guard
    FROM numbered n GROUP BY n.account_id
"""


async def stage(
    connection: Connection, start: Mark = WHOLE, *, most: int = 5000, sightings: Sightings | None = None
) -> int | None:
    """Move up to ``most`` captures, of all accounts; return how many, or None when another stager is at work.

    A stager that goes on gives the same ``sightings`` each time, so that the guard need not count what it has counted.
    """
    if not (await connection.execute(_ALONE)).one().is_ours:
        return None
    statement = text(_STAGE.format(most=int(most)))
    rows = (await connection.execute(statement, {"capture_id": start.capture_id})).mappings().all()
    batch = [Staged(**{**row, "guard": read_guard(row["guard"])}) for row in rows]
    moved = sum(staged.moved for staged in batch)
    await guard_staged(connection, batch, sightings or Sightings(), unread=_unread(batch, start, moved < most))
    return moved


async def end_still_stager(connection: Connection, still_s: float) -> bool:
    """End the session of whoever stages and has left the server waiting for so long; return whether there was one.

    It may have died with its host or be stopped; if it goes on it finds its connection lost and nothing of it staged.
    """
    return bool((await connection.execute(_END_STILL, {"still_s": still_s})).scalar_one())


def _unread(batch: Sequence[Staged], start: Mark, is_all: bool) -> Mark | None:
    """Return from where on captures lie that may belong to this batch's transactions; None: they were all moved."""
    if any(staged.oldest_xact < start.xact for staged in batch):
        return WHOLE
    return None if is_all else start
