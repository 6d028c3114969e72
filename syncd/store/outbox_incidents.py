"""Incidents about entries: parked, and diverged. Opened with what a person needs to decide, closed when it is decided.

The evidence of a parked entry is what was sent, when each try was made and what it came to, and what reading showed. A
diverged one's is what was expected and what the CRM shows. Both hold values of the relation, as the entry itself does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.policy.proof import Showing
from syncd.store.engine import Connection
from syncd.store.incidents import open_incidents
from syncd.store.outbox_results import LaneSettlement

_TRIES = 20

_EVIDENCE = text(
    f"""
    SELECT e.id, e.operation, e.facet, CAST(e.payload AS text) AS payload, e.captured_at, e.error,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('at', t.started_at, 'outcome', t.outcome, 'told', t.detail)
                                      ORDER BY t.id), '[]')
            FROM (SELECT * FROM syncd.attempts a WHERE a.entry_id = e.id ORDER BY a.id DESC LIMIT {_TRIES}) AS t
           )::text AS tries
    FROM syncd.entries e WHERE e.id = ANY (CAST(:ids AS bigint[]))
    """
)

_CLOSE = text(
    """
    UPDATE syncd.incidents SET closed_at = now()
    WHERE closed_at IS NULL AND kind IN ('parked', 'diverged') AND subject = ANY (CAST(:subjects AS text[]))
    """
)


def subject_of(entry_id: int) -> str:
    return f"entry:{entry_id}"


def diverged(entry_id: int, operation: str, facet: str, seen: Showing) -> Incident:
    """Return the incident of a change that the CRM said yes to and does not show."""
    return Incident(
        IncidentKind.DIVERGED,
        subject_of(entry_id),
        f"{operation} was delivered and the CRM shows another {', '.join(seen.expected) or 'value'}",
        {"operation": operation, "facet": facet, "expected": dict(seen.expected), "shown": dict(seen.shown)},
    )


def parked(entry_id: int, operation: str, facet: str) -> Incident:
    """Return the incident of a change of which nobody can tell whether it was applied; settle adds the evidence."""
    summary = f"nobody can tell whether {operation} was applied: look in the CRM, then retry or skip it"
    return Incident(IncidentKind.PARKED, subject_of(entry_id), summary, {"operation": operation, "facet": facet})


async def note(connection: Connection, account_id: AccountId, lanes: Sequence[LaneSettlement]) -> None:
    """Open and close what settled lanes say, after their entries and attempts are written."""
    news = [incident for s in lanes for incident in s.incidents]
    if news:
        ids = [_entry_of(one) for one in news if one.kind is IncidentKind.PARKED]
        evidence = await _evidence(connection, ids) if ids else {}
        await open_incidents(connection, account_id, [_with(one, evidence) for one in news])
    await close_for_entries(connection, [entry_id for s in lanes for entry_id in s.at_rest])


async def close_for_entries(connection: Connection, entry_ids: Iterable[int]) -> None:
    """Close what is open about entries: they were retried, skipped, superseded or verified."""
    subjects = [subject_of(entry_id) for entry_id in entry_ids]
    if subjects:
        await connection.execute(_CLOSE, {"subjects": subjects})


async def _evidence(connection: Connection, ids: Sequence[int]) -> Mapping[int, dict[str, object]]:
    rows = await connection.execute(_EVIDENCE, {"ids": list(ids)})
    return {
        row.id: {
            "operation": row.operation,
            "facet": row.facet,
            "sent": msgspec.json.decode(row.payload),
            "made_at": row.captured_at,
            "tries": msgspec.json.decode(row.tries),
            "reading": row.error,
        }
        for row in rows
    }


def _entry_of(incident: Incident) -> int:
    return int(incident.subject.removeprefix("entry:"))


def _with(incident: Incident, evidence: Mapping[int, dict[str, object]]) -> Incident:
    if incident.kind is not IncidentKind.PARKED:
        return incident
    return msgspec.structs.replace(incident, detail=evidence.get(_entry_of(incident), incident.detail))
