"""The history on a database that was there before it: what is told, what is refused, and what later columns need."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.store import Store
from syncd.store.feed import read_feed
from syncd.store.migrate import upgrade
from tests.support.throwaway import older_database

BEFORE = (
    "INSERT INTO crm.accounts (id, name, provider) VALUES (1, 'default', 'autorespond')",
    "INSERT INTO crm.relations (id, account_id, remote_id, email) VALUES (1, 1, '7', 'ann@example.nl')",
    "INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, entry_id) "
    "VALUES (1, 'relations', 1, 'insert', 'local', 5), (1, 'relations', 1, 'update', 'remote', NULL)",
)


async def test_changes_from_before_are_in_the_feed_and_the_past_is_not_invented(server_url: str) -> None:
    """Edits and links were not written down then: to undo the rest alone would show what never was."""
    async with older_database(server_url, "0002") as store:
        async with store.begin() as connection:  # as the version before did: begin_remote asks what came later
            await connection.execute(text("SELECT set_config('syncd.origin', 'remote', true)"))
            for statement in BEFORE:
                await connection.execute(text(statement))
        await upgrade(store)
        async with asyncio.timeout(60):  # transactions of other databases hold the horizon of this server too
            while True:
                async with store.begin() as connection:
                    feed = await read_feed(connection, None)
                if feed:
                    break
                await asyncio.sleep(0.05)
        assert [(row.kind, row.origin, row.entry_id) for row in feed] == [
            ("insert", "local", 5), ("update", "remote", None),
        ]  # fmt: skip
        async with store.begin() as connection:
            now = text("SELECT email FROM crm.relations_as_of(now())")
            assert (await connection.execute(now)).scalar_one() == "ann@example.nl"
        with pytest.raises(DBAPIError, match="is kept since"):
            async with store.begin() as connection:
                await connection.execute(text("SELECT * FROM crm.relations_as_of(now() - interval '1 day')"))


async def test_a_migration_that_adds_a_column_defines_the_functions_anew(store: Store) -> None:
    """A function that has another shape than its table fails when it is called; one call mends it."""
    async with store.begin() as connection:
        await connection.execute(text("ALTER TABLE crm.relations ADD COLUMN nickname text"))
        await connection.execute(text("CALL syncd.define_as_of()"))
        row = (await connection.execute(text("SELECT * FROM crm.relations_as_of(now())"))).keys()
        assert list(row) == list((await connection.execute(text("SELECT * FROM crm.relations"))).keys())


async def test_every_such_function_has_the_columns_of_its_table(store: Store) -> None:
    """Whoever swaps a table for its past in a query must not have to rewrite it."""
    async with store.begin() as connection:
        names = text("SELECT proname FROM pg_proc WHERE pronamespace = 'crm'::regnamespace AND proname LIKE '%_as_of'")
        found = [str(name) for name in (await connection.execute(names)).scalars()]
        assert len(found) == 13
        for name in found:
            past = (await connection.execute(text(f"SELECT * FROM crm.{name}(now())"))).keys()
            present = (await connection.execute(text(f"SELECT * FROM crm.{name.removesuffix('_as_of')}"))).keys()
            assert list(past) == list(present), name
