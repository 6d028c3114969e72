"""The schema's revision against the code's: each way in which they can differ says what to do."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from syncd.domain.errors import ConfigurationError
from syncd.store import Store
from syncd.store.schema import SchemaAge, check, require_current
from tests.support.throwaway import empty_database


async def test_fresh_database_has_no_schema(server_url: str) -> None:
    """The first command of a new user must name the command that comes before it."""
    async with empty_database(server_url) as url:
        store = Store.open(url, pool_size=1)
        state = await check(store)
        assert (state.age, state.found) == (SchemaAge.MISSING, None)
        with pytest.raises(ConfigurationError, match="syncd migrate"):
            await require_current(store)
        await store.close()


async def test_migrated_database_is_current(store: Store) -> None:
    """Nothing may stand in the way of a start on a good schema."""
    state = await check(store)
    assert state.is_current
    assert state.found == state.wanted
    await require_current(store)


async def test_schema_of_a_newer_syncd_asks_for_an_upgrade_of_syncd(store: Store) -> None:
    """Old code on a new schema could write what the new code no longer understands."""
    async with store.begin() as connection:
        await connection.execute(text("UPDATE syncd.alembic_version SET version_num = '9999'"))
    assert (await check(store)).age is SchemaAge.NEWER
    with pytest.raises(ConfigurationError, match=r"9999\) is newer than this syncd"):
        await require_current(store)


async def test_emptied_version_table_counts_as_no_schema(store: Store) -> None:
    """A restore that was cut off leaves an empty version table; it must not pass for a good schema."""
    async with store.begin() as connection:
        await connection.execute(text("DELETE FROM syncd.alembic_version"))
    assert (await check(store)).age is SchemaAge.MISSING
