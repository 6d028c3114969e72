"""Explain: everything that is known of how one relation's values came to be, on both sides. Reads only.

What was done here: captures, entries, what persons decided, tries, proofs. What was heard: the mirror's rows, the
changes that pulls applied and the runs that brought them, conflicts. Entries that were pruned are not there any more;
the changes they led to are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection
from syncd.store.outbox_read import PastAttempt


@dataclass(frozen=True, slots=True)
class Decided:
    """What a person decided about an entry, or about the hold that it waited for."""

    decided_at: datetime
    verb: str
    actor: str
    reason: str | None
    hold_id: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """The question that an entry waited for."""

    id: int
    status: str
    reason: str
    opened_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class LocalEdit:
    """One local change from its transaction to its proof. ``id`` is None while it is captured and not staged."""

    id: int | None
    capture_id: int | None
    seq: int | None
    operation: str
    facet: str
    payload: str
    status: str
    attempts: int
    next_attempt_at: datetime | None
    is_uncertain: bool
    error: str | None
    superseded_by: int | None
    reasserts: int | None
    actor: str | None
    reason: str | None
    xact: str
    captured_at: datetime
    staged_at: datetime | None
    settled_at: datetime | None
    prove_until: datetime | None
    proved_at: datetime | None
    proved_run_id: int | None
    tries: tuple[PastAttempt, ...] = ()
    decisions: tuple[Decided, ...] = ()
    hold: Held | None = None


@dataclass(frozen=True, slots=True)
class RunFound:
    """The pull whose answer brought a value: which stream, over which window it was asked, when."""

    id: int
    stream: str
    trigger: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    asked_from: datetime | None
    asked_upto: datetime | None


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One applied change, of either direction. ``before`` and ``after`` are JSON objects as text."""

    id: int
    table_name: str
    link_id: int | None
    kind: str
    origin: str
    run_id: int | None
    entry_id: int | None
    before: str | None
    after: str | None
    changed_at: datetime
    xact: str


@dataclass(frozen=True, slots=True)
class ConflictLine:
    """A column that both sides moved."""

    field: str
    base: str | None
    local: str | None
    remote: str | None
    owner: str
    status: str
    run_id: int | None
    noticed_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class LinkLine:
    """A tag, group, list or field value that the mirror holds of the relation."""

    table_name: str
    facet: str
    name: str
    value: str
    first_seen_at: datetime
    last_seen_at: datetime
    missing_since: datetime | None


@dataclass(frozen=True, slots=True)
class ReadLine:
    """When a stream was last read of this relation."""

    stream: str
    read_at: datetime
    absent_since: datetime | None


_COLUMNS = """
    id, NULL AS capture_id, seq, operation, facet, CAST(payload AS text) AS payload, status, attempts, next_attempt_at,
    is_uncertain, error, superseded_by, reasserts, actor, reason, CAST(xact AS text) AS xact, captured_at, staged_at,
    settled_at, prove_until, proved_at, proved_run_id, hold_id
"""

# The newest so many, in order. Through the lane: entries have no index by relation.
_ENTRIES = text(
    f"""
    SELECT * FROM (
        SELECT {_COLUMNS} FROM syncd.entries e
        WHERE e.lane_id = (SELECT id FROM syncd.lanes WHERE account_id = :account_id AND relation_id = :relation_id)
          AND (CAST(:facets AS text[]) IS NULL OR e.facet = ANY (CAST(:facets AS text[])))
        ORDER BY e.seq DESC LIMIT :most
    ) AS newest ORDER BY seq
    """
)

_ONE_ENTRY = text(
    f"""
    SELECT {_COLUMNS} FROM syncd.entries e
    WHERE e.id = :entry_id OR e.lane_id = (SELECT lane_id FROM syncd.entries WHERE id = :entry_id)
      AND (e.superseded_by = :entry_id OR e.reasserts = :entry_id
           OR e.id IN (SELECT unnest(ARRAY[superseded_by, reasserts]) FROM syncd.entries WHERE id = :entry_id))
    ORDER BY e.seq
    """
)

_CAPTURES = text(
    """
    SELECT NULL AS id, id AS capture_id, NULL AS seq, operation, facet,
           CAST(syncd.payload_of(operation, facet, payload, before, after) AS text) AS payload,
           'captured' AS status, 0 AS attempts, NULL AS next_attempt_at, false AS is_uncertain, NULL AS error,
           NULL AS superseded_by, NULL AS reasserts, actor, reason, CAST(xact AS text) AS xact, captured_at,
           NULL AS staged_at, NULL AS settled_at, NULL AS prove_until, NULL AS proved_at, NULL AS proved_run_id,
           NULL AS hold_id
    FROM syncd.captures
    WHERE relation_id = :relation_id AND (CAST(:facets AS text[]) IS NULL OR facet = ANY (CAST(:facets AS text[])))
    ORDER BY id LIMIT :most
    """
)

_TRIES = text(
    """
    SELECT entry_id, started_at, elapsed_s, requests, status_code, outcome, detail
    FROM syncd.attempts WHERE entry_id = ANY (CAST(:ids AS bigint[])) ORDER BY id
    """
)

_DECISIONS = text(
    """
    SELECT entry_id, hold_id, decided_at, verb, actor, reason FROM syncd.decisions
    WHERE entry_id = ANY (CAST(:ids AS bigint[])) OR hold_id = ANY (CAST(:hold_ids AS bigint[]))
    ORDER BY id
    """
)

_HOLDS = text(
    "SELECT id, status, reason, opened_at, decided_at FROM syncd.holds WHERE id = ANY (CAST(:hold_ids AS bigint[]))"
)

# A change of the relation's row speaks of columns; one of a link table of the facet that its link is.
_HISTORY = text(
    """
    SELECT * FROM (
        SELECT id, table_name, link_id, kind, origin, run_id, entry_id, CAST(before AS text) AS before,
               CAST(after AS text) AS after, changed_at, CAST(xact AS text) AS xact
        FROM syncd.changes
        WHERE table_name = ANY (ARRAY['relations', 'relation_tags', 'relation_fields', 'group_members',
                                      'list_subscriptions'])
          AND row_id = :relation_id AND origin <> 'edit' -- edits are told from their entries
          AND (CAST(:facets AS text[]) IS NULL
               OR (table_name = 'relations' AND :with_columns AND (CAST(:column AS text) IS NULL OR kind <> 'update'
                       OR after ? CAST(:column AS text) OR before ? CAST(:column AS text)))
               OR CASE table_name WHEN 'relation_tags' THEN 'tag:' WHEN 'relation_fields' THEN 'field:'
                                  WHEN 'group_members' THEN 'group:' ELSE 'list:' END || link_id
                  = ANY (CAST(:facets AS text[])))
        ORDER BY id DESC LIMIT :most
    ) AS newest ORDER BY id
    """
)

_RUNS = text(
    """
    SELECT id, stream, trigger, status, started_at, finished_at, asked_from, asked_upto
    FROM syncd.runs WHERE id = ANY (CAST(:ids AS bigint[]))
    """
)

# The pull during which a row was last seen: its transaction lies between start and end.
_SEEN_BY = text(
    """
    SELECT id, stream, trigger, status, started_at, finished_at, asked_from, asked_upto
    FROM syncd.runs
    WHERE account_id = :account_id AND stream = ANY (CAST(:streams AS text[])) AND status = 'succeeded'
      AND started_at <= :seen_at AND finished_at >= :seen_at
    ORDER BY started_at DESC LIMIT 1
    """
)

_CONFLICTS = text(
    """
    SELECT field, base, local, remote, owner, status, run_id, noticed_at, resolved_at FROM syncd.conflicts
    WHERE account_id = :account_id AND table_name = 'relations' AND row_id = :relation_id
      AND (CAST(:column AS text) IS NULL OR field = :column)
    ORDER BY id DESC LIMIT :most
    """
)

_LINKS = text(
    """
    SELECT * FROM (
        SELECT 'relation_tags' AS table_name, 'tag:' || t.id AS facet, 'tag:' || t.name AS name, 'yes' AS value,
               l.first_seen_at, l.last_seen_at, l.missing_since
        FROM crm.relation_tags l JOIN crm.tags t ON t.id = l.tag_id WHERE l.relation_id = :relation_id
        UNION ALL
        SELECT 'group_members', 'group:' || g.id, 'group:' || coalesce(g.title, CAST(g.id AS text)), 'yes',
               l.first_seen_at, l.last_seen_at, l.missing_since
        FROM crm.group_members l JOIN crm.groups g ON g.id = l.group_id WHERE l.relation_id = :relation_id
        UNION ALL
        SELECT 'relation_fields', 'field:' || f.id, 'field:' || coalesce(nullif(f.name, ''), f.code),
               coalesce(l.value, ''), l.first_seen_at, l.last_seen_at, NULL
        FROM crm.relation_fields l JOIN crm.fields f ON f.id = l.field_id WHERE l.relation_id = :relation_id
        UNION ALL
        SELECT 'list_subscriptions', 'list:' || m.id, 'list:' || coalesce(m.name, CAST(m.id AS text)), l.status,
               l.first_seen_at, l.last_seen_at, l.missing_since
        FROM crm.list_subscriptions l JOIN crm.lists m ON m.id = l.list_id WHERE l.relation_id = :relation_id
    ) AS links
    WHERE CAST(:facets AS text[]) IS NULL OR facet = ANY (CAST(:facets AS text[]))
    ORDER BY table_name, name
    """
)

_READS = text(
    """
    SELECT stream, read_at, absent_since FROM syncd.readings
    WHERE account_id = :account_id AND stream LIKE 'relation\\_%' AND row_id = :relation_id ORDER BY stream
    """
)


async def read_edits(
    connection: Connection, account_id: AccountId, relation_id: int, facets: Sequence[str] | None, most: int
) -> tuple[LocalEdit, ...]:
    """Return the relation's newest local changes, oldest first, each with its whole story."""
    binds = {"account_id": account_id, "relation_id": relation_id, "facets": _listed(facets), "most": most}
    staged = (await connection.execute(_ENTRIES, binds)).mappings().all()
    captured = (await connection.execute(_CAPTURES, binds)).mappings().all()
    return await _told(connection, [*staged, *captured])


async def read_edit(connection: Connection, entry_id: int) -> tuple[LocalEdit, ...]:
    """Return one entry, with those that it superseded or that superseded it, and its re-assertions."""
    return await _told(connection, (await connection.execute(_ONE_ENTRY, {"entry_id": entry_id})).mappings().all())


async def read_history(
    connection: Connection, relation_id: int, facets: Sequence[str] | None, column: str | None, most: int
) -> tuple[HistoryLine, ...]:
    """Return the newest changes that either side made to the relation's rows, oldest first."""
    about_columns = {"identity", "profile"}.intersection(facets or ()) or column is not None
    binds = {"relation_id": relation_id, "facets": _listed(facets), "column": column, "most": most}
    rows = await connection.execute(_HISTORY, {**binds, "with_columns": bool(about_columns)})
    return tuple(HistoryLine(**row) for row in rows.mappings())


async def read_runs(connection: Connection, ids: Sequence[int]) -> dict[int, RunFound]:
    """Return runs by their ids."""
    rows = await connection.execute(_RUNS, {"ids": list(ids)})
    return {row["id"]: RunFound(**row) for row in rows.mappings()}


async def seen_by(
    connection: Connection, account_id: AccountId, streams: Sequence[str], seen_at: datetime
) -> RunFound | None:
    """Return the pull of one of these streams that was under way at a moment at which a row was seen."""
    binds = {"account_id": account_id, "streams": list(streams), "seen_at": seen_at}
    row = (await connection.execute(_SEEN_BY, binds)).mappings().one_or_none()
    return None if row is None else RunFound(**row)


async def read_conflicts(
    connection: Connection, account_id: AccountId, relation_id: int, column: str | None, most: int
) -> tuple[ConflictLine, ...]:
    """Return the conflicts about the relation's columns, the newest first."""
    binds = {"account_id": account_id, "relation_id": relation_id, "column": column, "most": most}
    return tuple(ConflictLine(**row) for row in (await connection.execute(_CONFLICTS, binds)).mappings())


async def read_links(connection: Connection, relation_id: int, facets: Sequence[str] | None) -> tuple[LinkLine, ...]:
    """Return the relation's tags, groups, field values and lists as the mirror has them."""
    rows = await connection.execute(_LINKS, {"relation_id": relation_id, "facets": _listed(facets)})
    return tuple(LinkLine(**row) for row in rows.mappings())


async def read_readings(connection: Connection, account_id: AccountId, relation_id: int) -> tuple[ReadLine, ...]:
    """Return when each sweep last read this relation."""
    rows = await connection.execute(_READS, {"account_id": account_id, "relation_id": relation_id})
    return tuple(ReadLine(**row) for row in rows.mappings())


async def _told(connection: Connection, rows: Sequence[Any]) -> tuple[LocalEdit, ...]:
    """Put tries, decisions and holds beside the entries that they are about."""
    ids = [row["id"] for row in rows if row["id"] is not None]
    hold_ids = sorted({row["hold_id"] for row in rows if row["hold_id"] is not None})
    tries: dict[int, list[PastAttempt]] = {}
    for row in (await connection.execute(_TRIES, {"ids": ids})).mappings():
        told = dict(row)
        tries.setdefault(told.pop("entry_id"), []).append(PastAttempt(**told))
    decisions = (await connection.execute(_DECISIONS, {"ids": ids, "hold_ids": hold_ids})).mappings().all()
    holds = {row["id"]: Held(**row) for row in (await connection.execute(_HOLDS, {"hold_ids": hold_ids})).mappings()}
    return tuple(_edit(row, tries, decisions, holds) for row in rows)


def _edit(
    row: Any,
    tries: Mapping[int, Sequence[PastAttempt]],
    decisions: Sequence[Any],
    holds: Mapping[int, Held],
) -> LocalEdit:
    told = dict(row)
    hold_id = told.pop("hold_id")
    decided = tuple(
        Decided(d["decided_at"], d["verb"], d["actor"], d["reason"], d["hold_id"])
        for d in decisions
        if (d["entry_id"] is not None and d["entry_id"] == row["id"])
        or (d["hold_id"] is not None and d["hold_id"] == hold_id)
    )
    return LocalEdit(**told, tries=tuple(tries.get(row["id"], ())), decisions=decided, hold=holds.get(hold_id))


def _listed(facets: Sequence[str] | None) -> list[str] | None:
    return None if facets is None else list(facets)
