"""What a backfill has proven, and what it has not: read from the ledger, never from what a run says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.coverage import Interval, holes
from syncd.store import coverage, followup
from syncd.store.engine import Connection
from syncd.store.mirror.ambiguous_tags import ambiguous_names

_DETAILS = text("""
    SELECT count(*) AS parts, count(*) FILTER (WHERE detail_status = 'done') AS proven,
           count(*) FILTER (WHERE detail_status = 'failed') AS given_up
    FROM crm.invoices WHERE account_id = :account_id AND NOT is_credit
""")
_FILES = text("""
    SELECT count(*) AS parts, count(f.invoice_id) AS proven,
           count(*) FILTER (WHERE f.invoice_id IS NULL AND t.invoice_id IS NOT NULL AND t.next_at IS NULL) AS given_up
    FROM crm.invoices v LEFT JOIN crm.invoice_files f ON f.invoice_id = v.id
    LEFT JOIN syncd.invoice_fetches t ON t.invoice_id = v.id
    WHERE v.account_id = :account_id AND v.pseudonymised_at IS NULL
      AND NOT (v.is_credit AND EXISTS (SELECT FROM crm.invoices o
                                       WHERE o.account_id = v.account_id AND o.number = v.number AND NOT o.is_credit))
""")
# Where the parents of a sweep come from: that none are known says nothing until one of these has been read.
_OF_INVOICES = ("invoice_details", "invoice_files", "invoice_relations")
_SOURCES = {"group_members": ("groups",), **dict.fromkeys(_OF_INVOICES, ("invoices",))}
_OF_RELATIONS = ("group_members", "orders")
_IS_READ = text("""
    SELECT EXISTS (SELECT FROM syncd.runs
                   WHERE account_id = :account_id AND stream = ANY(CAST(:streams AS text[])) AND status = 'succeeded')
""")
_FOLLOW_UPS = {"invoice_details": _DETAILS, "invoice_files": _FILES}


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one stream is proven. Of a window ``unproven`` are the spans nobody has read; of what is asked for one by
    one, ``proven`` of ``parts`` are, and the CRM refuses ``given_up`` of the rest for good. ``ambiguous`` are names
    that several tags bear, so that no answer can prove any of those of anybody."""

    account: str
    stream: str
    is_whole: bool
    since: datetime | None = None
    unproven: tuple[Interval, ...] = ()
    parts: int | None = None
    proven: int | None = None
    given_up: int = 0
    ambiguous: tuple[str, ...] = ()


async def of_window(
    connection: Connection, account: str, account_id: AccountId, stream: str, wanted: Interval
) -> Standing:
    """Return what of the time that was asked for is proven."""
    found = holes(await coverage.proven(connection, account_id, stream), wanted)
    return Standing(account, stream, not found, wanted.lower, found)


async def of_parents(
    connection: Connection, account: str, account_id: AccountId, stream: str, proven_s: float
) -> Standing:
    """Return how many parents of a sweep an answer of the last so many seconds has proven. That there are none is only
    believed where something that shows them has been read."""
    parts, proven = await followup.count_proven(connection, account_id, stream, proven_s)
    is_whole = parts == proven if parts else await _is_believed(connection, account_id, stream)
    names = tuple(await ambiguous_names(connection, account_id)) if stream == "relation_tags" else ()
    return Standing(account, stream, is_whole, parts=parts, proven=proven, ambiguous=names)


async def of_follow_up(connection: Connection, account: str, account_id: AccountId, stream: str) -> Standing:
    """Return how many rows have what is fetched for each of them; what is given up waits for nothing."""
    row = (await connection.execute(_FOLLOW_UPS[stream], {"account_id": account_id})).one()
    is_done = bool(row.proven + row.given_up == row.parts)
    is_whole = is_done if row.parts else await _is_believed(connection, account_id, stream)
    return Standing(account, stream, is_whole, parts=row.parts, proven=row.proven, given_up=row.given_up)


async def _is_believed(connection: Connection, account_id: AccountId, stream: str) -> bool:
    """Tell whether anything that shows a stream's parents has been read, so that none of them are none."""
    sources = list(_SOURCES.get(stream, _OF_RELATIONS))
    return bool((await connection.execute(_IS_READ, {"account_id": account_id, "streams": sources})).scalar_one())
