"""A seeded mirror shared by the tests of one module: they roll back, so each sees it fresh."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from syncd.store import Store
from tests.conftest import admin, database_url
from tests.support.edits import seed


@pytest.fixture(scope="module")
def mirror_url(server_url: str, template: str) -> Iterator[str]:
    name = f"syncd_mirror_{uuid.uuid4().hex[:12]}"
    url = database_url(server_url, name)

    async def build() -> None:
        await admin(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        store = Store.open(url, pool_size=1)
        await seed(store, second_account=True)
        await store.close()

    asyncio.run(build())
    yield url
    asyncio.run(admin(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture
async def mirror(mirror_url: str) -> AsyncIterator[Store]:
    """A store on the module's seeded mirror, with two accounts. Nothing may be committed to it: use ``tried``."""
    store = Store.open(mirror_url, pool_size=2)
    yield store
    await store.close()
