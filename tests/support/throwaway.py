"""Empty databases, for tests that must see a migration happen."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
