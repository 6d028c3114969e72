"""Stage: move committed captures into the outbox, under dense sequence numbers per lane.

Single-file, under a transaction-level advisory lock, so that numbers are given in one order; whoever stands still with
it loses it. Captures are deleted as they are moved and never skipped by "id greater than the last": ids are taken
before commit, and a late commit would be lost for ever. (The mark to begin at is no such cursor: ``policy.stagemark``.)
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
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from syncd.policy.stagemark import LOWEST, StageMark, StageMarks, Took
from syncd.store.by_index import SETTINGS
from syncd.store.engine import Connection
from syncd.store.outbox_guard import Sightings, Staged, guard_staged, read_guard

# Nobody else stages while this lock is held, so a stager that stands still in mid-transaction (stopped, swapped out,
# cut off) is let go by the server after seconds, or by ``end_still_stager``. And captures and lanes are reached by
# index alone. Both are for the one transaction, and cost no statement of their own. Nor does the next id of a capture,
# which must be read before this transaction has a number, and which server this is.
_ALONE = text(
    f"""
    SELECT pg_try_advisory_xact_lock(hashtextextended('syncd.stage', 0)) AS is_ours, {SETTINGS},
           set_config('idle_in_transaction_session_timeout', '5s', true),
           coalesce(pg_sequence_last_value('syncd.captures_id_seq'), 0) + 1 AS next_capture_id,
           CAST(pg_postmaster_start_time() AS text) AS server, pg_current_xact_id_if_assigned() IS NULL AS is_first
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
    WITH start AS MATERIALIZED (
        SELECT CASE WHEN EXISTS (SELECT FROM unnest(CAST(CAST(:open_xacts AS text[]) AS xid8[])) AS o (xact)
                                 WHERE pg_visible_in_snapshot(o.xact, pg_current_snapshot()))
                    THEN 0 ELSE CAST(:capture_id AS bigint) END AS first_id
    ), found AS MATERIALIZED (
        SELECT ARRAY(SELECT ctid FROM syncd.captures WHERE id >= (SELECT first_id FROM start) ORDER BY id LIMIT {most})
               AS places
    ), moved AS (
        DELETE FROM syncd.captures
        WHERE ctid = ANY (CAST((SELECT places FROM found) AS tid[]))
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
    SELECT own.*, s.first_id, cardinality(f.places) AS found,
           CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS snapshot_xmax,
           ARRAY(SELECT CAST(CAST(o AS text) AS bigint) FROM pg_snapshot_xip(pg_current_snapshot()) AS o) AS open_xacts
    FROM start s CROSS JOIN found f LEFT JOIN (
        SELECT n.account_id, count(*) AS moved, max(n.id) AS last_capture_id,
               count(*) FILTER (WHERE n.hold_id IS NULL) AS judged,
               min(n.captured_at) FILTER (WHERE n.hold_id IS NULL) AS first_at,
               max(n.captured_at) FILTER (WHERE n.hold_id IS NULL) AS last_at,
               (SELECT first_id FROM numbers) AS first_entry_id, (SELECT last_id FROM numbers) AS last_entry_id,
               (SELECT CAST(s.limits -> 'guard' AS text) FROM syncd.account_states s WHERE s.account_id = n.account_id)
                   AS guard,
               CAST(CAST(pg_current_xact_id_if_assigned() AS text) AS bigint) AS xact
        FROM numbered n GROUP BY n.account_id
    ) AS own ON true
"""


@dataclass(slots=True)
class Stager:
    """What whoever stages remembers from one stage to the next: where to begin, and how much was changed lately."""

    sightings: Sightings = field(default_factory=Sightings)
    marks: StageMarks = field(default_factory=StageMarks)
    server: str = ""
    _took: Took | None = None

    def begins(self, server: str, next_capture_id: int, now: float) -> StageMark:
        """Return where to begin. What was committed once may be gone from a server that took over or was restored."""
        if server != self.server:
            self.server, self.marks = server, StageMarks()
        start = self.marks.starts_from(now)
        return LOWEST if start.capture_id > next_capture_id else start

    def took(self, took: Took | None) -> None:
        """Keep what a stage took until its transaction has committed; None: it has only begun."""
        self._took = took

    def committed(self, now: float) -> None:
        """Go on from what was staged last: its transaction has committed. ``now``: monotonic seconds."""
        if self._took is not None:
            self.marks = self.marks.took(self._took, now)
        self._took = None


async def stage(
    connection: Connection, stager: Stager | None = None, *, most: int = 5000, now: float = 0.0
) -> int | None:
    """Move up to ``most`` captures, of all accounts; return how many, or None when another stager is at work.

    A stager that goes on gives the same ``stager`` each time, with the monotonic time, and tells it of the commit. If
    its transaction has written before, it leaves no mark.
    """
    stager = stager or Stager()
    stager.took(None)  # the transaction before may have been rolled back
    alone = (await connection.execute(_ALONE)).one()
    if not alone.is_ours:
        return None
    start = stager.begins(alone.server, alone.next_capture_id, now)
    binds = {"capture_id": start.capture_id, "open_xacts": [str(xact) for xact in start.open_xacts]}
    rows = (await connection.execute(text(_STAGE.format(most=int(most))), binds)).all()
    batch = [_staged(row) for row in rows if row.account_id is not None]
    moved = sum(staged.moved for staged in batch)
    # What was found and is not moved, somebody has changed in between.
    if alone.is_first and moved == rows[0].found:
        stager.took(_took(rows, alone.next_capture_id, is_all=moved < most))
    await guard_staged(connection, batch, stager.sightings, unread=None if moved < most else rows[0].first_id)
    return moved


def _staged(row: Any) -> Staged:
    return Staged(
        row.account_id,
        row.moved,
        row.judged,
        row.first_at,
        row.last_at,
        row.first_entry_id,
        row.last_entry_id,
        read_guard(row.guard),
    )


def _took(rows: Sequence[Any], next_capture_id: int, *, is_all: bool) -> Took:
    any_row = rows[0]
    last_id = None if is_all else max(row.last_capture_id for row in rows)
    return Took(
        any_row.first_id,
        next_capture_id,
        any_row.snapshot_xmax,
        frozenset(any_row.open_xacts),
        any_row.xact,
        last_id,
    )


async def end_still_stager(connection: Connection, still_s: float) -> bool:
    """End the session of whoever stages and has left the server waiting for so long; return whether there was one.

    It may have died with its host or be stopped; if it goes on it finds its connection lost and nothing of it staged.
    """
    return bool((await connection.execute(_END_STILL, {"still_s": still_s})).scalar_one())
