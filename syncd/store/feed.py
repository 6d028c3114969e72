"""The feed: the changes of the mirror in an order that no late commit upsets. The rule is SQL, for every consumer.

A cursor is opaque text. Whoever keeps it may be killed and go on from it; whoever kept it for longer than the history
is kept is refused, because what they missed cannot be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.domain.errors import UserError
from syncd.store.engine import Connection

_READ = text("""
    SELECT f.next_cursor AS cursor, a.name AS account, f.table_name,
           f.row_id, f.link_id, f.kind, f.origin, f.run_id, f.entry_id,
           CAST(f.before AS text) AS before, CAST(f.after AS text) AS after, f.changed_at
    FROM crm.changes_since(CAST(:since AS text), :most) WITH ORDINALITY AS f
    LEFT JOIN crm.accounts a ON a.id = f.account_id
    ORDER BY f.ordinality
""")
_HEAD = text("SELECT crm.changes_head()")
LOST_CURSOR = "SY032"


@dataclass(frozen=True, slots=True)
class FeedRow:
    """One change. ``cursor`` is where the feed goes on after it; ``before`` and ``after`` are JSON objects or None."""

    cursor: str
    account: str | None
    table_name: str
    row_id: int
    link_id: int | None
    kind: str
    origin: str
    run_id: int | None
    entry_id: int | None
    before: msgspec.Raw | None
    after: msgspec.Raw | None
    changed_at: datetime


async def read_feed(connection: Connection, since: str | None, most: int = 1000) -> tuple[FeedRow, ...]:
    """Return the next changes after a cursor (None: from the first that is kept), at most so many.

    Raises UserError for a cursor that is none, or after which changes are not kept any more.
    """
    try:
        rows = (await connection.execute(_READ, {"since": since, "most": most})).all()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == LOST_CURSOR:
            raise UserError(_sentence(error)) from None
        raise
    return tuple(FeedRow(**{**row._mapping, "before": _json(row.before), "after": _json(row.after)}) for row in rows)


async def feed_head(connection: Connection) -> str:
    """Return the cursor of this moment: what commits from now on comes after it."""
    return str((await connection.execute(_HEAD)).scalar_one())


def _json(document: str | None) -> msgspec.Raw | None:
    return None if document is None else msgspec.Raw(document.encode())


def _sentence(error: DBAPIError) -> str:
    """Say what the server said, and its advice."""
    cause = getattr(error.orig, "__cause__", None)
    said, advice = getattr(cause, "message", None) or str(error.orig), getattr(cause, "hint", None)
    return f"{said}. {advice}" if advice else str(said)
