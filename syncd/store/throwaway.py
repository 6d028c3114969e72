"""Databases that live for one demo: dropped and made anew on a server of our own."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import make_url

from syncd.store.engine import Store


async def fresh_database(server_url: str, name: str) -> str:
    """Drop the database ``name`` if it is there, make it empty, and return its URL. Everything in it is lost."""
    store = Store.open(server_url, pool_size=1)
    try:
        async with store.engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
            await connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
    finally:
        await store.close()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)
