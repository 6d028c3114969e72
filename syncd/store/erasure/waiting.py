"""Waiting: who must have ended before rows are removed.

Every transaction that writes what the CRM said holds the lock of ``syncd.erased_version`` until it ends. One that has
it now may have looked for hashes before ours were committed; one that takes it later has seen them. So those that hold
it now are waited for, each by its own transaction, and nobody who comes later is held up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.store.engine import Connection, Store

_HOLDERS = text("""
    SELECT l.virtualtransaction FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((CAST(CAST(l.classid AS bigint) AS bit(64)) << 32) | CAST(CAST(l.objid AS bigint) AS bit(64)))
          = CAST(hashtextextended('syncd.erase', 0) AS bit(64))
""")
_OPEN_RUNS = text("""
    SELECT count(*) FROM syncd.runs
    WHERE status = 'running' AND started_at < (SELECT max(started_at) FROM syncd.erasures WHERE id = :id)
""")
_PATIENCE = text("SELECT set_config('lock_timeout', '500ms', true)")
_IN_THE_WAY = frozenset({"55P03", "40P01", "40001"})


class Busy(Exception):
    """Somebody holds a row or a lane that this step needs; the text says who. Nothing was changed: try again."""


async def older_writers(connection: Connection) -> frozenset[str]:
    """Return the transactions that write what the CRM said at this moment."""
    return frozenset((await connection.execute(_HOLDERS)).scalars())


async def still_writing(connection: Connection, older: frozenset[str]) -> frozenset[str]:
    """Return those of some transactions that have not ended."""
    return older & await older_writers(connection)


async def open_runs(connection: Connection, erasure_id: int) -> int:
    """Return how many runs that began before an erasure have not told yet how they ended."""
    return int((await connection.execute(_OPEN_RUNS, {"id": erasure_id})).scalar_one())


@asynccontextmanager
async def impatient(store: Store) -> AsyncIterator[Connection]:
    """Open a transaction as the owner of the mirror that waits for no lock longer than a moment. Raises Busy."""
    async with store.begin_remote() as connection:
        await connection.execute(_PATIENCE)
        try:
            yield connection
        except DBAPIError as error:  # in here: outside, the store has taken it for a database that cannot serve us
            if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                raise
            raise Busy("an application or a pull holds rows of this person") from None
