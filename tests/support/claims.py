"""Builders around claim and settle: an account with relations, staged changes, and the shortest settlements."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.account import Account
from syncd.domain.changes import LocalChange, encode_change, facet_of, operation_of
from syncd.policy.fold import Step, watermark
from syncd.store import Store
from syncd.store.by_index import plan_by_index
from syncd.store.outbox import (
    AttemptRow,
    Claim,
    ClaimedLane,
    EntrySettlement,
    LaneSettlement,
    Settled,
    Terms,
    claim,
    settle,
    write_begun,
)
from syncd.store.outbox_history import history_of
from tests.support.lanes import is_repeat_safe
from tests.support.outbox import new_account, remote_sql, rows, stage_all


async def account_with(store: Store, relations: int = 1, *, unbound: int = 0) -> Account:
    """Relations 1.. with remote ids, then unbound ones, and tags 1..5."""
    account = await new_account(store)
    await remote_sql(
        store,
        """INSERT INTO crm.relations (id, account_id, remote_id, email)
           SELECT n, :account_id, CASE WHEN n <= :bound THEN n END, n || '@x.example'
           FROM generate_series(1, :total) n""",
        account_id=account.id,
        bound=relations,
        total=relations + unbound,
    )
    await remote_sql(
        store,
        """INSERT INTO crm.tags (id, account_id, remote_id, name)
           SELECT n, :a, n, 'tag ' || n FROM generate_series(1, 5) n""",
        a=account.id,
    )
    return account


async def changed(store: Store, account: Account, relation_id: int | None, *changes: LocalChange) -> None:
    """Capture and stage changes of one relation."""
    for change in changes:
        payload = msgspec.json.decode(encode_change(change))
        payload.pop("operation")
        await remote_sql(
            store,
            """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
               VALUES (:account_id, :relation_id, :operation, :facet, CAST(CAST(:payload AS text) AS jsonb))""",
            account_id=account.id,
            relation_id=relation_id,
            operation=operation_of(change),
            facet=facet_of(change),
            payload=msgspec.json.encode(payload).decode(),
        )
    await stage_all(store)


async def claimed(store: Store, account: Account, worker: str = "w", *, most: int = 100, **terms: Any) -> Claim:
    given = {"lease_s": 60.0, "window": 100, **terms}
    async with store.begin() as connection:
        await plan_by_index(connection)
        return await claim(connection, account.id, Terms(worker, is_repeat_safe=is_repeat_safe, **given), most=most)


async def claimed_one(store: Store, account: Account, worker: str = "w", **terms: Any) -> ClaimedLane:
    lanes = (await claimed(store, account, worker, **terms)).lanes
    assert len(lanes) == 1, lanes
    return lanes[0]


async def begun(store: Store, lane: ClaimedLane, worker: str = "w") -> bool:
    """Write down that the lane's one call, which is not repeat-safe, begins."""
    async with store.at_once() as connection:
        return await write_begun(connection, worker, lane.lane_id, lane.epoch, lane.plan.steps[0].carrier.seq)


def delivered(lane: ClaimedLane, proof: str = "accepted", **given: Any) -> LaneSettlement:
    """Settle every step of a lane as delivered."""
    made = plain(lane, is_delivered=True, acked_seq=passed(lane, lane.plan.steps), is_more=lane.plan.is_more, **given)
    for step in lane.plan.steps:
        made.delivered.append((step.carrier.seq, proof))
        made.attempts.append(
            AttemptRow(step.carrier.id, step.carrier.operation, datetime.now(UTC), 0.01, 1, 200, proof, "")
        )
        for entry in step.superseded:
            made.entries.append(EntrySettlement(entry.seq, "superseded", False, superseded_by=step.carrier.id))
        row = history_of(step.change)
        if row is not None:
            made.history.append((step.carrier.id, row))
    return made


def passed(lane: ClaimedLane, settled: Iterable[Step]) -> int:
    """Return where the cursor stands when these steps wait no longer: what it passes is not read again."""
    seqs = {entry.seq for step in settled for entry in (*step.superseded, step.carrier)}
    return watermark(lane.entries, seqs, lane.seen_seq)


def failed(
    lane: ClaimedLane, status: str = "pending", *, delay_s: float | None = None, error: str = "no"
) -> LaneSettlement:
    """Settle every step of a lane as failed."""
    made = plain(lane, is_failed=True, after_s=delay_s, is_more=lane.plan.is_more)
    made.entries.extend(
        EntrySettlement(step.carrier.seq, status, True, delay_s, False, error) for step in lane.plan.steps
    )
    return made


def plain(lane: ClaimedLane, **given: Any) -> LaneSettlement:
    empty: dict[str, Any] = {"delivered": [], "entries": [], "attempts": [], "history": [], "acked_seq": 0}
    empty["again_at"] = lane.plan.next_at
    return LaneSettlement(lane.lane_id, lane.relation_id, lane.epoch, lane.seen_seq, **{**empty, **given})


async def settled(store: Store, account: Account, *lanes: LaneSettlement, worker: str = "w") -> Settled:
    async with store.begin_remote() as connection:
        return await settle(connection, account.id, worker, lanes)


async def entry_of(store: Store, relation_id: int, seq: int = 1) -> dict[str, Any]:
    return (await rows(store, "SELECT * FROM syncd.entries WHERE relation_id = :r AND seq = :s", r=relation_id, s=seq))[
        0
    ]


async def lane_of(store: Store, relation_id: int | None) -> dict[str, Any]:
    sql = "SELECT *, ready_at <= now() AS is_due FROM syncd.lanes WHERE relation_id IS NOT DISTINCT FROM :r"
    return (await rows(store, sql, r=relation_id))[0]


async def expire(store: Store) -> None:
    """Let every lease and back-off end, as time would."""
    async with store.begin() as connection:
        await connection.execute(text("UPDATE syncd.lanes SET ready_at = now() WHERE ready_at > now()"))
        await connection.execute(text("UPDATE syncd.entries SET next_attempt_at = now() WHERE next_attempt_at > now()"))
        await connection.execute(text("UPDATE syncd.lanes SET profile_lands_until = NULL, address_lands_until = NULL"))
