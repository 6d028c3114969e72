"""A database of its own for each measurement, migrated, with one account; and servers in processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

import asyncpg
from sqlalchemy import text

from syncd.domain.account import Account
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.store.migrate import upgrade
from syncd.store.throwaway import fresh_database


@asynccontextmanager
async def database() -> AsyncIterator[tuple[str, Account]]:
    """Make a database on the server of ``SYNCD_TEST_SERVER``, and drop it at the end; yield its URL and account."""
    server_url = os.environ["SYNCD_TEST_SERVER"]
    name = f"syncd_bench_{uuid.uuid4().hex[:8]}"
    url = await fresh_database(server_url, name)
    store, admin = Store.open(url), Store.open(server_url, pool_size=1)
    try:
        await upgrade(store)
        async with store.begin_remote() as connection:
            account = await ensure_account(connection, "bench", "autorespond")
        await store.close()
        yield url, account
    finally:
        await store.close()
        async with admin.engine.connect() as connection:
            plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await plain.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        await admin.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    try:
        yield connection
    finally:
        await connection.close()


async def mirrored(url: str, account_id: int, relations: int) -> None:
    """Fill a mirror as a pull would: so many relations and one tag, none of it captured."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SELECT set_config('syncd.origin', 'remote', true)")
        await connection.execute(
            """INSERT INTO crm.relations (id, account_id, remote_id, email)
               SELECT n, $1, n, n || '@relation.example' FROM generate_series(1, $2::bigint) n""",
            account_id,
            relations,
        )
        await connection.execute(
            "INSERT INTO crm.tags (id, account_id, remote_id, name) VALUES (1, $1, 1, 'a')", account_id
        )


@contextmanager
def beside(work: Callable[..., None], *given: Any) -> Iterator[Pipe]:
    """Run ``work(pipe, *given)`` in a process of its own while the block runs; yield our end of the pipe."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_attended, args=(work, theirs, *given), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _attended(work: Callable[..., None], *given: Any) -> None:
    """Work, but not past the life of the process that asked for it: killed, it could not stop us."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    work(*given)


async def told(pipe: Pipe, timeout_s: float = 60.0) -> Any:
    """Wait for the next word from the other end, without holding up this loop. Raises TimeoutError."""
    if not await asyncio.to_thread(pipe.poll, timeout_s):
        raise TimeoutError("the process beside this one has not answered")
    return pipe.recv()
