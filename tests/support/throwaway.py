"""Databases of a test's own: empty ones, for tests that must see a migration happen, and further clones."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from syncd.store import Store
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
