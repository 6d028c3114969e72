"""PDFs of invoices: which are due, whose turn they are, and the row of each that is kept.

An invoice is taken before it is asked for, so that a daemon and a backfill side by side never fetch it twice. What was
fetched is written down before the file is moved to its place: a process that is killed between file and row leaves
behind by what the file is known again.

A credit invoice that bears the number of another invoice is never asked for: the CRM is asked by number, and shows one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

_DUE = text("""
    SELECT v.id, v.number, v.is_credit FROM crm.invoices v
    LEFT JOIN syncd.invoice_fetches t ON t.invoice_id = v.id
    WHERE v.account_id = :account_id AND v.pseudonymised_at IS NULL AND (t.invoice_id IS NULL OR t.next_at <= :now)
      AND NOT EXISTS (SELECT FROM crm.invoice_files f WHERE f.invoice_id = v.id)
      AND NOT (v.is_credit AND EXISTS (SELECT FROM crm.invoices o
                                       WHERE o.account_id = v.account_id AND o.number = v.number AND NOT o.is_credit))
    ORDER BY v.invoiced_on DESC NULLS LAST, v.id DESC LIMIT :budget
""")
_TAKE = text("""
    INSERT INTO syncd.invoice_fetches AS t (invoice_id, next_at)
    SELECT v.id, :until FROM crm.invoices v
    WHERE v.id = :id AND v.pseudonymised_at IS NULL
      AND NOT EXISTS (SELECT FROM crm.invoice_files f WHERE f.invoice_id = v.id)
    ON CONFLICT (invoice_id) DO UPDATE SET next_at = excluded.next_at WHERE t.next_at <= :now
    RETURNING attempts, sha256, size_bytes, content_type
""")
_ANNOUNCE = text("""
    UPDATE syncd.invoice_fetches SET sha256 = :sha256, size_bytes = :size_bytes, content_type = :content_type
    WHERE invoice_id = :id
""")
_FAIL = text("""
    UPDATE syncd.invoice_fetches SET attempts = attempts + 1, error = :error, next_at = :next_at WHERE invoice_id = :id
""")
# The invoice is held, so that an erasure either comes first and is seen, or comes later and finds the file.
_KEEP = text("""
    INSERT INTO crm.invoice_files (invoice_id, path, sha256, size_bytes, content_type)
    SELECT v.id, :path, :sha256, :size_bytes, :content_type
    FROM (SELECT id FROM crm.invoices WHERE id = :id AND pseudonymised_at IS NULL FOR SHARE) AS v
    ON CONFLICT (invoice_id) DO NOTHING
    RETURNING invoice_id
""")
_FORGET = text("DELETE FROM syncd.invoice_fetches WHERE invoice_id = :id")
_IS_KEPT = text("SELECT EXISTS (SELECT FROM crm.invoice_files WHERE invoice_id = :id)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An invoice without its PDF."""

    id: int
    number: str
    is_credit: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is."""

    sha256: bytes
    size_bytes: int
    content_type: str


@dataclass(frozen=True, slots=True)
class Taken:
    """An invoice that is ours to fetch. ``before`` is what a process that was killed had fetched already."""

    attempts: int
    before: Content | None


async def due(connection: Connection, account_id: AccountId, now: datetime, budget: int | None) -> tuple[Wanted, ...]:
    """Return the invoices whose PDF is due, the latest first, at most ``budget`` (None: all)."""
    values = {"account_id": account_id, "now": now, "budget": budget}
    return tuple(Wanted(row.id, row.number, row.is_credit) for row in await connection.execute(_DUE, values))


async def take(connection: Connection, invoice_id: int, now: datetime, until: datetime) -> Taken | None:
    """Take an invoice until then; None when somebody else has it, or has fetched it, or its person was erased."""
    row = (await connection.execute(_TAKE, {"id": invoice_id, "now": now, "until": until})).one_or_none()
    if row is None:
        return None
    before = None if row.sha256 is None else Content(row.sha256, row.size_bytes, row.content_type)
    return Taken(row.attempts, before)


async def announce(connection: Connection, invoice_id: int, content: Content) -> None:
    """Write down what is about to be moved to its place."""
    await connection.execute(_ANNOUNCE, {"id": invoice_id, **_values(content)})


async def fail(connection: Connection, invoice_id: int, error: str, next_at: datetime | None) -> None:
    """Count a failed try; without a next time it is given up."""
    await connection.execute(_FAIL, {"id": invoice_id, "error": error, "next_at": next_at})


async def keep(connection: Connection, invoice_id: int, path: str, content: Content) -> bool:
    """Write the row of a file that stands in its place; False when nobody may keep it: its person was erased."""
    values = {"id": invoice_id, "path": path, **_values(content)}
    written = (await connection.execute(_KEEP, values)).one_or_none() is not None
    await connection.execute(_FORGET, {"id": invoice_id})
    return written or bool((await connection.execute(_IS_KEPT, {"id": invoice_id})).scalar_one())


def _values(content: Content) -> dict[str, object]:
    return {"sha256": content.sha256, "size_bytes": content.size_bytes, "content_type": content.content_type}
