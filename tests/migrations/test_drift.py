"""The migrations' sum equals the declared tables, and the CHECK constraints equal the state tables."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from enum import StrEnum

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from syncd.policy.states import DetailStatus, EntryStatus, HoldStatus, RunHoldStatus, RunStatus
from syncd.store import Store
from syncd.store.tables import metadata
from tests.conftest import admin, database_url
from tests.support.catalog import constraint, described


@pytest.fixture
async def declared(server_url: str) -> AsyncIterator[Store]:
    """A database made from the declared tables alone, without any migration."""
    name = f"syncd_declared_{uuid.uuid4().hex[:12]}"
    await admin(server_url, f'CREATE DATABASE "{name}" TEMPLATE template0')
    store = Store.open(database_url(server_url, name), pool_size=1)
    async with store.begin() as connection:
        for schema in ("crm", "syncd"):
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.run_sync(metadata.create_all)
    yield store
    await store.close()
    await admin(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_migrations_add_up_to_the_declared_tables(store: Store, declared: Store) -> None:
    """Statements are built from the declared tables: a column, key or index that only one side has is a bug in wait."""
    async with store.begin() as migrated_connection, declared.begin() as declared_connection:
        migrated = await described(migrated_connection)
        wanted = await described(declared_connection)
    assert sorted(migrated - wanted) == []
    assert sorted(wanted - migrated) == []
    assert len(wanted) > 300


async def test_autogenerate_finds_nothing_to_migrate(store: Store) -> None:
    """Whoever edits the declared tables and runs Alembic's autogenerate must be offered that edit and nothing else."""

    def differences(connection: object) -> list[object]:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name in ("crm", "syncd"),
            "version_table_schema": "syncd",
            "compare_type": True,
        }
        context = MigrationContext.configure(connection, opts=options)  # type: ignore[arg-type]
        found = compare_metadata(context, metadata)
        return [difference for difference in found if not is_about_comments(difference)]

    def is_about_comments(difference: object) -> bool:
        """Comments live in SQL files alone, where their readers are; ``test_functions_described`` holds them."""
        names = difference[0] if isinstance(difference, tuple) else [each[0] for each in difference]  # type: ignore[attr-defined]
        return "comment" in names if isinstance(names, str) else all("comment" in name for name in names)

    async with store.begin() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("entries_status_check", EntryStatus),
        ("runs_status_check", RunStatus),
        ("holds_status_check", HoldStatus),
        ("run_holds_status_check", RunHoldStatus),
        ("invoices_detail_status_check", DetailStatus),
    ],
)
async def test_check_constraints_hold_exactly_the_states(store: Store, name: str, states: type[StrEnum]) -> None:
    """A state that the database refuses, or one that no machine knows, would surface in the middle of a night."""
    async with store.begin() as connection:
        definition = await constraint(connection, name)
    assert set(re.findall(r"'([^']*)'::text", definition)) == {str(state) for state in states}
