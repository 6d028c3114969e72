"""Settle: write down how claimed lanes ended, in batches, each lane guarded by its epoch.

A lane whose epoch moved on belongs to somebody else: nothing of it is written, and the caller is told (fenced). The
cursor never goes back. Whether a lane sleeps is decided on the lane row under its lock, from ``tail_seq``: asking
whether entries exist would miss one that is being staged at this moment.

Runs in ``Store.begin_remote``: the remote id that a create brings is the CRM's word, not an edit to be captured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection
from syncd.store.outbox_bind import bind
from syncd.store.outbox_results import LaneSettlement, Settled

# Locks are taken in the order of the relations, as stage takes them.
_ADVANCE = text(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[]), CAST(:seen AS bigint[]), CAST(:acked AS bigint[]),
            CAST(:more AS boolean[]), CAST(:again AS timestamptz[]), CAST(:after AS double precision[]),
            CAST(:failed AS boolean[]), CAST(:delivered AS boolean[]), CAST(:blocked AS text[])
        ) AS g (lane_id, epoch, seen_seq, acked_seq, is_more, again_at, after_s, is_failed, is_delivered, block_reason)
    ), alive AS MATERIALIZED (
        SELECT l.id FROM given g JOIN syncd.lanes l ON l.id = g.lane_id
        WHERE l.epoch = g.epoch AND l.claimed_by = :worker
        ORDER BY l.relation_id FOR UPDATE OF l
    )
    UPDATE syncd.lanes l
    SET acked_seq = GREATEST(l.acked_seq, LEAST(g.acked_seq, l.tail_seq)),
        ready_at = CASE WHEN g.is_more OR l.tail_seq > g.seen_seq THEN now()
                        ELSE LEAST(g.again_at, now() + make_interval(secs => g.after_s)) END,
        sending_upto = NULL,
        claimed_by = NULL,
        failures = CASE WHEN g.is_failed THEN l.failures + 1 WHEN g.is_delivered THEN 0 ELSE l.failures END,
        block_reason = g.block_reason,
        last_delivered_at = CASE WHEN g.is_delivered THEN now() ELSE l.last_delivered_at END
    FROM alive JOIN given g ON g.lane_id = alive.id
    WHERE l.id = alive.id AND l.epoch = g.epoch AND l.claimed_by = :worker
    RETURNING l.id
    """
)

_ENTRIES = text(
    """
    UPDATE syncd.entries e
    SET status = s.status,
        attempts = e.attempts + s.tried,
        next_attempt_at = now() + make_interval(secs => s.delay_s),
        is_uncertain = e.is_uncertain OR s.uncertain,
        error = CASE WHEN s.status = 'superseded' THEN e.error ELSE s.error END,
        superseded_by = s.superseded_by,
        settled_at = CASE WHEN s.status = 'pending' THEN NULL ELSE now() END
    FROM unnest(
        CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:statuses AS text[]), CAST(:tried AS integer[]),
        CAST(:delays AS double precision[]), CAST(:uncertain AS boolean[]), CAST(:errors AS text[]),
        CAST(:superseded_by AS bigint[])
    ) AS s (lane_id, seq, status, tried, delay_s, uncertain, error, superseded_by)
    WHERE e.lane_id = s.lane_id AND e.seq = s.seq
    """
)

# Nearly all entries end like this; three columns instead of eight are felt at thousands a second.
_DELIVERED = text(
    """
    UPDATE syncd.entries e
    SET status = s.status, attempts = e.attempts + 1, next_attempt_at = NULL, error = NULL, settled_at = now()
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:statuses AS text[]))
        AS s (lane_id, seq, status)
    WHERE e.lane_id = s.lane_id AND e.seq = s.seq
    """
)

_ATTEMPTS = text(
    """
    INSERT INTO syncd.attempts
        (account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s, requests, status_code, outcome, detail)
    SELECT :account_id, a.*
    FROM unnest(
        CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[]), CAST(:entry_ids AS bigint[]),
        CAST(:operations AS text[]), CAST(:started AS timestamptz[]), CAST(:elapsed AS double precision[]),
        CAST(:requests AS integer[]), CAST(:status_codes AS integer[]), CAST(:outcomes AS text[]),
        CAST(:details AS text[])
    ) AS a
    """
)

_HISTORY = text(
    """
    INSERT INTO syncd.changes (account_id, origin, row_id, entry_id, table_name, link_id, kind, before, after)
    SELECT :account_id, 'local', h.row_id, h.entry_id, h.table_name, h.link_id, h.kind,
           CAST(h.before AS jsonb), CAST(h.after AS jsonb)
    FROM unnest(
        CAST(:row_ids AS bigint[]), CAST(:entry_ids AS bigint[]), CAST(:tables AS text[]), CAST(:links AS bigint[]),
        CAST(:kinds AS text[]), CAST(:befores AS text[]), CAST(:afters AS text[])
    ) AS h (row_id, entry_id, table_name, link_id, kind, before, after)
    """
)


async def settle(
    connection: Connection, account_id: AccountId, worker: str, settlements: Sequence[LaneSettlement]
) -> Settled:
    """Write a batch of results; return which lanes were fenced and which must be tried again in a moment."""
    bound = await bind(connection, account_id, worker, settlements)
    ready = [s for s in map(bound.applied, settlements) if not bound.holds_back(s.lane_id)]
    alive = await _advance(connection, worker, ready)
    kept = ready if len(alive) == len(ready) else [s for s in ready if s.lane_id in alive]
    await _settle_delivered(connection, kept)
    await _settle_entries(connection, kept)
    await _record_attempts(connection, account_id, kept)
    await _record_history(connection, account_id, kept)
    fenced = bound.fenced.union(s.lane_id for s in ready if s.lane_id not in alive)
    return Settled(fenced, bound.deferred)


async def _advance(connection: Connection, worker: str, lanes: Sequence[LaneSettlement]) -> frozenset[int]:
    if not lanes:
        return frozenset()
    rows = await connection.execute(
        _ADVANCE,
        {
            "worker": worker,
            "lane_ids": [s.lane_id for s in lanes],
            "epochs": [s.epoch for s in lanes],
            "seen": [s.seen_seq for s in lanes],
            "acked": [s.acked_seq for s in lanes],
            "more": [s.is_more for s in lanes],
            "again": [s.again_at for s in lanes],
            "after": [s.after_s for s in lanes],
            "failed": [s.is_failed for s in lanes],
            "delivered": [s.is_delivered for s in lanes],
            "blocked": [s.block_reason for s in lanes],
        },
    )
    return frozenset(rows.scalars())


async def _settle_delivered(connection: Connection, lanes: Iterable[LaneSettlement]) -> None:
    rows = [(s.lane_id, seq, proof) for s in lanes for seq, proof in s.delivered]
    if rows:
        lane_ids, seqs, statuses = (list(column) for column in zip(*rows, strict=True))
        await connection.execute(_DELIVERED, {"lane_ids": lane_ids, "seqs": seqs, "statuses": statuses})


async def _settle_entries(connection: Connection, lanes: Iterable[LaneSettlement]) -> None:
    rows = [(s.lane_id, e) for s in lanes for e in s.entries]
    if rows:
        await connection.execute(
            _ENTRIES,
            {
                "lane_ids": [lane_id for lane_id, _ in rows],
                "seqs": [e.seq for _, e in rows],
                "statuses": [e.status for _, e in rows],
                "tried": [int(e.is_tried) for _, e in rows],
                "delays": [e.delay_s for _, e in rows],
                "uncertain": [e.is_uncertain for _, e in rows],
                "errors": [e.error for _, e in rows],
                "superseded_by": [e.superseded_by for _, e in rows],
            },
        )


async def _record_attempts(connection: Connection, account_id: AccountId, lanes: Iterable[LaneSettlement]) -> None:
    rows = [(s, a) for s in lanes for a in s.attempts]
    if rows:
        await connection.execute(
            _ATTEMPTS,
            {
                "account_id": account_id,
                "lane_ids": [s.lane_id for s, _ in rows],
                "epochs": [s.epoch for s, _ in rows],
                "entry_ids": [a.entry_id for _, a in rows],
                "operations": [a.operation for _, a in rows],
                "started": [a.started_at for _, a in rows],
                "elapsed": [a.elapsed_s for _, a in rows],
                "requests": [a.requests for _, a in rows],
                "status_codes": [a.status_code for _, a in rows],
                "outcomes": [a.outcome for _, a in rows],
                "details": [a.detail for _, a in rows],
            },
        )


async def _record_history(connection: Connection, account_id: AccountId, lanes: Iterable[LaneSettlement]) -> None:
    rows = [(s.relation_id, entry_id, h) for s in lanes for entry_id, h in s.history]
    if rows:
        await connection.execute(
            _HISTORY,
            {
                "account_id": account_id,
                "row_ids": [relation_id for relation_id, _, _ in rows],
                "entry_ids": [entry_id for _, entry_id, _ in rows],
                "tables": [h.table_name for _, _, h in rows],
                "links": [h.link_id for _, _, h in rows],
                "kinds": [h.kind for _, _, h in rows],
                "befores": [h.before for _, _, h in rows],
                "afters": [h.after for _, _, h in rows],
            },
        )
