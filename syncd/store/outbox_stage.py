"""Stage: move committed captures into the outbox, under dense sequence numbers per lane.

Single-file, under a transaction-level advisory lock, so that numbers are given in one order. Captures are deleted as
they are moved and never skipped by "id greater than the last": ids are taken before commit, and a late commit would
be lost for ever. A lane is woken by the same statement that lengthens it.
"""

from __future__ import annotations

from sqlalchemy import text

from syncd.store.engine import Connection

# Nobody else stages while this lock is held, so the server lets go of a stager that stands still in mid-transaction
# (stopped, swapped out, cut off) after seconds. It is for the one transaction, and costs no statement of its own.
_ALONE = text(
    """
    SELECT pg_try_advisory_xact_lock(hashtextextended('syncd.stage', 0)) AS is_ours,
           set_config('idle_in_transaction_session_timeout', '5s', true)
    """
)

# Lanes are locked in the order of their relations, as settle locks them: neither can wait for the other in a circle.
# A lane that somebody holds keeps its lease; settle sees the moved tail and wakes it. The batch is a join with a LIMIT,
# not "= ANY (array)": the planner takes the latter for ten rows and compares every capture with every lane.
_STAGE = """
    WITH moved AS (
        DELETE FROM syncd.captures c
        USING (SELECT id FROM syncd.captures ORDER BY id LIMIT {most}) AS batch
        WHERE c.id = batch.id
        RETURNING c.id, c.account_id, c.relation_id, coalesce(c.relation_id, -1) AS lane_key, c.operation, c.facet,
                  c.payload, c.actor, c.reason, c.xact, c.captured_at
    ), numbered AS MATERIALIZED (
        SELECT moved.*, row_number() OVER lane AS nth,
               count(*) OVER (PARTITION BY account_id, relation_id) AS added
        FROM moved
        WINDOW lane AS (PARTITION BY account_id, relation_id ORDER BY id)
    ), lengthened AS (
        INSERT INTO syncd.lanes AS l (account_id, relation_id, tail_seq, ready_at)
        SELECT account_id, relation_id, count(*), now()
        FROM numbered GROUP BY account_id, relation_id ORDER BY account_id, relation_id
        ON CONFLICT (account_id, relation_id) DO UPDATE
            SET tail_seq = l.tail_seq + excluded.tail_seq,
                ready_at = CASE WHEN l.claimed_by IS NULL THEN LEAST(l.ready_at, now()) ELSE l.ready_at END
        RETURNING l.id, l.account_id, coalesce(l.relation_id, -1) AS lane_key, l.tail_seq
    ), staged AS (
        INSERT INTO syncd.entries
            (lane_id, seq, account_id, relation_id, operation, facet, payload, actor, reason, xact, captured_at)
        SELECT l.id, l.tail_seq - n.added + n.nth, n.account_id, n.relation_id, n.operation, n.facet, n.payload,
               n.actor, n.reason, n.xact, n.captured_at
        FROM numbered n
        JOIN lengthened l ON l.lane_key = n.lane_key AND l.account_id = n.account_id
        ORDER BY n.id
    )
    SELECT count(*) FROM numbered
"""


async def stage(connection: Connection, *, most: int = 5000) -> int | None:
    """Move up to ``most`` captures, of all accounts; return how many, or None when another stager is at work."""
    if not (await connection.execute(_ALONE)).one().is_ours:
        return None
    return int((await connection.execute(text(_STAGE.format(most=int(most))))).scalar_one())
