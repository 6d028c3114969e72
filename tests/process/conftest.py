"""A Postgres server of a test's own, to be stopped and killed: the run's shared one would take other tests with it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from syncd.store import Store
from syncd.store.migrate import upgrade
from tests.conftest import admin, database_url
from tests.support.embedded import reachable_directory
from tests.support.world_edits import open_ledger
from tests.support.world_postgres import Cluster


@pytest.fixture(scope="module")
def cluster_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory whose cluster is made once for the tests of a module."""
    with reachable_directory(tmp_path_factory.getbasetemp()) as made:
        yield made


@pytest.fixture
async def cluster(cluster_directory: Path) -> AsyncIterator[Cluster]:
    """A running server."""
    running = Cluster(cluster_directory)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def cluster_url(cluster: Cluster) -> str:
    """A migrated database on it, with a ledger; it goes with its server."""
    name = f"syncd_world_{uuid.uuid4().hex[:8]}"
    await admin(cluster.url, f'CREATE DATABASE "{name}" TEMPLATE template0')
    made = database_url(cluster.url, name)
    store = Store.open(made, pool_size=1)
    await upgrade(store)
    await open_ledger(store)
    await store.close()
    return made


@pytest.fixture
async def cluster_store(cluster_url: str) -> AsyncIterator[Store]:
    opened = Store.open(cluster_url, pool_size=4)
    yield opened
    await opened.close()
