"""A Postgres of a test's own, to be restarted and killed under a drainer, and how fast the drainer goes meanwhile.

The rate is the simulator's: so many tags landed in so much of its time. Its latency bounds the rate, not this machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import asyncpg

from syncd.sandbox import Sandbox
from syncd.store import Store
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.embedded.installation import survey
from syncd.store.embedded.layout import Layout
from syncd.store.embedded.program import run
from tests.support.embedded import gone, postmaster
from tests.support.outbox import run_sql

RECOVERS_WITHIN_S, SHARE = 10.0, 0.95


class Cluster:
    """One server: started by the code that users run, stopped by ``pg_ctl`` or worse."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._embedded = EmbeddedPostgres(data_dir, is_durable=False)
        self.url = ""

    async def start(self) -> None:
        self.url = await self._embedded.start()

    async def stop(self) -> None:
        await self._embedded.stop()

    async def revive(self) -> None:
        """Start it again, however it ended, and wait until it answers."""
        async with asyncio.timeout(60):
            while not await self._answers():
                await self._embedded.revive()

    async def halt(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop it as ``pg_ctl`` does; immediate is a crash with a bow."""
        installation = survey(Layout.of(self._data_dir), None, is_durable=False)
        cluster = os.fspath(installation.layout.cluster)
        ended = await run(
            installation.program("pg_ctl"),
            "stop",
            "-D",
            cluster,
            "-m",
            mode,
            "-w",
            owner=installation.owner,
            timeout_s=60,
        )
        assert ended.code == 0, ended.output

    async def kill(self) -> None:
        """Kill the postmaster; its children notice by themselves."""
        pid = postmaster(self._data_dir)
        os.kill(pid, signal.SIGKILL)
        await gone(pid)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True


@asynccontextmanager
async def hogged(url: str, name: str) -> AsyncIterator[int]:
    """Take every slot of the server and the sessions of that application name; give all back at the end."""
    taken: list[asyncpg.Connection] = []
    try:
        while True:
            await _take_all(url, taken)
            cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"
            if not await taken[0].fetchval(cut, name):
                break
        yield len(taken)
    finally:
        await asyncio.gather(*(connection.close() for connection in taken))


async def _take_all(url: str, taken: list[asyncpg.Connection]) -> None:
    while True:
        try:
            taken.append(await asyncpg.connect(url, timeout=10))
        except asyncpg.TooManyConnectionsError:
            return


async def load(store: Store, tags: tuple[int, ...]) -> int:
    """Give every relation every tag, in one transaction, ledger and all; return how many calls that makes."""
    await run_sql(
        store,
        """
        WITH given AS (
            INSERT INTO crm.relation_tags (relation_id, tag_id)
            SELECT r.id, t FROM crm.relations r, unnest(CAST(:tags AS bigint[])) t ORDER BY t, r.id
            RETURNING relation_id, tag_id
        )
        INSERT INTO proof.ledger (who, edit)
        SELECT relation_id, jsonb_build_object('edit', 'tag', 'who', relation_id, 'tag', tag_id, 'is_on', true)
        FROM given
        """,
        tags=list(tags),
    )
    async with store.begin() as connection:
        counted = await connection.exec_driver_sql("SELECT count(*) FROM crm.relation_tags")
        return int(counted.scalar_one())


@dataclass(slots=True)
class Gauge:
    """Counts what landed, by the simulator's time."""

    sandbox: Sandbox
    window_s: float
    _times: list[datetime] = field(default_factory=list)
    _read: int = 0

    def count(self, since: datetime) -> int:
        """Return how many tags have landed since."""
        self._update()
        return sum(at >= since for at in self._times)

    async def steady(self) -> float:
        """Let it run for a window and return tags a second."""
        since = self.sandbox.clock.now()
        await asyncio.sleep(self.window_s)
        return self.count(since) / self.window_s

    async def recovered(self, before: float, since: datetime) -> tuple[float, float]:
        """Wait for a window at the old rate that begins in time; return its rate and how long it was in coming.

        When none comes, the best one there was is returned.
        """
        best = (0.0, RECOVERS_WITHIN_S)
        while (self.sandbox.clock.now() - since).total_seconds() < RECOVERS_WITHIN_S + self.window_s:
            await asyncio.sleep(0.1)
            best = max(best, self._best(since))
            if best[0] >= SHARE * before:
                return best
        return best

    def _best(self, since: datetime) -> tuple[float, float]:
        """Return the best whole window that began after an instant, and when it began."""
        self._update()
        window, now = timedelta(seconds=self.window_s), self.sandbox.clock.now()
        starts = [since + timedelta(seconds=0.1 * tenth) for tenth in range(int(10 * RECOVERS_WITHIN_S) + 1)]
        rates = [
            (sum(start <= at < start + window for at in self._times) / self.window_s, (start - since).total_seconds())
            for start in starts
            if start + window <= now
        ]
        return max(rates, default=(0.0, 0.0))

    def _update(self) -> None:
        effects = self.sandbox.journal.since(self._read)
        self._times.extend(effect.at for effect in effects if effect.kind == "tag.added")
        self._read += len(effects)
