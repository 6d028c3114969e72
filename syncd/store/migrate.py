"""Migrations: the one history, shipped in the wheel, run by ``syncd migrate`` from wherever syncd is installed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from syncd.store.engine import Store

_PACKAGE = Path(__file__).resolve().parents[1]


def migrations_dir() -> Path:
    """Return the directory of the history: inside the installed package, else beside it in a checkout."""
    inside = _PACKAGE / "migrations"
    return inside if inside.is_dir() else _PACKAGE.parent / "migrations"


async def upgrade(store: Store, revision: str = "head") -> None:
    """Bring the database to ``revision``."""
    async with store.begin() as connection:
        await connection.execute(text("CREATE SCHEMA IF NOT EXISTS syncd"))
        await connection.run_sync(lambda sync: command.upgrade(_config(sync), revision))


def _config(connection: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
