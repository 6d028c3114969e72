"""The pool and its transactions.

URLs are accepted as people write them (``postgres://``, ``postgresql://``, with or without a driver name) and run on
asyncpg. Lost connections surface as ``InfrastructureError``; everything else that SQLAlchemy raises is a bug.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from syncd.domain.errors import ConfigurationError, InfrastructureError

Connection: TypeAlias = AsyncConnection

# A transaction of ours holds lanes and relations that others want, and is never long between two statements. If the
# process stands still (stopped, swapped out) or its host is gone, the server ends it and lets go of them.
_SETTINGS = {"jit": "off", "idle_in_transaction_session_timeout": "10s"}
# How long a pooled connection may rest before it is asked whether it still lives. Asking costs three round trips, as
# much as a whole small transaction: what was used a moment ago is only looked at.
_REST_S = 1.0

_SET_ORIGIN = text("SELECT set_config('syncd.origin', 'remote', true), syncd.erased_version()")
_WATCH = "syncd_watch"


@dataclass(frozen=True, slots=True)
class Watch:
    """What a transaction needs to know erased persons again (see ``suppression``): the secret part of their hashes, and
    what was read of them at this ``version`` of theirs, for all transactions that saw the same one."""

    version: int
    secret: str = field(repr=False)
    loaded: dict[int, object] = field(default_factory=dict, repr=False)


class Store:
    """One database. Open with ``Store.open``, close with ``close``; share it freely between tasks."""

    def __init__(self, engine: AsyncEngine, erase_key: str = "") -> None:
        self._engine = engine
        self._erase_key = erase_key
        self._watch = Watch(0, erase_key)
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str, *, pool_size: int = 8, application_name: str = "syncd", erase_key: str = "") -> Store:
        """Build the pool; no connection is made yet. Raises ConfigurationError for a URL that is none.

        ``erase_key`` is the secret part of the hashes by which erased persons are known again.
        """
        engine = create_async_engine(
            async_url(url),
            pool_size=pool_size,
            max_overflow=4,
            pool_timeout=30,
            hide_parameters=True,
            connect_args={"timeout": 10, "server_settings": {"application_name": application_name, **_SETTINGS}},
        )
        _replace_the_dead(engine)
        return cls(engine, erase_key)

    @property
    def erase_key(self) -> str:
        return self._erase_key

    @property
    def engine(self) -> AsyncEngine:
        return self._engine

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """Open a transaction: committed when the block ends, rolled back when it raises."""
        with _lost_connections():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Open a connection without a transaction: each statement sees for itself, and is one round trip, not three."""
        with _lost_connections():
            async with self._reading.connect() as connection:
                yield connection

    def at_once(self) -> AbstractAsyncContextManager[Connection]:
        """Open a connection for a single statement that writes: it is committed when it returns, in one round trip."""
        return self.reading()

    @asynccontextmanager
    async def begin_remote(self) -> AsyncIterator[Connection]:
        """Open a transaction whose writes are the CRM's word: they are not captured as local changes."""
        async with self.begin() as connection:
            _, version = (await connection.execute(_SET_ORIGIN)).one()
            if version:
                if version != self._watch.version:
                    self._watch = Watch(version, self._erase_key)
                await connection.execution_options(**{_WATCH: self._watch})
            yield connection

    async def close(self) -> None:
        await self._engine.dispose()


def watch_of(connection: Connection) -> Watch | None:
    """Return what a ``begin_remote`` transaction must look out for; None when nobody was ever erased."""
    found = connection.sync_connection.get_execution_options().get(_WATCH) if connection.sync_connection else None
    return found if isinstance(found, Watch) else None


def _replace_the_dead(engine: AsyncEngine) -> None:
    """Let the pool replace a connection that the server or the network closed while it rested."""
    dialect = engine.dialect

    def note(_: object, record: Any) -> None:
        record.info["rests_since"] = asyncio.get_running_loop().time()

    def look(connection: Any, record: Any, _: object) -> None:
        since = record.info.get("rests_since")
        if since is None:
            return
        try:
            if asyncio.get_running_loop().time() - since > _REST_S:
                dialect.do_ping(connection)
            is_dead = connection.driver_connection.is_closed()
        except dialect.loaded_dbapi.Error:
            is_dead = True
        if is_dead:
            raise DisconnectionError

    event.listen(engine.sync_engine, "checkin", note)
    event.listen(engine.sync_engine, "checkout", look)


def async_url(url: str) -> URL:
    """Turn a Postgres URL in any common spelling into SQLAlchemy's, on asyncpg. The text never appears in errors."""
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1) if url.startswith("postgres://") else url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql":
        raise ConfigurationError("SYNCD_DATABASE_URL is not a Postgres URL; write one like postgresql://user@host/name")
    return parsed.set(drivername="postgresql+asyncpg")


class _lost_connections:
    """Translate a lost or refused connection into InfrastructureError; let everything else through."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        state = _sqlstate(error)
        if state in _REFUSALS:
            raise ConfigurationError(f"{_REFUSALS[state]}; look at SYNCD_DATABASE_URL") from error
        if state == "57014":
            limit = "a time limit (statement_timeout of its role or database) or an operator"
            raise InfrastructureError(f"the database has cancelled the statement: {limit} ended it") from error
        if state[:2] in _PASSING or state in _PASSING:
            raise InfrastructureError(f"the database cannot serve us now (SQLSTATE {state})") from error
        if isinstance(error, PoolTimeout):
            raise InfrastructureError("all connections of the pool were in use for too long") from error
        if isinstance(error, OperationalError | InterfaceError | OSError | TimeoutError):
            raise InfrastructureError(f"the database is out of reach ({type(error).__name__})") from error
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise InfrastructureError("the database connection was lost") from error


# What no waiting mends: the server answers, and says that it will not have us.
_REFUSALS = {
    "28000": "the database refuses this user",
    "28P01": "the database refuses this password",
    "3D000": "the database server has no database of this name",
}
# What passes: lost connections, a server that starts or stops, a statement that an operator or a time limit of the
# server's cancelled, a lock that was waited for too long, a transaction that stood still or went on for too long, a
# connection that rested for too long, a standby, no free slot or disk, a deadlock we lost.
_PASSING = frozenset(
    {"08", "57P01", "57P02", "57P03", "57P05", "57014", "55P03", "25P03", "25P04", "25006", "53000", "53100", "53200"}
    | {"53300", "40001", "40P01"}
)


def _sqlstate(error: BaseException | None) -> str:
    """Return the server's five-character code behind an error, or nothing."""
    source = getattr(error, "orig", None) or error
    return str(getattr(source, "sqlstate", None) or "")
