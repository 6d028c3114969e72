"""The history: one row of ``syncd.changes`` per change that a pull applied.

An insert carries no values (the row itself is its first version); an update carries the changed columns only, a row
that went missing or was found again its ``missing_since``, a deleted link what its row held. The ``*_as_of`` functions
undo what is written here: whatever column a write moves, its value before must be in ``before``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope

_RECORD = text("""
    INSERT INTO syncd.changes (account_id, table_name, row_id, link_id, kind, origin, run_id, before, after)
    SELECT :account_id, :table_name, c.row_id, c.link_id, c.kind, 'remote', :run_id,
           CAST(c.before AS jsonb), CAST(c.after AS jsonb)
    FROM unnest(CAST(:row_ids AS bigint[]), CAST(:link_ids AS bigint[]), CAST(:kinds AS text[]),
                CAST(:befores AS text[]), CAST(:afters AS text[])) AS c (row_id, link_id, kind, before, after)
""")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row. ``kind`` is insert, update, delete, missing or found."""

    row_id: int
    kind: str
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    link_id: int | None = None


def missing(row_id: int, since: datetime, link_id: int | None = None) -> Change:
    """Return the change of a row that the CRM does not show any more."""
    return Change(row_id, "missing", {"missing_since": None}, {"missing_since": since}, link_id)


def found(row_id: int, since: object, link_id: int | None = None) -> Change:
    """Return the change of a row, missing ``since`` then, that the CRM shows again."""
    return Change(row_id, "found", {"missing_since": since}, {"missing_since": None}, link_id)


async def record(connection: Connection, scope: Scope, table_name: str, changes: Sequence[Change]) -> None:
    """Write the changes of one table."""
    if not changes:
        return
    await connection.execute(
        _RECORD,
        {
            "account_id": scope.account_id,
            "run_id": scope.run_id,
            "table_name": table_name,
            "row_ids": [change.row_id for change in changes],
            "link_ids": [change.link_id for change in changes],
            "kinds": [change.kind for change in changes],
            "befores": [_json(change.before) for change in changes],
            "afters": [_json(change.after) for change in changes],
        },
    )


def _json(values: Mapping[str, object] | None) -> str | None:
    return None if values is None else msgspec.json.encode(values).decode()
