"""Drain beside long transactions where looks are dear: what they commit is delivered, and in its order."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import asyncpg
from sqlalchemy import text

from syncd.clock import SystemClock
from syncd.domain.reports import DeliveryReport, DrainReport
from syncd.outbound import Drainer
from syncd.providers.contract import Answer, Request
from syncd.store import Store
from syncd.transport import Transport
from tests.support.outbox import QUICK, Circle, circle, rows, run_sql

RENAME = "UPDATE crm.relations SET first_name = '{}' WHERE id = {}"


class _Dear(SystemClock):
    """Each look at it takes a fiftieth of a second: so does each look into the outbox, at the least."""

    def __init__(self) -> None:
        self._looks = itertools.count()

    def monotonic(self) -> float:
        return super().monotonic() + next(self._looks) / 50


class _Calling(Transport):
    """Does something of ours before a request that it is told of."""

    before: Callable[[Request], Awaitable[None]] | None = None

    async def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        if self.before is not None:
            await self.before(request)
        return await super().send(request, timeout_s=timeout_s)


async def _drained(c: Circle, told: Callable[[DeliveryReport], None] = lambda _: None) -> DrainReport:
    drainer = Drainer(c.store, c.provider, c.transport, _Dear(), c.account, replace(QUICK, concurrency=1), told)
    async with asyncio.timeout(30):
        return await drainer.drain()


class _Slow(threading.Thread):
    """A transaction of another process, which is told when to commit by somebody who cannot await."""

    def __init__(self, url: str, sql: str) -> None:
        super().__init__()
        self._url, self._sql = url, sql
        self.begun, self._ends = threading.Event(), threading.Event()

    def run(self) -> None:
        asyncio.run(self._edit())

    async def _edit(self) -> None:
        connection = await asyncpg.connect(self._url)
        async with connection.transaction():
            await connection.execute(self._sql)
            self.begun.set()
            await asyncio.to_thread(self._ends.wait, 30)
        await connection.close()

    def commit(self) -> None:
        self._ends.set()
        self.join(10)


async def test_a_drain_delivers_what_was_committed_below_its_mark_before_it_ended(store: Store, database: str) -> None:
    """It says that all is delivered: then it must have looked everywhere once more, whatever that costs."""
    async with circle(store, through=_Calling) as c:
        one, *others = c.sandbox.world.relations
        slow = _Slow(database, RENAME.format("slow", one))
        slow.start()
        await asyncio.to_thread(slow.begun.wait, 10)
        for relation in others:
            await run_sql(store, RENAME.format("quick", relation))

        async def before(_: Request) -> None:
            await asyncio.sleep(0.3)

        def told(report: DeliveryReport) -> None:
            c.reports.append(report)
            if len(c.reports) == len(others):  # after the last stage, before the last look
                slow.commit()

        assert isinstance(c.transport, _Calling)
        c.transport.before = before
        report = await _drained(c, told)
        assert (report.delivered, report.is_empty) == (len(others) + 1, True)
        assert c.sandbox.world.relations[one].first_name == "slow"


async def test_the_last_edit_wins_although_the_one_before_it_was_long(store: Store) -> None:
    """Both are committed while others are being sent; the first has a number that is long behind."""
    async with circle(store, through=_Calling) as c:
        one, *others = c.sandbox.world.relations
        async with store.engine.connect() as slow:
            await slow.execute(text(RENAME.format("first", one)))
            for relation in others:
                await run_sql(store, RENAME.format("quick", relation))
            told: list[str] = []

            async def before(request: Request) -> None:
                await asyncio.sleep(0.3)
                told.append(request.path)
                if len(told) == len(others) - 1:
                    await slow.commit()
                    await run_sql(store, RENAME.format("last", one))

            assert isinstance(c.transport, _Calling)
            c.transport.before = before
            await _drained(c)
        assert c.sandbox.world.relations[one].first_name == "last"
        sql = "SELECT payload #>> '{new,first_name}' AS name FROM syncd.entries WHERE relation_id = :one ORDER BY seq"
        assert [row["name"] for row in await rows(store, sql, one=one)] == ["first", "last"]
