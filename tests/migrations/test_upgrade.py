"""Upgrades: safe from several replicas at once, forward only, and clear about what is wrong."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from syncd.domain.errors import ConfigurationError
from syncd.store import Store, schema
from syncd.store import migrate as migrating
from syncd.store.migrate import UPGRADE_LOCK, migrations_dir, upgrade
from syncd.store.schema import SchemaAge, check, require_current
from tests.conftest import admin
from tests.support.throwaway import empty_database

REPLICA = """
import asyncio, sys
from syncd.store import Store
from syncd.store.migrate import upgrade

async def main():
    store = Store.open(sys.argv[1], pool_size=1)
    sys.stdin.readline()
    upgraded = await upgrade(store)
    await store.close()
    print("moved" if upgraded.has_moved else "found it current")

print("ready", flush=True)
asyncio.run(main())
"""

NEXT_REVISION = '''
"""Give relations a nickname."""
from alembic import op

revision = "9998"
down_revision = "0008"

def upgrade() -> None:
    op.execute("ALTER TABLE crm.relations ADD COLUMN nickname text")
'''


async def test_four_replicas_upgrade_an_empty_database_together(server_url: str) -> None:
    """A deployment starts its replicas at once: one migrates, the others wait and find nothing to do."""
    async with empty_database(server_url) as url:
        replicas = [await _replica(url) for _ in range(4)]
        for replica in replicas:
            assert await replica.stdout.readline() == b"ready\n"
        ended = await asyncio.wait_for(asyncio.gather(*(replica.communicate(b"go\n") for replica in replicas)), 60)
    said = sorted(output.decode().strip() for output, _ in ended)
    assert said == ["found it current"] * 3 + ["moved"], [error.decode() for _, error in ended]


async def test_upgrade_waits_for_the_one_that_runs(server_url: str) -> None:
    """Not even a half-made schema may be seen: the lock comes before the first look."""
    async with empty_database(server_url) as url:
        holder, store = Store.open(url, pool_size=1), Store.open(url, pool_size=1)
        async with holder.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            waiting = asyncio.create_task(upgrade(store))
            await _until_somebody_waits(connection)
            assert not waiting.done()
        assert (await asyncio.wait_for(waiting, 30)).has_moved
        await holder.close()
        await store.close()


async def test_upgrading_again_does_nothing(store: Store) -> None:
    """The embedded database is upgraded at every start; that must cost nothing and change nothing."""
    upgraded = await upgrade(store)
    assert not upgraded.has_moved
    assert upgraded.before == upgraded.after


async def test_failed_upgrade_leaves_nothing_behind(server_url: str) -> None:
    """Half a schema could neither be used nor upgraded: the whole upgrade is one transaction."""
    async with empty_database(server_url) as url:
        await admin(url, "CREATE SCHEMA syncd", "CREATE TABLE syncd.conflicts (in_the_way int)")
        store = Store.open(url, pool_size=1)
        with pytest.raises(asyncpg.DuplicateTableError):
            await upgrade(store)
        assert (await check(store)).age is SchemaAge.MISSING
        async with store.begin() as connection:
            assert (await connection.execute(text("SELECT to_regnamespace('crm')"))).scalar_one() is None
        await store.close()


async def test_older_schema_is_refused_until_it_is_upgraded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next release: its code must not run on today's schema, and its upgrade must run on today's rows."""
    shutil.copytree(migrations_dir(), tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "9998_next.py").write_text(NEXT_REVISION, encoding="utf-8")
    monkeypatch.setattr(schema, "migrations_dir", lambda: tmp_path / "migrations")
    schema._known_revisions.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"older than this syncd \(9998\); run: syncd migrate"):
            await require_current(store)
        assert (await upgrade(store)).has_moved
        await require_current(store)
        async with store.begin() as connection:
            assert (await connection.execute(text("SELECT nickname FROM crm.relations"))).all() == []
    finally:
        schema._known_revisions.cache_clear()


async def test_upgrade_refuses_a_schema_from_the_future(store: Store) -> None:
    """An older replica that starts late must not touch what a newer one has made."""
    await _pretend(store, "9999")
    with pytest.raises(ConfigurationError, match=r"newer .* upgrade syncd"):
        await upgrade(store)


async def test_upgrade_says_which_right_is_missing(server_url: str) -> None:
    """Somebody else's server often gives a role no right to make schemas: that is one line, not a stack of frames."""
    async with empty_database(server_url) as url:
        store = Store.open(url, pool_size=1)
        role = "syncd_test_no_rights"
        async with store.begin() as connection:
            await connection.execute(text(f"DROP ROLE IF EXISTS {role}"))
            await connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        limited = Store.open(as_role(url, role), pool_size=1)
        with pytest.raises(ConfigurationError, match="GRANT CREATE ON DATABASE"):
            await upgrade(limited)
        await limited.close()
        async with store.begin() as connection:
            await connection.execute(text(f"DROP ROLE {role}"))
        await store.close()


def test_no_revision_can_be_taken_back() -> None:
    """A downgrade would drop undelivered changes; going back means deploying the older code on the newer schema."""
    revisions = sorted((migrations_dir() / "versions").glob("[0-9]*.py"))
    assert revisions
    for path in revisions:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not hasattr(module, "downgrade"), path.name
        assert module.__doc__, path.name
    assert not hasattr(migrating, "downgrade")


async def _replica(url: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLICA, url, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )


async def _until_somebody_waits(connection: object) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with asyncio.timeout(20):
        while not (await connection.execute(waiting)).scalar_one():  # type: ignore[attr-defined]
            pass


async def _pretend(store: Store, revision: str) -> None:
    async with store.begin() as connection:
        await connection.execute(
            text("UPDATE syncd.alembic_version SET version_num = :revision"), {"revision": revision}
        )


def as_role(url: str, role: str) -> str:
    parsed = make_url(url)
    query = {name: value for name, value in parsed.query.items() if name != "user"}
    return parsed.set(username=role, query=query).render_as_string(hide_password=False)
