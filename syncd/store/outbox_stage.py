"""Stage: move committed captures into the outbox, under dense sequence numbers per lane.

Single-file, under a transaction-level advisory lock, so that numbers are given in one order. Captures are deleted as
they are moved and never skipped by "id greater than the last": ids are taken before commit, and a late commit would
be lost for ever. (The mark to read from is no such cursor: ``policy.lowwater``.) A lane is woken by the same statement
that lengthens it, at the clock's time and not the transaction's: what is written must not lie below anybody's mark.
"""

from __future__ import annotations

from sqlalchemy import text

from syncd.policy.lowwater import WHOLE, Mark
from syncd.store.engine import Connection

# Nobody else stages while this lock is held, so a stager that stands still in mid-transaction (stopped, swapped out,
# cut off) is let go by the server after seconds. And no plan may read captures or lanes from end to end: what a held
# transaction keeps of them is never little. Both are for the one transaction, and cost no statement of their own.
_ALONE = text(
    """
    SELECT pg_try_advisory_xact_lock(hashtextextended('syncd.stage', 0)) AS is_ours,
           set_config('enable_seqscan', 'off', true),
           set_config('idle_in_transaction_session_timeout', '5s', true)
    """
)

# Lanes are locked in the order of their relations, as settle locks them: neither can wait for the other in a circle.
# A lane that somebody holds keeps its lease; settle sees the moved tail and wakes it.
#
# No two sets are joined here. The planner must guess how many captures there are, and guesses one or ten when it last
# counted an empty table: any join may then compare each capture with each lane. So the batch is deleted by its places,
# and a capture finds its lane by the lane's rank in the order in which both are sorted.
_STAGE = """
    WITH moved AS (
        DELETE FROM syncd.captures
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM syncd.captures WHERE id >= :capture_id ORDER BY id LIMIT {most}))
        RETURNING id, account_id, relation_id, operation, facet, payload, actor, reason, xact, captured_at
    ), numbered AS MATERIALIZED (
        SELECT moved.*, row_number() OVER (lane ORDER BY id) AS nth, count(*) OVER lane AS added,
               dense_rank() OVER (ORDER BY account_id, relation_id) AS lane_rank
        FROM moved
        WINDOW lane AS (PARTITION BY account_id, relation_id)
    ), lengthened AS (
        INSERT INTO syncd.lanes AS l (account_id, relation_id, tail_seq, ready_at)
        SELECT account_id, relation_id, count(*), clock_timestamp()
        FROM numbered GROUP BY account_id, relation_id ORDER BY account_id, relation_id
        ON CONFLICT (account_id, relation_id) DO UPDATE
            SET tail_seq = l.tail_seq + excluded.tail_seq,
                ready_at = CASE WHEN l.claimed_by IS NULL THEN LEAST(l.ready_at, clock_timestamp()) ELSE l.ready_at END
        RETURNING l.id, l.account_id, l.relation_id, l.tail_seq
    ), ranked AS MATERIALIZED (
        SELECT array_agg(id ORDER BY account_id, relation_id) AS ids,
               array_agg(tail_seq ORDER BY account_id, relation_id) AS tails
        FROM lengthened
    ), staged AS (
        INSERT INTO syncd.entries
            (lane_id, seq, account_id, relation_id, operation, facet, payload, actor, reason, xact, captured_at)
        SELECT r.ids[n.lane_rank], r.tails[n.lane_rank] - n.added + n.nth, n.account_id, n.relation_id, n.operation,
               n.facet, n.payload, n.actor, n.reason, n.xact, n.captured_at
        FROM numbered n, ranked r
        ORDER BY n.id
    )
    SELECT count(*) FROM numbered
"""


async def stage(connection: Connection, start: Mark = WHOLE, *, most: int = 5000) -> int | None:
    """Move up to ``most`` captures, of all accounts; return how many, or None when another stager is at work."""
    if not (await connection.execute(_ALONE)).one().is_ours:
        return None
    statement = text(_STAGE.format(most=int(most)))
    return int((await connection.execute(statement, {"capture_id": start.capture_id})).scalar_one())
