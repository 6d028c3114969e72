"""Reading the outbox: what waits, what failed, and why. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, text

from syncd.store.decisions import PastDecision, decisions_about
from syncd.store.engine import Connection


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One entry as an operator sees it. ``payload`` is JSON text; the e-mail is the relation's as mirrored now."""

    id: int
    lane_id: int
    seq: int
    account: str
    relation_id: int | None
    email: str | None
    operation: str
    facet: str
    payload: str
    status: str
    attempts: int
    next_attempt_at: datetime | None
    is_uncertain: bool
    error: str | None
    superseded_by: int | None
    actor: str | None
    reason: str | None
    captured_at: datetime
    staged_at: datetime
    settled_at: datetime | None
    hold_id: int | None
    block_reason: str | None
    reasserts: int | None = None
    proved_at: datetime | None = None
    proved_run_id: int | None = None


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """One conversation about an entry."""

    started_at: datetime
    elapsed_s: float
    requests: int
    status_code: int | None
    outcome: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class EntryStory:
    entry: OutboxEntry
    attempts: tuple[PastAttempt, ...]
    decisions: tuple[PastDecision, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to list. Empty ``statuses`` means all that are not delivered."""

    statuses: tuple[str, ...] = ()
    account: str | None = None
    relation_id: int | None = None
    email: str | None = None
    facet: str | None = None
    operation: str | None = None
    hold_id: int | None = None
    most: int = 100


@dataclass(frozen=True, slots=True)
class ReasonGroup:
    """Entries that failed alike: same account, operation, status and words, whatever numbers stand in the words.

    ``entry_id`` is the oldest of them, to look at; an entry without words of its own says what blocks its lane.
    """

    account: str
    operation: str
    status: str
    reason: str
    entries: int
    relations: int
    oldest_at: datetime
    entry_id: int


_UNDELIVERED = ("pending", "held", "dead", "parked", "diverged")

_COLUMNS = """
    SELECT e.id, e.lane_id, e.seq, a.name AS account, e.relation_id, r.email, e.operation, e.facet,
           CAST(e.payload AS text) AS payload, e.status, e.attempts, e.next_attempt_at, e.is_uncertain, e.error,
           e.superseded_by, e.actor, e.reason, e.captured_at, e.staged_at, e.settled_at, e.hold_id, l.block_reason,
           e.reasserts, e.proved_at, e.proved_run_id
"""

# The literal list lets the planner use the index of undelivered entries, however many are settled.
_LITERAL = "e.status IN ('pending', 'held', 'dead', 'parked', 'diverged')"

_SELECTED = """
    WHERE {literal} AND e.status = ANY (CAST(:statuses AS text[]))
      AND (CAST(:account AS text) IS NULL OR a.name = :account)
      AND (CAST(:relation_id AS bigint) IS NULL OR e.relation_id = :relation_id)
      AND (CAST(:email AS text) IS NULL OR lower(r.email) = lower(:email))
      AND (CAST(:facet AS text) IS NULL OR e.facet = :facet)
      AND (CAST(:operation AS text) IS NULL OR e.operation = :operation)
      AND (CAST(:hold_id AS bigint) IS NULL OR e.hold_id = :hold_id)
"""
_FROM = """
    FROM syncd.entries e
    JOIN syncd.lanes l ON l.id = e.lane_id
    JOIN crm.accounts a ON a.id = e.account_id
    LEFT JOIN crm.relations r ON r.id = e.relation_id
"""

_LIST = _COLUMNS + _FROM + _SELECTED + " ORDER BY e.id LIMIT :most"
_COUNTS = "SELECT e.status, count(*) AS entries" + _FROM + _SELECTED + " GROUP BY e.status"
_REASONS = (
    """
    SELECT a.name AS account, e.operation, e.status, w.reason, count(*) AS entries,
           count(DISTINCT e.relation_id) AS relations, min(e.captured_at) AS oldest_at, min(e.id) AS entry_id
    """
    + _FROM
    + r"""
    CROSS JOIN LATERAL (
        SELECT regexp_replace(coalesce(e.error, l.block_reason, 'no reason given'), '\d+', '#', 'g') AS reason
    ) AS w
    """
    + _SELECTED
    + " GROUP BY 1, 2, 3, 4 ORDER BY entries DESC, 1, 2, 3, 4 LIMIT :most"
)

_SHOW = text(_COLUMNS + _FROM + " WHERE e.id = :entry_id")

_ATTEMPTS = text(
    """
    SELECT started_at, elapsed_s, requests, status_code, outcome, detail
    FROM syncd.attempts WHERE entry_id = :entry_id ORDER BY id
    """
)


async def list_entries(connection: Connection, selection: Selection) -> tuple[OutboxEntry, ...]:
    """Return entries in the order of their capture."""
    return tuple(OutboxEntry(**row) for row in (await _selected(connection, _LIST, selection)).mappings())


async def count_entries(connection: Connection, selection: Selection) -> dict[str, int]:
    """Count the selected entries by status; the selection's ``most`` does not matter."""
    rows = (await _selected(connection, _COUNTS, selection)).all()
    counted = {row.status: row.entries for row in rows}
    return {status: counted[status] for status in (*_UNDELIVERED, *sorted(counted)) if status in counted}


async def group_by_reason(connection: Connection, selection: Selection) -> tuple[ReasonGroup, ...]:
    """Return the selected entries grouped by why they wait, the largest group first."""
    return tuple(ReasonGroup(**row) for row in (await _selected(connection, _REASONS, selection)).mappings())


async def _selected(connection: Connection, statement: str, selection: Selection) -> CursorResult[Any]:
    statuses = selection.statuses or _UNDELIVERED
    binds = {
        "statuses": list(statuses),
        "account": selection.account,
        "relation_id": selection.relation_id,
        "email": selection.email,
        "facet": selection.facet,
        "operation": selection.operation,
        "hold_id": selection.hold_id,
        "most": selection.most,
    }
    literal = _LITERAL if set(statuses) <= set(_UNDELIVERED) else "true"
    return await connection.execute(text(statement.format(literal=literal)), binds)


async def show_entry(connection: Connection, entry_id: int) -> EntryStory | None:
    """Return an entry with everything that was tried for it; a superseded one was tried as the entry it names."""
    row = (await connection.execute(_SHOW, {"entry_id": entry_id})).mappings().one_or_none()
    if row is None:
        return None
    attempts = await connection.execute(_ATTEMPTS, {"entry_id": entry_id})
    tries = tuple(PastAttempt(**attempt) for attempt in attempts.mappings())
    return EntryStory(OutboxEntry(**row), tries, await decisions_about(connection, entry_id))
