"""Summary: what a hold is about, in numbers and names, for the person who must decide about it. Reads only.

What belongs to a hold is what it holds already and what its transactions still have in captures. Of a decided one it is
told what became of its changes, as far as they are kept (``outbox_prune``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.policy.states import HoldStatus
from syncd.store.decisions import PastDecision, decision_about_hold
from syncd.store.engine import Connection

_MEMBERS = """
    WITH members AS MATERIALIZED (
        SELECT e.relation_id, e.operation, e.facet, e.payload, e.captured_at
        FROM syncd.entries e WHERE e.hold_id = :hold_id AND e.status = 'held'
        UNION ALL
        SELECT c.relation_id, c.operation, c.facet,
               syncd.payload_of(c.operation, c.facet, c.payload, c.before, c.after), c.captured_at
        FROM syncd.holds h JOIN syncd.captures c ON c.account_id = h.account_id AND c.xact = ANY (h.xacts)
        WHERE h.id = :hold_id
    )
"""

_COUNT = text(
    _MEMBERS
    + """
    SELECT operation, count(*) AS changes, count(DISTINCT relation_id) AS relations,
           count(DISTINCT (relation_id, facet)) AS deliveries
    FROM members GROUP BY GROUPING SETS ((operation), ()) ORDER BY changes DESC, operation
    """
)

# What a change is about, by name: the tag, the group, the field, the columns.
_ABOUT = """
    CASE WHEN operation = 'update_profile'
         THEN (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(payload -> 'new') AS k)
         ELSE coalesce(payload ->> 'tag_name', payload ->> 'group_title', payload ->> 'code',
                       'group ' || (payload ->> 'group_remote_id'), 'list ' || (payload ->> 'list_remote_id'),
                       payload ->> 'label', '') END
"""

_THINGS = text(
    _MEMBERS
    + f"""
    SELECT operation, {_ABOUT} AS about, count(*) AS changes, count(DISTINCT relation_id) AS relations
    FROM members GROUP BY 1, 2 ORDER BY changes DESC, 1, 2 LIMIT :most
    """
)

_EXAMPLES = text(
    _MEMBERS
    + f"""
    SELECT r.email, m.operation, {_ABOUT} AS about
    FROM (SELECT * FROM members ORDER BY captured_at LIMIT :most) AS m
    LEFT JOIN crm.relations r ON r.id = m.relation_id ORDER BY m.captured_at
    """
)

_HOLDS = text(
    """
    SELECT h.id, a.name AS account, h.status, h.reason, h.opened_at, h.decided_at,
           h.finished_at, cardinality(h.xacts) AS transactions,
           coalesce(m.held, 0) AS held, coalesce(m.relations, 0) AS relations
    FROM syncd.holds h JOIN crm.accounts a ON a.id = h.account_id
    LEFT JOIN LATERAL (
        SELECT count(*) AS held, count(DISTINCT e.relation_id) AS relations
        FROM syncd.entries e WHERE e.hold_id = h.id AND e.status = 'held'
    ) AS m ON h.finished_at IS NULL
    WHERE (CAST(:account AS text) IS NULL OR a.name = :account)
      AND (CAST(:hold_id AS bigint) IS NULL OR h.id = :hold_id)
      AND (NOT CAST(:is_open AS boolean) OR h.status = 'open')
    ORDER BY h.status <> 'open', h.id DESC LIMIT :most
    """
)

_BECAME = text(
    """
    SELECT status, count(*) AS changes, count(DISTINCT relation_id) AS relations
    FROM (
        SELECT e.status, e.relation_id FROM syncd.entries e WHERE e.hold_id = :hold_id
        UNION ALL
        SELECT 'captured', c.relation_id
        FROM syncd.holds h JOIN syncd.captures c ON c.account_id = h.account_id AND c.xact = ANY (h.xacts)
        WHERE h.id = :hold_id
    ) AS theirs
    GROUP BY GROUPING SETS ((status), ()) ORDER BY changes DESC, status
    """
)

_COSTS = text(
    """
    SELECT operation, CAST(avg(requests) AS double precision) AS calls, avg(elapsed_s) AS elapsed_s
    FROM (SELECT t.operation, t.requests, t.elapsed_s FROM syncd.attempts t
          JOIN crm.accounts a ON a.id = t.account_id
          WHERE a.name = :account AND t.requests > 0 ORDER BY t.id DESC LIMIT 2000) AS lately
    GROUP BY operation
    """
)


@dataclass(frozen=True, slots=True)
class Members:
    """How much a hold holds. ``operations`` and ``deliveries`` are numbers by operation; folded, one may be less."""

    changes: int
    relations: int
    operations: dict[str, int]
    deliveries: dict[str, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """One kind of change and what it is about: add_tag of the tag called so."""

    operation: str
    about: str
    changes: int
    relations: int


@dataclass(frozen=True, slots=True)
class Example:
    email: str | None
    operation: str
    about: str


@dataclass(frozen=True, slots=True)
class HoldRow:
    """One hold. ``held`` changes of ``relations`` wait; of a decided hold, those that are still to follow it.

    ``transactions`` are those that belong to it whole.
    """

    id: int
    account: str
    status: str
    reason: str
    opened_at: datetime
    decided_at: datetime | None
    finished_at: datetime | None
    transactions: int
    held: int
    relations: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a delivery of an operation took lately, on average."""

    calls: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Became:
    """What became of a decided hold's changes that are kept: how many of how many relations, and numbers by status;
    ``captured`` is what is not staged yet."""

    changes: int
    relations: int
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True)
class HoldSummary:
    """Everything a person should know before deciding, and of a decided hold what was decided and what became of it.
    ``costs`` is empty for an account that has sent nothing."""

    hold: HoldRow
    members: Members
    things: tuple[Thing, ...]
    examples: tuple[Example, ...]
    costs: dict[str, Cost]
    verdict: PastDecision | None = None
    became: Became | None = None


async def list_holds(
    connection: Connection,
    *,
    account: str | None = None,
    hold_id: int | None = None,
    is_open: bool = False,
    most: int = 20,
) -> tuple[HoldRow, ...]:
    """Return holds, open ones first, then the latest first."""
    binds = {"account": account, "hold_id": hold_id, "is_open": is_open, "most": most}
    return tuple(HoldRow(**row) for row in (await connection.execute(_HOLDS, binds)).mappings())


async def count_members(connection: Connection, hold_id: int) -> Members:
    """Count what belongs to a hold."""
    rows = (await connection.execute(_COUNT, {"hold_id": hold_id})).all()
    total = next(row for row in rows if row.operation is None)
    named = [row for row in rows if row.operation is not None]
    return Members(
        total.changes,
        total.relations,
        {row.operation: row.changes for row in named},
        {row.operation: row.deliveries for row in named},
    )


async def summarise(connection: Connection, hold: HoldRow, *, things: int = 20, examples: int = 5) -> HoldSummary:
    """Return what a hold is about."""
    binds = {"hold_id": hold.id}
    found = (await connection.execute(_THINGS, {**binds, "most": things})).mappings()
    shown = (await connection.execute(_EXAMPLES, {**binds, "most": examples})).mappings()
    costs = await connection.execute(_COSTS, {"account": hold.account})
    return HoldSummary(
        hold,
        await count_members(connection, hold.id),
        tuple(Thing(**row) for row in found),
        tuple(Example(**row) for row in shown),
        {row.operation: Cost(row.calls, row.elapsed_s) for row in costs},
        await decision_about_hold(connection, hold.id),
        None if hold.status == HoldStatus.OPEN else await _became(connection, hold.id),
    )


async def _became(connection: Connection, hold_id: int) -> Became:
    rows = (await connection.execute(_BECAME, {"hold_id": hold_id})).all()
    total = next(row for row in rows if row.status is None)
    return Became(total.changes, total.relations, {row.status: row.changes for row in rows if row.status is not None})
