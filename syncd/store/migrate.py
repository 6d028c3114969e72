"""Migrations: the one history, shipped in the wheel, run by ``syncd migrate`` from wherever syncd is installed.

**One at a time.** Replicas start together, so the whole upgrade runs in one transaction under an advisory lock that it
takes first: who comes second finds nothing left to do. A killed upgrade leaves nothing behind.

**Forward only.** There is no downgrade, here or in any revision, on purpose: it would drop what applications have
written since, undelivered changes first. A change of shape is made in three releases instead: *expand* (add the new
beside the old), *deploy* (code that writes both and reads the new), *contract* (drop the old). So the release before
always runs on the schema after, and going back means deploying the older code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.store.engine import Connection, Store
from syncd.store.grants import Granted, grant_roles
from syncd.store.schema import SchemaAge, SchemaState, alembic_config, check_on, migrations_dir, newer

OLDEST_SERVER = 15
UPGRADE_LOCK = 0x73796E6364  # "syncd": the number of the advisory lock, the same in every release

_WAIT = text("SELECT set_config('lock_timeout', :wait, true)")
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_SERVER = text("SELECT current_setting('server_version_num')::int / 10000")
_MAKE_SCHEMA = text("CREATE SCHEMA IF NOT EXISTS syncd")

__all__ = ["Upgraded", "migrations_dir", "upgrade"]


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did. ``before`` is None for a new database; ``grants`` tells how the roles stand afterwards."""

    before: str | None
    after: str
    grants: Granted

    @property
    def has_moved(self) -> bool:
        return self.before != self.after


async def upgrade(store: Store) -> Upgraded:
    """Bring the database to this code's revision; does nothing when it is there already.

    Raises ConfigurationError when the schema is newer than the code, the server too old, or the role may not make
    schemas; InfrastructureError when another session holds what the upgrade needs for too long.
    """
    async with store.begin() as connection:
        with _refusals():  # in here: outside, the store has taken a lock's time limit for one of the server's
            await _take_the_lock(connection)
            state = await check_on(connection)
            await _require_upgradable(connection, state)
            if not state.is_current:
                await connection.execute(_MAKE_SCHEMA)
                await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))
            grants = await grant_roles(connection, again=not state.is_current)
            return Upgraded(state.found, state.wanted, grants)


async def _take_the_lock(connection: Connection) -> None:
    """Wait for other upgrades patiently, then for tables briefly: a waiting DDL statement stops every other session."""
    await connection.execute(_WAIT, {"wait": "10min"})
    await connection.execute(_LOCK, {"key": UPGRADE_LOCK})
    await connection.execute(_WAIT, {"wait": "30s"})


async def _require_upgradable(connection: Connection, state: SchemaState) -> None:
    server = (await connection.execute(_SERVER)).scalar_one()
    if server < OLDEST_SERVER:
        raise ConfigurationError(f"the server is PostgreSQL {server}; syncd needs {OLDEST_SERVER} or newer")
    if state.age is SchemaAge.NEWER:
        raise ConfigurationError(newer(state))


def _config(connection: object) -> Config:
    config = alembic_config()
    config.attributes["connection"] = connection
    return config


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate what the server refuses; the revisions run below SQLAlchemy, so its driver's errors come bare."""
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError) as error:
        match getattr(getattr(error, "orig", error), "sqlstate", None):
            case "42501":
                raise ConfigurationError(
                    "the database role may not make syncd's schemas; let the owner of the database run syncd migrate, "
                    "or grant: GRANT CREATE ON DATABASE <database> TO <role>"
                ) from error
            case "55P03" | "40P01":
                raise InfrastructureError(
                    "another session holds a lock that the upgrade needs; nothing was changed, run syncd migrate again"
                ) from error
        raise
