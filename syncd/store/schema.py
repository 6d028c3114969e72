"""Which revision of the schema a database has, beside the one that this code was written for.

Code runs only on its own revision: an older schema lacks what the statements name, a newer one may have moved it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import assert_never

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from syncd.domain.errors import ConfigurationError
from syncd.store.engine import Connection, Store

_PACKAGE = Path(__file__).resolve().parents[1]
_HAS_REVISION = text("SELECT to_regclass('syncd.alembic_version') IS NOT NULL")
_REVISION = text("SELECT version_num FROM syncd.alembic_version")


class SchemaAge(StrEnum):
    CURRENT = "current"
    MISSING = "missing"
    OLDER = "older"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """``found`` is the revision in the database, None when there is none; ``wanted`` is this code's."""

    age: SchemaAge
    found: str | None
    wanted: str

    @property
    def is_current(self) -> bool:
        return self.age is SchemaAge.CURRENT


async def check(store: Store) -> SchemaState:
    """Compare the database's revision with this code's."""
    async with store.begin() as connection:
        return await check_on(connection)


async def require_current(store: Store) -> None:
    """Raise ConfigurationError, with what to do, unless the schema is the one that this code was written for."""
    state = await check(store)
    match state.age:
        case SchemaAge.CURRENT:
            return
        case SchemaAge.MISSING:
            raise ConfigurationError("the database has no syncd schema yet; run: syncd migrate")
        case SchemaAge.OLDER:
            raise ConfigurationError(
                f"the database's schema ({state.found}) is older than this syncd ({state.wanted}); run: syncd migrate"
            )
        case SchemaAge.NEWER:
            raise ConfigurationError(newer(state))
        case never:
            assert_never(never)


async def check_on(connection: Connection) -> SchemaState:
    """Compare on an open connection."""
    known = _known_revisions()
    wanted = known[0]
    if not (await connection.execute(_HAS_REVISION)).scalar_one():
        return SchemaState(SchemaAge.MISSING, None, wanted)
    found = (await connection.execute(_REVISION)).scalar_one_or_none()
    if found is None:
        return SchemaState(SchemaAge.MISSING, None, wanted)
    if found == wanted:
        return SchemaState(SchemaAge.CURRENT, found, wanted)
    return SchemaState(SchemaAge.OLDER if found in known else SchemaAge.NEWER, found, wanted)


def newer(state: SchemaState) -> str:
    """Say what to do about a schema that a later syncd has made."""
    return (
        f"the database's schema ({state.found}) is newer than this syncd ({state.wanted}); "
        "upgrade syncd to the version that made it (schemas are never moved back)"
    )


def migrations_dir() -> Path:
    """Return the directory of the history: inside the installed package, else beside it in a checkout."""
    inside = _PACKAGE / "migrations"
    return inside if inside.is_dir() else _PACKAGE.parent / "migrations"


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    return config


@cache
def _known_revisions() -> tuple[str, ...]:
    """Return every revision of the shipped history, the latest first; the history is one line."""
    return tuple(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())
