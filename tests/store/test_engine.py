"""The pool: what it accepts and how it marks our own writes."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.store import Store
from syncd.store.engine import Connection, async_url


async def test_begin_remote_marks_only_its_own_transaction(store: Store) -> None:
    """A pooled connection that kept the mark would make the next local edit invisible: a lost change."""
    async with store.begin_remote() as connection:
        assert (await connection.execute(text("SELECT current_setting('syncd.origin', true)"))).scalar() == "remote"
    async with store.begin() as connection:
        assert (await connection.execute(text("SELECT current_setting('syncd.origin', true)"))).scalar() in ("", None)


@pytest.mark.parametrize("url", ["mysql://u:sesame@h/d", "sesame", "postgresql//sesame"])
def test_wrong_url_is_refused_without_being_printed(url: str) -> None:
    """Database URLs hold passwords."""
    with pytest.raises(ConfigurationError) as caught:
        Store.open(url)
    assert "sesame" not in str(caught.value)


async def test_server_that_is_not_there_is_an_infrastructure_error() -> None:
    """The daemon waits for a database that is down; it must be able to tell that from a bug."""
    store = Store.open("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(InfrastructureError):
        async with store.begin():
            pass
    await store.close()


async def test_a_pool_that_stays_empty_is_an_infrastructure_error(database: str) -> None:
    """Whoever has all connections gives them back some day: to take it for a bug would drop a result that is kept."""
    engine = create_async_engine(async_url(database), pool_size=1, max_overflow=0, pool_timeout=0.05)
    store = Store(engine)
    async with store.begin():
        with pytest.raises(InfrastructureError, match="pool"):
            async with store.begin():
                pass
    await store.close()


async def test_a_transaction_that_stands_still_is_ended_by_the_server(database: str) -> None:
    """A process that is stopped in mid-transaction must not keep lanes and relations from others for ever."""
    store = Store.open(database, pool_size=1)
    async with store.begin() as connection:
        shown = await connection.execute(text("SHOW idle_in_transaction_session_timeout"))
        assert shown.scalar_one() == "10s"
        await connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', '20ms', false)"))
    with pytest.raises(InfrastructureError):
        await _stand_still(store)
    await store.close()


async def _stand_still(store: Store) -> None:
    async with store.begin() as connection:
        await connection.execute(text("SELECT 1"))
        await asyncio.sleep(0.2)
        await connection.execute(text("SELECT 1"))


async def test_a_statement_that_an_operator_cancels_is_an_infrastructure_error(store: Store) -> None:
    """Whoever makes room for a moment with pg_cancel_backend has found no bug of ours: the run is tried again later."""
    async with asyncio.timeout(30), store.reading() as operator:
        with pytest.raises(InfrastructureError, match="cancelled the statement"):
            await _be_cancelled(store, operator)
    async with store.begin() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


async def _be_cancelled(store: Store, operator: Connection) -> None:
    """Wait for a lock of the operator's, who cancels the waiting."""
    await operator.execute(text("SELECT pg_advisory_lock(57014)"))
    async with store.begin() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        waiting = asyncio.create_task(connection.execute(text("SELECT pg_advisory_xact_lock(57014)")))
        await operator.execute(text(_UNTIL_SOMEBODY_WAITS))
        await operator.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": pid})
        await waiting


_UNTIL_SOMEBODY_WAITS = """
    DO $$ BEGIN
        WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 57014 AND NOT granted) LOOP
            PERFORM pg_sleep(0.01);
        END LOOP;
    END $$
"""


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
async def test_a_time_limit_of_the_servers_is_an_infrastructure_error(store: Store, setting: str) -> None:
    """A limit that an administrator set for all hits whoever waits behind another: what waited is not broken."""
    async with store.begin() as first:
        await first.execute(text("LOCK TABLE crm.tags"))
        with pytest.raises(InfrastructureError):
            await _wait_for_tags(store, setting)


async def _wait_for_tags(store: Store, setting: str) -> None:
    async with store.begin() as connection:
        await connection.execute(text(f"SET LOCAL {setting} = '20ms'"))
        await connection.execute(text("SELECT count(*) FROM crm.tags"))


async def test_connection_that_the_server_closed_is_replaced(database: str, store: Store) -> None:
    """After a restart of Postgres the first transaction must not fail for each connection that rested in the pool."""
    lone = Store.open(database, pool_size=1)
    try:
        async with lone.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        assert isinstance(driver, asyncpg.Connection)
        closed = asyncio.Event()
        driver.add_termination_listener(lambda _: closed.set())
        async with store.begin() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        async with asyncio.timeout(10):
            await closed.wait()
        async with lone.begin() as connection:
            assert (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one() != pid
    finally:
        await lone.close()
