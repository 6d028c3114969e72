"""Reading the outbox as the next claims will find it: what is staged, and behind it what is captured only.

All of it is one snapshot of a transaction that may not write: nothing is moved, locked or claimed, so that looking
costs the drainers nothing and whoever looks may take their time. Entries are read by the claim's own statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from syncd.domain.changes import read_change
from syncd.domain.ids import AccountId
from syncd.policy.fold import Entry, RepeatSafe
from syncd.policy.landing import ALL_HAS_LANDED, Landing
from syncd.store.engine import Connection, Store
from syncd.store.outbox_address import note_addresses
from syncd.store.outbox_apply import changes_alone
from syncd.store.outbox_claim import read_entries
from syncd.store.outbox_doubt import doubtful, marked
from syncd.store.outbox_landing import NOTHING, Late, expected, late_of
from syncd.store.outbox_overtaken import leave_out_overtaken

WHOLE = 1_000_000_000
_BATCH = 500


@dataclass(frozen=True, slots=True)
class AccountNow:
    """Whether anything may be sent at all. ``now`` is the database's time of the snapshot; ``suspended`` says of each
    operation that a setting is wrong for what its trouble is."""

    now: datetime
    paused: str | None
    is_paused_by_operator: bool
    throttled_s: float
    breaker_state: str
    suspended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingLane:
    """One lane with everything that it has not delivered, in sequence order.

    What is captured and not staged yet comes last, under the sequence numbers that it will get; its ``Entry.id`` is
    the capture's id, negative; ``tail_seq`` counts it. ``sender`` is the worker that holds the lane now, if one does.
    What only says a delivered value once more is no change: it is counted in ``reassertions``, and left out.
    ``landing`` is what may still land of calls that were tried.
    """

    lane_id: int | None
    relation_id: int | None
    remote_id: str | None
    email: str | None
    sender: str | None
    tail_seq: int
    entries: tuple[Entry, ...]
    reassertions: int = 0
    landing: Landing = ALL_HAS_LANDED


@dataclass(frozen=True, slots=True)
class EntryNote:
    """What an entry carries besides the change: who made it and why, what went wrong, which question holds it."""

    actor: str | None
    reason: str | None
    error: str | None
    hold_id: int | None


@dataclass(frozen=True, slots=True)
class Names:
    """What facets are called, and what the mirror knows of lists and subscriptions: the base of calls about them."""

    fields: dict[int, str]
    lists: dict[int, str]
    list_statuses: dict[tuple[int, int], str]
    ends: dict[str, str]


_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

_NOW = text(
    """
    SELECT now() AS now, CASE WHEN s.paused_at IS NOT NULL THEN coalesce(s.pause_reason, 'paused') END AS paused,
           coalesce(s.is_paused_by_operator, false) AS is_paused_by_operator,
           greatest(coalesce(CAST(extract(epoch FROM s.throttled_until - now()) AS double precision), 0), 0)
               AS throttled_s,
           coalesce(s.breaker_state, 'closed') AS breaker_state,
           ARRAY(SELECT i.summary FROM syncd.incidents i
                 WHERE i.account_id = :account_id AND i.kind = 'breaker' AND i.subject LIKE 'operation:%'
                   AND i.closed_at IS NULL ORDER BY i.subject) AS suspended
    FROM (SELECT 1) AS one LEFT JOIN syncd.account_states s ON s.account_id = :account_id
    """
)

# In the order in which a claim would take them: what is captured will be due when it is staged. The literal list of
# statuses lets the planner use the index of undelivered entries, however many are settled.
_LANES = text(
    """
    WITH waiting AS (
        SELECT relation_id, bool_or(is_captured) AS is_captured
        FROM (SELECT relation_id, true AS is_captured FROM syncd.captures WHERE account_id = :account_id
              UNION ALL
              SELECT relation_id, false FROM syncd.entries
              WHERE account_id = :account_id AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')) AS found
        GROUP BY relation_id
    )
    SELECT w.relation_id, w.is_captured, l.id AS lane_id, coalesce(l.tail_seq, 0) AS tail_seq, l.sending_upto,
           l.profile_lands_until, l.address_lands_until,
           CASE WHEN l.ready_at > now() THEN l.claimed_by END AS sender, r.remote_id, r.email
    FROM waiting w
    LEFT JOIN syncd.lanes l ON l.account_id = :account_id AND coalesce(l.relation_id, -1) = coalesce(w.relation_id, -1)
    LEFT JOIN crm.relations r ON r.id = w.relation_id
    WHERE (CAST(:email AS text) IS NULL OR lower(r.email) = lower(:email))
    ORDER BY CASE WHEN w.is_captured THEN LEAST(l.ready_at, now()) ELSE l.ready_at END NULLS LAST, w.relation_id
    """
)

# Relation by relation along its index, whatever the planner thinks of a table that was just filled; and two statements,
# because an OR between them would read every capture for each batch.
_OF_RELATIONS = text(
    """
    SELECT c.* FROM unnest(CAST(:relation_ids AS bigint[])) AS w (id)
    CROSS JOIN LATERAL (
        SELECT relation_id, id, operation, facet, captured_at,
               CAST(syncd.payload_of(operation, facet, payload, before, after) AS text) AS payload
        FROM syncd.captures
        WHERE relation_id = w.id AND account_id = :account_id ORDER BY id OFFSET 0
    ) AS c
    """
)
_OF_ACCOUNT = text(
    """
    SELECT relation_id, id, operation, facet, captured_at,
           CAST(syncd.payload_of(operation, facet, payload, before, after) AS text) AS payload
    FROM syncd.captures
    WHERE relation_id IS NULL AND account_id = :account_id ORDER BY id
    """
)

_NOTES = text(
    """
    SELECT id, actor, reason, error, hold_id FROM syncd.entries WHERE id = ANY (CAST(:ids AS bigint[]))
    UNION ALL
    SELECT -id, actor, reason, NULL, NULL FROM syncd.captures WHERE -id = ANY (CAST(:ids AS bigint[]))
    """
)

_FIELDS = text("SELECT id, coalesce(nullif(name, ''), code) AS name FROM crm.fields WHERE id = ANY (:ids)")
_LISTS = text("SELECT id, name FROM crm.lists WHERE id = ANY (:ids) AND name IS NOT NULL")
_STATUSES = text(
    """
    SELECT relation_id, list_id, status FROM crm.list_subscriptions
    WHERE relation_id = ANY (:relation_ids) AND list_id = ANY (:ids) AND missing_since IS NULL
    """
)
_ENDS = text(
    """
    SELECT l.subscription_id, CAST(max(l.subscription_ends_on) AS text) AS ends_on
    FROM crm.order_lines l JOIN crm.orders o ON o.id = l.order_id
    WHERE o.account_id = :account_id AND l.subscription_id = ANY (:ids) AND l.subscription_ends_on IS NOT NULL
    GROUP BY l.subscription_id
    """
)


@asynccontextmanager
async def snapshot(store: Store) -> AsyncIterator[Connection]:
    """Open a transaction that sees one instant throughout and cannot write."""
    async with store.begin() as connection:
        await connection.execute(_SNAPSHOT)
        yield connection


async def read_account_now(connection: Connection, account_id: AccountId) -> AccountNow:
    """Return the database's time, and what forbids sending."""
    row = (await connection.execute(_NOW, {"account_id": account_id})).one()._asdict()
    return AccountNow(**{**row, "suspended": tuple(row["suspended"])})


async def waiting_lanes(
    connection: Connection,
    account_id: AccountId,
    is_repeat_safe: RepeatSafe,
    now: datetime,
    *,
    lands_s: float = 0.0,
    email: str | None = None,
) -> AsyncIterator[WaitingLane]:
    """Yield every lane that has something undelivered, in the order in which claims would take them.

    A claim that was dropped in mid-sending leaves its barrier in doubt; it is told so here as the next claim will: it
    may land for ``lands_s`` from ``now``.
    """
    found = await connection.stream(_LANES, {"account_id": account_id, "email": email})
    async for batch in found.partitions(_BATCH):
        entries = await read_entries(connection, {row.lane_id: 0 for row in batch if row.lane_id is not None}, WHOLE)
        captures = await _read_captures(connection, account_id, [row for row in batch if row.is_captured])
        numbered = {row.relation_id: _numbered(captures.get(row.relation_id, []), row.tail_seq) for row in batch}
        await note_addresses(connection, numbered.values(), are_captured=True)
        told = [(row, *_doubted(entries.get(row.lane_id, []), row, is_repeat_safe, lands_s)) for row in batch]
        await leave_out_overtaken(connection, {row.lane_id: staged for row, staged, _ in told})
        for row, staged, late in told:
            captured = numbered[row.relation_id]
            yield _lane(row, staged, captured, expected(row, late, now))


async def read_notes(connection: Connection, entries: Sequence[Entry]) -> dict[int, EntryNote]:
    """Return what is noted of entries and captures, by ``Entry.id``."""
    rows = await connection.execute(_NOTES, {"ids": [entry.id for entry in entries]})
    return {row.id: EntryNote(row.actor, row.reason, row.error, row.hold_id) for row in rows}


async def read_names(
    connection: Connection,
    account_id: AccountId,
    relation_ids: Sequence[int],
    *,
    fields: Sequence[int],
    lists: Sequence[int],
    subscriptions: Sequence[str],
) -> Names:
    """Return the names of fields and lists, and what the mirror knows of these relations' lists and subscriptions."""
    named = {row.id: row.name for row in await connection.execute(_FIELDS, {"ids": list(fields)})}
    listed = {row.id: row.name for row in await connection.execute(_LISTS, {"ids": list(lists)})}
    rows = await connection.execute(_STATUSES, {"relation_ids": list(relation_ids), "ids": list(lists)})
    statuses = {(row.relation_id, row.list_id): row.status for row in rows}
    ends = await connection.execute(_ENDS, {"account_id": account_id, "ids": list(subscriptions)})
    return Names(named, listed, statuses, {row.subscription_id: row.ends_on for row in ends})


def _lane(row: Any, staged: Sequence[Entry], captured: Sequence[Entry], landing: Landing) -> WaitingLane:
    changes = changes_alone(staged)
    return WaitingLane(
        lane_id=row.lane_id,
        relation_id=row.relation_id,
        remote_id=row.remote_id,
        email=row.email,
        sender=row.sender,
        tail_seq=row.tail_seq + len(captured),
        entries=(*changes, *captured),
        reassertions=len(staged) - len(changes),
        landing=landing,
    )


async def _read_captures(
    connection: Connection, account_id: AccountId, lanes: Sequence[Any]
) -> dict[int | None, list[Any]]:
    captures: dict[int | None, list[Any]] = {}
    ids = [row.relation_id for row in lanes if row.relation_id is not None]
    if ids:
        found = await connection.execute(_OF_RELATIONS, {"account_id": account_id, "relation_ids": ids})
        for row in found:
            captures.setdefault(row.relation_id, []).append(row)
    if len(ids) < len(lanes):
        captures[None] = list(await connection.execute(_OF_ACCOUNT, {"account_id": account_id}))
    return captures


def _numbered(captures: Sequence[Any], tail_seq: int) -> list[Entry]:
    """Turn captures into the entries that staging will make of them."""
    entries = []
    for seq, row in enumerate(captures, tail_seq + 1):
        change, fault = read_change(row.operation, row.payload)
        entries.append(
            Entry(
                id=-row.id,
                seq=seq,
                operation=row.operation,
                facet=row.facet,
                status="pending",
                attempts=0,
                next_attempt_at=None,
                is_uncertain=False,
                captured_at=row.captured_at,
                change=change,
                fault=fault,
            )
        )
    return entries


def _doubted(
    entries: Sequence[Entry], lane: Any, is_repeat_safe: RepeatSafe, lands_s: float
) -> tuple[list[Entry], Late]:
    """Tell the doubt that the next claim will write down; while a worker holds the lane there is none."""
    if lane.sender is not None:
        return list(entries), NOTHING
    found = doubtful(entries, lane.sending_upto, is_repeat_safe)
    return marked(entries, found), late_of(found, entries, lands_s)
