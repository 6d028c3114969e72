"""Readings: what is read row by row, when last, and what an answer lacked.

A sweep takes the rows that were read longest ago. An absence is noted here until it is confirmed or the row shows
again. Times are the caller's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import text

from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope

_NOTE = text("""
    INSERT INTO syncd.readings (account_id, stream, row_id, read_at, absent_since)
    SELECT :account_id, :stream, id, :now, :now FROM unnest(CAST(:ids AS bigint[])) AS i (id)
    ON CONFLICT (account_id, stream, row_id) DO UPDATE SET absent_since = excluded.absent_since
""")
_FORGET = text("""
    UPDATE syncd.readings SET absent_since = NULL
    WHERE account_id = :account_id AND stream = :stream AND row_id = ANY(CAST(:ids AS bigint[]))
      AND absent_since IS NOT NULL
""")
_ABSENCES = text("""
    SELECT row_id, absent_since FROM syncd.readings
    WHERE account_id = :account_id AND stream = :stream AND row_id = ANY(CAST(:ids AS bigint[]))
      AND absent_since IS NOT NULL
""")
_READ = text("""
    INSERT INTO syncd.readings (account_id, stream, row_id, read_at)
    SELECT :account_id, :stream, id, :now FROM unnest(CAST(:ids AS bigint[])) AS i (id)
    ON CONFLICT (account_id, stream, row_id) DO UPDATE SET read_at = excluded.read_at
""")
_UNREAD = text("""
    UPDATE syncd.readings SET read_at = to_timestamp(0)
    WHERE account_id = :account_id AND stream = :stream AND row_id = ANY(CAST(:ids AS bigint[]))
""")
_REMOTE_ID = text("SELECT remote_id FROM crm.relations WHERE id = :id")
_PROVE = text("""
    INSERT INTO syncd.readings (account_id, stream, row_id, read_at, proven_at)
    SELECT :account_id, :stream, id, :now, :asked_at FROM unnest(CAST(:ids AS bigint[])) AS i (id)
    ON CONFLICT (account_id, stream, row_id) DO UPDATE SET proven_at = excluded.proven_at
""")
_FRESHER = text("""
    SELECT row_id FROM syncd.readings
    WHERE account_id = :account_id AND stream = :stream AND row_id = ANY(CAST(:ids AS bigint[])) AND read_at > :asked_at
""")


async def forget_read(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> None:
    """Let these rows be asked for next, as if they never had been."""
    if ids:
        await connection.execute(_UNREAD, _keys(scope, stream, ids))


async def remote_id_of(connection: Connection, relation_id: int) -> str | None:
    """Return the CRM's id of a relation."""
    found = (await connection.execute(_REMOTE_ID, {"id": relation_id})).scalar_one_or_none()
    return None if found is None else str(found)


async def note_absence(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> None:
    """Remember that an answer lacked these rows, from now on."""
    if ids:
        await connection.execute(_NOTE, {**_keys(scope, stream, ids), "now": scope.now})


async def forget_absence(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> None:
    """Take back every noted absence of these rows: they showed again."""
    if ids:
        await connection.execute(_FORGET, _keys(scope, stream, ids))


async def absences(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> Mapping[int, datetime]:
    """Return since when the rows are absent; rows without a noted absence are left out."""
    if not ids:
        return {}
    return {row.row_id: row.absent_since for row in await connection.execute(_ABSENCES, _keys(scope, stream, ids))}


async def note_read(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> None:
    """Move the sweep's cursor past these rows."""
    if ids:
        await connection.execute(_READ, {**_keys(scope, stream, ids), "now": scope.now})


async def note_proof(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> None:
    """Remember that an answer about each of these rows was written: they equal what the CRM said when it was asked."""
    if ids:
        await connection.execute(_PROVE, {**_keys(scope, stream, ids), "now": scope.now, "asked_at": scope.asked_at})


async def fresher(
    connection: Connection, scope: Scope, stream: str, ids: Sequence[int], asked_at: datetime
) -> frozenset[int]:
    """Return those rows whose answer, asked for after ``asked_at``, has been written by somebody else."""
    values = {**_keys(scope, stream, ids), "asked_at": asked_at}
    return frozenset((await connection.execute(_FRESHER, values)).scalars())


def _keys(scope: Scope, stream: str, ids: Sequence[int]) -> dict[str, object]:
    return {"account_id": scope.account_id, "stream": stream, "ids": list(ids)}
