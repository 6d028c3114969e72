"""Incidents: opened on an edge, counted while they last, closed when their subject is well again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.store.engine import Connection

_OPEN = text(
    """
    INSERT INTO syncd.incidents AS i (account_id, kind, subject, summary, detail)
    SELECT :account_id, kind, subject, summary, CAST(detail AS jsonb)
    FROM unnest(CAST(:kinds AS text[]), CAST(:subjects AS text[]), CAST(:summaries AS text[]), CAST(:details AS text[]))
        AS g (kind, subject, summary, detail)
    ORDER BY kind, subject
    ON CONFLICT (account_id, kind, subject) WHERE closed_at IS NULL DO UPDATE
        SET occurrences = i.occurrences + 1, last_seen_at = now(), summary = excluded.summary, detail = excluded.detail
    RETURNING kind, subject, occurrences
    """
)

_CLOSE = text(
    """
    UPDATE syncd.incidents SET closed_at = now()
    WHERE account_id = :account_id AND kind = :kind AND closed_at IS NULL
      AND (CAST(:subjects AS text[]) IS NULL OR subject = ANY (CAST(:subjects AS text[])))
    """
)

_LIST = text(
    """
    SELECT i.id, a.name AS account, i.kind, i.subject, i.summary, CAST(i.detail AS text) AS detail, i.occurrences,
           i.opened_at, i.last_seen_at, i.closed_at
    FROM syncd.incidents i JOIN crm.accounts a ON a.id = i.account_id
    WHERE (CAST(:account AS text) IS NULL OR a.name = :account) AND (:with_closed OR i.closed_at IS NULL)
    ORDER BY i.closed_at IS NOT NULL, i.last_seen_at DESC, i.id DESC
    LIMIT :most
    """
)


_COUNT = text(
    """
    SELECT a.name AS account, k.kind, count(i.id) AS open
    FROM crm.accounts a
    CROSS JOIN unnest(CAST(:kinds AS text[])) AS k (kind)
    LEFT JOIN syncd.incidents i ON i.account_id = a.id AND i.kind = k.kind AND i.closed_at IS NULL
    GROUP BY a.name, k.kind ORDER BY a.name, k.kind
    """
)


@dataclass(frozen=True, slots=True)
class IncidentCount:
    """How many incidents of a kind an account has open; zero is counted too."""

    account: str
    kind: str
    open: int


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """One incident as an operator sees it; ``detail`` is a JSON object as text."""

    id: int
    account: str
    kind: str
    subject: str
    summary: str
    detail: str
    occurrences: int
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None


async def open_incidents(
    connection: Connection, account_id: AccountId, incidents: Sequence[Incident]
) -> tuple[Incident, ...]:
    """Write incidents down; those that are open already are counted up. Return the ones that are news."""
    latest = {(incident.kind, incident.subject): incident for incident in incidents}
    if not latest:
        return ()
    given = list(latest.values())
    binds = {
        "account_id": account_id,
        "kinds": [incident.kind.value for incident in given],
        "subjects": [incident.subject for incident in given],
        "summaries": [incident.summary for incident in given],
        "details": [msgspec.json.encode(incident.detail).decode() for incident in given],
    }
    rows = (await connection.execute(_OPEN, binds)).all()
    return tuple(latest[IncidentKind(row.kind), row.subject] for row in rows if row.occurrences == 1)


async def close_incidents(
    connection: Connection, account_id: AccountId, kind: IncidentKind, subjects: Sequence[str] | None = None
) -> None:
    """Close the open incidents of a kind, all of them or those about some subjects. Closing none is no error."""
    binds = {"account_id": account_id, "kind": kind.value, "subjects": None if subjects is None else list(subjects)}
    await connection.execute(_CLOSE, binds)


async def list_incidents(
    connection: Connection, *, account: str | None = None, with_closed: bool = False, most: int = 100
) -> tuple[IncidentRow, ...]:
    """Return incidents, open ones first, the latest first."""
    binds = {"account": account, "with_closed": with_closed, "most": most}
    return tuple(IncidentRow(**row) for row in (await connection.execute(_LIST, binds)).mappings())


async def count_incidents(connection: Connection) -> tuple[IncidentCount, ...]:
    """Count the open incidents of every account and kind."""
    rows = await connection.execute(_COUNT, {"kinds": [kind.value for kind in IncidentKind]})
    return tuple(IncidentCount(**row) for row in rows.mappings())
