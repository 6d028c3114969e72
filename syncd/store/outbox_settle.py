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
from syncd.store.bulk import copy_rows
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
    RETURNING l.id, l.epoch
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

# Appended by COPY: an array parameter costs the driver eight times as much an element.
_ATTEMPTS = (
    "account_id", "lane_id", "epoch", "entry_id", "operation", "started_at", "elapsed_s", "requests", "status_code",
    "outcome", "detail",
)  # fmt: skip
_HISTORY = ("account_id", "origin", "row_id", "entry_id", "table_name", "link_id", "kind", "before", "after")


async def settle(
    connection: Connection, account_id: AccountId, worker: str, settlements: Sequence[LaneSettlement]
) -> Settled:
    """Write a batch of results; return which lanes were fenced and which must be tried again in a moment."""
    bound = await bind(connection, account_id, worker, settlements)
    ready = [s for s in map(bound.applied, settlements) if not bound.holds_back(s.lane_id)]
    alive = await _advance(connection, worker, ready)
    kept = ready if len(alive) == len(ready) else [s for s in ready if (s.lane_id, s.epoch) in alive]
    await _settle_delivered(connection, kept)
    await _settle_entries(connection, kept)
    await _record_attempts(connection, account_id, kept)
    await _record_history(connection, account_id, kept)
    fenced = bound.fenced.union(s.lane_id for s in ready if (s.lane_id, s.epoch) not in alive)
    return Settled(fenced, bound.deferred)


async def _advance(connection: Connection, worker: str, lanes: Sequence[LaneSettlement]) -> frozenset[tuple[int, int]]:
    """Move the lanes that are still ours; return each with its epoch: an older result is not the newer one's."""
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
    return frozenset((lane_id, epoch) for lane_id, epoch in rows.all())


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
    rows = [
        (
            account_id, s.lane_id, s.epoch, a.entry_id, a.operation, a.started_at, a.elapsed_s, a.requests,
            a.status_code, a.outcome, a.detail,
        )
        for s in lanes
        for a in s.attempts
    ]  # fmt: skip
    if rows:
        await copy_rows(connection, "syncd.attempts", _ATTEMPTS, rows)


async def _record_history(connection: Connection, account_id: AccountId, lanes: Iterable[LaneSettlement]) -> None:
    rows = [
        (account_id, "local", s.relation_id, entry_id, h.table_name, h.link_id, h.kind, h.before, h.after)
        for s in lanes
        for entry_id, h in s.history
    ]
    if rows:
        await copy_rows(connection, "syncd.changes", _HISTORY, rows)
