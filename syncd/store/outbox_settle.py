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
from syncd.store import outbox_contest, outbox_incidents, outbox_landing, outbox_reassert
from syncd.store.bulk import copy_rows
from syncd.store.by_index import plan_by_index
from syncd.store.engine import Connection
from syncd.store.outbox_address import wake_takers
from syncd.store.outbox_bind import bind
from syncd.store.outbox_results import LaneSettlement, Settled

# Locks are taken in the order of the relations, as stage takes them: the arrays are in that order. Each lane is looked
# up from its newest version down, as the claim does it.
_LOCK = text(
    """
    SELECT m.id, m.place
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[])) AS g (lane_id, epoch)
    CROSS JOIN LATERAL (
        SELECT l.id, CAST(l.ctid AS text) AS place FROM syncd.lanes l
        WHERE l.id BETWEEN g.lane_id AND g.lane_id AND l.epoch = g.epoch AND l.claimed_by = :worker
        ORDER BY l.id DESC LIMIT 1
        FOR UPDATE
    ) AS m
    """
)

# A statement of its own, because the lock may have been waited for: its snapshot shows the lane as it was locked, with
# the tail that a stager has just moved, at the place where it was locked.
_ADVANCE = text(
    """
    UPDATE syncd.lanes l
    SET acked_seq = GREATEST(l.acked_seq, LEAST(g.acked_seq, l.tail_seq)),
        ready_at = CASE WHEN g.is_more OR l.tail_seq > g.seen_seq
                             OR LEAST(g.again_at, now() + make_interval(secs => g.after_s)) < clock_timestamp()
                        THEN clock_timestamp()
                        ELSE LEAST(g.again_at, now() + make_interval(secs => g.after_s)) END,
        sending_upto = NULL,
        claimed_by = NULL,
        failures = CASE WHEN g.is_failed THEN l.failures + 1 WHEN g.is_delivered THEN 0 ELSE l.failures END,
        block_reason = g.block_reason,
        last_delivered_at = CASE WHEN g.is_delivered THEN now() ELSE l.last_delivered_at END
    FROM unnest(
        CAST(CAST(:places AS text[]) AS tid[]), CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[]),
        CAST(:seen AS bigint[]), CAST(:acked AS bigint[]), CAST(:more AS boolean[]), CAST(:again AS timestamptz[]),
        CAST(:after AS double precision[]), CAST(:failed AS boolean[]), CAST(:delivered AS boolean[]),
        CAST(:blocked AS text[])
    ) AS g (place, lane_id, epoch, seen_seq, acked_seq, is_more, again_at, after_s, is_failed, is_delivered,
            block_reason)
    WHERE l.ctid = g.place AND l.id = g.lane_id AND l.epoch = g.epoch AND l.claimed_by = :worker
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
        error = CASE WHEN s.status = 'superseded' OR (s.status = e.status AND s.error IS NULL) THEN e.error
                     ELSE s.error END,
        superseded_by = s.superseded_by,
        settled_at = CASE WHEN s.status = 'pending' THEN NULL WHEN s.status = e.status THEN e.settled_at ELSE now() END
    FROM unnest(
        CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:statuses AS text[]), CAST(:tried AS integer[]),
        CAST(:delays AS double precision[]), CAST(:uncertain AS boolean[]), CAST(:errors AS text[]),
        CAST(:superseded_by AS bigint[])
    ) AS s (lane_id, seq, status, tried, delay_s, uncertain, error, superseded_by)
    WHERE e.lane_id = s.lane_id AND e.seq = s.seq
    """
)

# How long any pull may prove a delivery. A week covers the slowest sweep, and keeps the index of the unproven small.
PROVE_FOR_S = 7 * 86400.0

# Nearly all entries end like this; four columns instead of eight are felt at thousands a second, and so is every array:
# what awaits proof, and what is to be read back, are statements of their own.
_DELIVERED = text(
    """
    UPDATE syncd.entries e
    SET status = s.status, attempts = e.attempts + 1, next_attempt_at = NULL, error = NULL, settled_at = now(),
        prove_until = now() + make_interval(secs => CAST(:prove_for_s AS double precision))
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:statuses AS text[]))
        AS s (lane_id, seq, status)
    WHERE e.lane_id = s.lane_id AND e.seq = s.seq
    """
)

_AWAIT = text(
    """
    UPDATE syncd.entries e SET prove_until = now() + make_interval(secs => :prove_for_s)
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[])) AS s (lane_id, seq)
    WHERE e.lane_id = s.lane_id AND e.seq = s.seq
    """
)

_READ_BACK = text(
    """
    UPDATE syncd.entries e SET prove_at = now() + make_interval(secs => s.after_s)
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:after AS double precision[]))
        AS s (lane_id, seq, after_s)
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
    await plan_by_index(connection)
    bound = await bind(connection, account_id, worker, settlements)
    ready = [s for s in map(bound.applied, settlements) if not bound.holds_back(s.lane_id)]
    alive = await _advance(connection, worker, ready)
    kept = ready if len(alive) == len(ready) else [s for s in ready if (s.lane_id, s.epoch) in alive]
    await _settle_delivered(connection, kept)
    await _settle_entries(connection, kept)
    await _await_proof(connection, kept)
    await outbox_reassert.append(connection, kept)
    await outbox_landing.expect(connection, {s.lane_id: s.late for s in kept})
    await _record_attempts(connection, account_id, kept)
    await _record_history(connection, account_id, kept)
    await outbox_incidents.note(connection, account_id, kept)
    await outbox_contest.note(connection, account_id, kept)
    await wake_takers(connection, [entry_id for s in kept for entry_id in s.moved])
    fenced = bound.fenced.union(s.lane_id for s in ready if (s.lane_id, s.epoch) not in alive)
    return Settled(fenced, bound.deferred)


async def _advance(connection: Connection, worker: str, lanes: Sequence[LaneSettlement]) -> frozenset[tuple[int, int]]:
    """Move the lanes that are still ours; return each with its epoch: an older result of a lane is no newer one's."""
    ours = await _lock(connection, worker, lanes)
    if not ours:
        return frozenset()
    lanes = [s for s in lanes if s.lane_id in ours]
    rows = await connection.execute(
        _ADVANCE,
        {
            "worker": worker,
            "places": [ours[s.lane_id] for s in lanes],
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


async def _lock(connection: Connection, worker: str, lanes: Sequence[LaneSettlement]) -> dict[int, str]:
    """Lock the lanes that are still ours; return where each is, until this transaction writes it."""
    if not lanes:
        return {}
    ordered = sorted(lanes, key=lambda s: (s.relation_id is None, s.relation_id or 0))
    binds = {"worker": worker, "lane_ids": [s.lane_id for s in ordered], "epochs": [s.epoch for s in ordered]}
    return {row.id: row.place for row in await connection.execute(_LOCK, binds)}


async def _settle_delivered(connection: Connection, lanes: Iterable[LaneSettlement]) -> None:
    """Write down what was delivered: what is proven or cannot be, then what awaits proof."""
    rows: tuple[list[tuple[int, int, str]], list[tuple[int, int, str]]] = ([], [])
    for s in lanes:
        for seq, proof in s.delivered:
            rows[seq in s.awaiting].append((s.lane_id, seq, proof))
    for group, prove_for_s in zip(rows, (None, PROVE_FOR_S), strict=True):
        if group:
            lane_ids, seqs, statuses = (list(column) for column in zip(*group, strict=True))
            values = {"lane_ids": lane_ids, "seqs": seqs, "statuses": statuses}
            await connection.execute(_DELIVERED, {**values, "prove_for_s": prove_for_s})


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


async def _await_proof(connection: Connection, lanes: Sequence[LaneSettlement]) -> None:
    """Let pulls look out for what was parked, and the drainer for what the dice chose."""
    parked = [(s.lane_id, e.seq) for s in lanes for e in s.entries if e.seq in s.awaiting]
    if parked:
        lane_ids, seqs = (list(column) for column in zip(*parked, strict=True))
        await connection.execute(_AWAIT, {"lane_ids": lane_ids, "seqs": seqs, "prove_for_s": PROVE_FOR_S})
    chosen = [(s.lane_id, seq, after_s) for s in lanes for seq, after_s in s.read_back]
    if chosen:
        lane_ids, seqs, after = (list(column) for column in zip(*chosen, strict=True))
        await connection.execute(_READ_BACK, {"lane_ids": lane_ids, "seqs": seqs, "after": after})


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
