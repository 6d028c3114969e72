"""One Postgres server for the whole run, one migrated template database, one clone of it per test.

``SYNCD_TEST_SERVER`` may name a running server (a URL whose role may create databases); without it the embedded
Postgres is started for the run, by the code that users run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import make_url

from syncd.store import Store
from syncd.store.engine import async_url
from syncd.store.migrate import upgrade
from tests.support import laws, proving
from tests.support.proving import is_long

# A busy machine must not fail a law: no deadlines, and drawing may be slow. No example need be kept: the seed draws the
# same again.
_UNHURRIED = [HealthCheck.too_slow]
settings.register_profile("quick", deadline=None, database=None, suppress_health_check=_UNHURRIED)
settings.register_profile("prove", settings.get_profile("quick"), max_examples=5000)
settings.load_profile("prove" if is_long() else "quick")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    laws.sow(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with laws.counted(item):
        return (yield)


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> proving.Say:
    """Say in one line what was proved: counts, seeds, how long it took. Printed at the end of the run."""
    return proving.remember(request.node.user_properties)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what ``spreading`` says, where ``--dist loadgroup`` asks for groups."""
    if config.getoption("dist") != "loadgroup":
        return None
    from tests.support.spreading import Spread

    return Spread(config, log)


def pytest_collection(session: pytest.Session) -> None:
    """Collect without looking for garbage: thousands of tests are made and all of them stay."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the proofs said, last of all."""
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.stats.get(outcome, [])]
    calls = [each for each in reports if each.when == "call"]
    lines = [*proving.said(calls), *laws.said(terminalreporter.config, calls)]
    if lines:
        terminalreporter.section("proofs")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A URL of a maintenance database on a real server."""
    given = os.environ.get("SYNCD_TEST_SERVER")
    if given:
        yield given
        return
    from tests.support.embedded import running_server

    with running_server(tmp_path_factory) as url:
        yield url


async def admin(url: str, *statements: str) -> None:
    """Run statements outside any transaction; with the bare driver, since two of these surround each test."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def database_url(server_url: str, name: str) -> str:
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def template(server_url: str, worker_id: str) -> Iterator[str]:
    """The name of a database migrated once per worker; tests clone it, nobody writes to it."""
    name = f"syncd_template_{worker_id}_{uuid.uuid4().hex[:8]}"

    async def build() -> None:
        await admin(server_url, f'CREATE DATABASE "{name}" TEMPLATE template0')
        store = Store.open(database_url(server_url, name), pool_size=1)
        try:
            await upgrade(store)
        finally:
            await store.close()

    asyncio.run(build())
    yield name
    asyncio.run(admin(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture
async def database(server_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database that belongs to one test."""
    name = f"syncd_test_{uuid.uuid4().hex[:12]}"
    await admin(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    yield database_url(server_url, name)
    await admin(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """An open store on the test's own database."""
    opened = Store.open(database, pool_size=4)
    yield opened
    await opened.close()


# These take long, or time what they see: `make prove` runs them, where nothing else shares the machine.
_LONG = ("process/test_world_daemon.py", "pipelines/test_pull_hour.py")
collect_ignore_glob = [] if is_long() else list(_LONG)

__all__ = ["admin", "async_url", "database_url"]
