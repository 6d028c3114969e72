"""The database as the service sees it: opened, looked for when it is away, and told about once on each edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never

from syncd import log
from syncd.clock import Clock
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.settings import Settings
from syncd.store import Store
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.migrate import upgrade
from syncd.store.schema import SchemaAge, check, require_current

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
REVIVE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Database:
    """An open store, and the server under it when that is our own."""

    store: Store
    embedded: EmbeddedPostgres | None


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """Open the configured database, starting the embedded one if none is named; no schema is looked at."""
    embedded = None
    url = settings.database_url.get_secret_value()
    if settings.is_embedded:
        embedded = EmbeddedPostgres(settings.home, binaries=settings.postgres_binaries)
        url = await embedded.start()
    store = None
    try:
        erase_key = settings.erase_key.get_secret_value()
        store = Store.open(url, pool_size=settings.database_pool_size, erase_key=erase_key)
        yield Database(store, embedded)
    finally:
        if store is not None:
            await store.close()
        if embedded is not None:
            await embedded.stop()


async def make_ready(database: Database, *, may_migrate: bool) -> None:
    """Bring the schema to this code's revision if that is ours to do, else say what the operator must do.

    The embedded database is ours. Raises ConfigurationError when a person must act.
    """
    if database.embedded is None and not may_migrate:
        await require_current(database.store)
        return
    state = await check(database.store)
    match state.age:
        case SchemaAge.CURRENT:
            return
        case SchemaAge.MISSING | SchemaAge.OLDER:
            done = await upgrade(database.store)
            log.get("syncd.service").info("schema.migrated", before=done.before, after=done.after)
        case SchemaAge.NEWER:
            await require_current(database.store)
        case never:
            assert_never(never)


class DatabaseWatch:
    """Waits for a database that does not answer, says so once when it begins and once when it ends, and keeps our own
    server running. A running drainer notices and reports an outage by itself; this is for whoever must wait."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._log = log.get("syncd.service")

    async def until_it_answers(self, stop: asyncio.Event, *, is_first: bool = False) -> bool:
        """Wait for a connection with growing pauses; False when told to stop first.

        At the first start a database that refuses us (password, name) is a mistake and raises ConfigurationError;
        later it is an outage like any other.
        """
        pause_s, lost_at = FIRST_PAUSE_S, None
        while not stop.is_set():
            try:
                await self._knock()
            except (InfrastructureError, ConfigurationError) as error:
                if is_first and isinstance(error, ConfigurationError):
                    raise
                if lost_at is None:
                    lost_at = self._clock.monotonic()
                    self._log.warning("database.lost", reason=str(error))
            else:
                if lost_at is not None:
                    self._log.info("database.recovered", after_s=round(self._clock.monotonic() - lost_at, 1))
                return True
            await self.pause(pause_s * (0.5 + self._clock.random() / 2), stop)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
        return False

    async def keep_server(self, stop: asyncio.Event) -> None:
        """Start the embedded server again whenever it is gone; does nothing about a server that is not ours."""
        while self._database.embedded is not None and not stop.is_set():
            try:
                if await self._database.embedded.revive():
                    self._log.warning("server.revived")
            except (InfrastructureError, ConfigurationError):
                await self.until_it_answers(stop)
            await self.pause(REVIVE_EVERY_S, stop)

    async def pause(self, seconds: float, stop: asyncio.Event) -> None:
        """Wait, but not longer than until told to stop."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({sleeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopping.cancel()

    async def _knock(self) -> None:
        if self._database.embedded is not None:
            await self._database.embedded.revive()
        async with self._database.store.begin():
            pass
