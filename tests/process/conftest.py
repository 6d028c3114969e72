"""Places for processes that are killed: a Postgres server of a test's own, because the run's shared one would take
other tests with it, and the stage of the crash points, which costs too much to be set up twice."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from syncd.store import Store
from syncd.store.migrate import upgrade
from tests.conftest import admin, database_url
from tests.support.crashing.forks import forks
from tests.support.crashing.rehearsal import Stage, stage
from tests.support.crashing.survey import Survey, survey
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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crash_stage(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Where takes of the crash points are played; whoever uses it is named in ``spreading``, to have it in common."""
    async with forks(tmp_path_factory.mktemp("crash")) as warm, stage(server_url, template, warm) as prepared:
        yield prepared


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crash_survey(crash_stage: Stage) -> Survey:
    return await survey(crash_stage)
