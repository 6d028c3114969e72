"""Databases of a test's own: empty and older ones, for tests that must see a migration happen, and further clones."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic import command
from sqlalchemy import text

from syncd.store import Store
from syncd.store.migrate import _config
from tests.conftest import admin, database_url


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """The URL of a database without anything in it, dropped at the end."""
    name = f"syncd_empty_{uuid.uuid4().hex[:12]}"
    await admin(server_url, f'CREATE DATABASE "{name}" TEMPLATE template0')
    try:
        yield database_url(server_url, name)
    finally:
        await admin(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@asynccontextmanager
async def older_database(server_url: str, revision: str) -> AsyncIterator[Store]:
    """A store on a database as that revision left it, dropped at the end."""
    async with empty_database(server_url) as url:
        store = Store.open(url, pool_size=2)
        async with store.begin() as connection:
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS syncd"))
            await connection.run_sync(lambda sync: command.upgrade(_config(sync), revision))
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def cloned_store(server_url: str, template: str) -> AsyncIterator[tuple[Store, str]]:
    """A migrated database and a store on it, for tests that need several; dropped at the end."""
    name = f"syncd_clone_{uuid.uuid4().hex[:12]}"
    await admin(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    url = database_url(server_url, name)
    store = Store.open(url, pool_size=4)
    try:
        yield store, url
    finally:
        await store.close()
        await admin(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')
