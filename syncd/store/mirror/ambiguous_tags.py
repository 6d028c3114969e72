"""Ambiguous tags: several of one name. The CRM shows a relation's tags by name; which of those it holds is unknowable.

No membership is invented: who is not known to hold one of them is shown without. That is said once, as an incident that
is open as long as the names are; it takes no relation's proof away, because asking again would tell no more.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.store.engine import Connection
from syncd.store.incidents import close_incidents, open_incidents

_SUBJECT = "tags"
_NAMES = text("""
    SELECT name, array_agg(remote_id ORDER BY id) AS remote_ids FROM crm.tags
    WHERE account_id = :account_id AND missing_since IS NULL
    GROUP BY name HAVING count(*) > 1 ORDER BY name
""")


async def ambiguous_names(connection: Connection, account_id: AccountId) -> Mapping[str, tuple[str, ...]]:
    """Return the names that several living tags of an account bear, with the CRM's ids of those."""
    rows = await connection.execute(_NAMES, {"account_id": account_id})
    return {row.name: tuple(row.remote_ids) for row in rows}


async def tell(connection: Connection, account_id: AccountId) -> None:
    """Open the incident about names that several tags bear, or count it up; close it when there are none."""
    names = await ambiguous_names(connection, account_id)
    if not names:
        await close_incidents(connection, account_id, IncidentKind.AMBIGUOUS, [_SUBJECT])
        return
    told = ", ".join(f"{name!r} ({', '.join(ids)})" for name, ids in names.items())
    summary = (
        f"several tags have the same name: {told}. The CRM shows a relation's tags by name alone, so a relation that "
        "is not known to hold one of them is mirrored without; rename all but one in the CRM"
    )
    detail: dict[str, object] = {"names": dict(names)}
    await open_incidents(connection, account_id, [Incident(IncidentKind.AMBIGUOUS, _SUBJECT, summary, detail)])
