"""The drainers of a faulty world, and what befalls them: killed, stalled past their lease, cut off from Postgres.

A hand is a drainer, as a task of this process or as a process of its own. It can be killed as SIGKILL does (nothing is
settled, nothing given back), and stalled as soon as it has a lane: a process by SIGSTOP, a task by a door before the
database that stays shut until its lease is over. ``dropped`` names the relations whose lanes a hand held when that
happened; ``found`` the entries that a person skipped, because the CRM had them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from sqlalchemy import text

from syncd.clock import SystemClock
from syncd.domain.reports import DeliveryReport
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.contract import Auth
from syncd.store import Connection, Store
from syncd.transport import Transport
from tests.support.commands import environment, reap
from tests.support.outbox import Circle, rows
from tests.support.world_drainer import argument

GRACE_S = 20.0
SEIZE_TRIES = 200


@dataclass(slots=True)
class Ground:
    """Where hands work: ``url`` is the database's; the circle has the simulator, the account and the provider."""

    circle: Circle
    url: str
    limits: DrainLimits
    verifies: bool = False
    dropped: set[int] = field(default_factory=set)
    fenced: int = 0
    found: set[int] = field(default_factory=set)

    async def note_held(self, worker: str) -> bool:
        """Note whose lanes a worker holds now, and tell whether there are any; -1 stands for the account's own lane."""
        sql = "SELECT coalesce(relation_id, -1) AS who FROM syncd.lanes WHERE claimed_by = :worker"
        held = {row["who"] for row in await rows(self.circle.store, sql, worker=worker)}
        self.dropped |= held
        return bool(held)

    async def seize(self, worker: str, stop: Callable[[], None], go: Callable[[], None]) -> None:
        """Stop a worker that has a lane: whoever has none can lose none. If it gets none any more, stop it as it is."""
        for _ in range(SEIZE_TRIES):
            stop()
            if await self.note_held(worker):
                return
            go()
            await asyncio.sleep(0.005)
        stop()


class Hand(Protocol):
    """One drainer at work."""

    async def start(self) -> None: ...

    async def kill(self) -> None: ...

    async def stall(self, seconds: float) -> None: ...

    async def stop(self) -> None: ...

    async def cut(self) -> None: ...


class _Door:
    """A store that can be kept waiting: our own code and the database behind it are real."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = asyncio.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def begin(self) -> AbstractAsyncContextManager[Connection]:
        return self._through(self._store.begin)

    def reading(self) -> AbstractAsyncContextManager[Connection]:
        return self._through(self._store.reading)

    def at_once(self) -> AbstractAsyncContextManager[Connection]:
        return self._through(self._store.at_once)

    def begin_remote(self) -> AbstractAsyncContextManager[Connection]:
        return self._through(self._store.begin_remote)

    @asynccontextmanager
    async def _through(self, begin: Callable[[], AbstractAsyncContextManager[Connection]]) -> AsyncIterator[Connection]:
        await self._open.wait()
        async with begin() as connection:
            yield connection


class TaskHand:
    """A drainer as a task."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._ground, self._name = ground, name
        self._store = Store.open(ground.url, pool_size=2, application_name=name)
        self._door = _Door(self._store)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        circle, clock = self._ground.circle, SystemClock()
        auth = Auth(query={"admin": circle.sandbox.admin, "key": circle.sandbox.key})
        self._transport = Transport.open(circle.sandbox.base_url, auth, clock=clock)
        self._drainer = Drainer(
            self._door,  # type: ignore[arg-type]
            circle.provider,
            self._transport,
            clock,
            circle.account,
            self._ground.limits,
            self._told,
        )
        self._task = asyncio.create_task(self._drainer.run(self._stop))

    def _told(self, report: DeliveryReport) -> None:
        self._ground.fenced += report.is_fenced

    async def kill(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self._door.open()
        await self._transport.close()
        await self._ground.note_held(self._drainer._worker)

    async def stall(self, seconds: float) -> None:
        await self._ground.seize(self._drainer._worker, self._door.shut, self._door.open)
        for _ in range(10):
            await asyncio.sleep(seconds / 10)
            await self._ground.note_held(self._drainer._worker)
        self._door.open()

    async def stop(self) -> None:
        self._door.open()
        self._stop.set()
        if self._task is not None:
            async with asyncio.timeout(GRACE_S):
                await self._task
        await self._transport.close()
        await self._store.close()

    async def cut(self) -> None:
        await cut_sessions(self._ground, self._name, self._drainer._worker)

    @asynccontextmanager
    async def pool_taken(self) -> AsyncIterator[None]:
        """Have every connection of its pool for the length of the block."""
        pool = self._store.engine.pool
        async with AsyncExitStack() as taken:
            for _ in range(pool.size() + pool._max_overflow):  # type: ignore[attr-defined]
                await taken.enter_async_context(self._store.engine.connect())
            yield


class ProcessHand:
    """A drainer as a process."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._ground, self._name = ground, name
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.worker = ""
        self.reports: list[dict[str, Any]] = []
        self._spoke = asyncio.Event()

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        ground, sandbox = self._ground, self._ground.circle.sandbox
        told = argument(
            ground.limits,
            url=ground.url,
            base_url=sandbox.base_url,
            admin=sandbox.admin,
            key=sandbox.key,
            verifies=ground.verifies,
            name=self._name,
        )
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.world_drainer", told),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
            limit=1 << 20,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            self.worker = json.loads(await self._process.stdout.readline())["worker"]
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            if not line.startswith(b"{"):  # a log line
                continue
            self.reports.append(json.loads(line))
            self._ground.fenced += self.reports[-1]["is_fenced"]
            self._spoke.set()

    async def until_fenced(self) -> None:
        """Wait until it tells of a result that it had to drop."""
        async with asyncio.timeout(60):
            while not any(report["is_fenced"] for report in self.reports):
                await self._spoke.wait()
                self._spoke.clear()

    async def kill(self) -> None:
        await reap(self.process)
        await self._ground.note_held(self.worker)

    async def stall(self, seconds: float) -> None:
        stop, go = (partial(self.process.send_signal, number) for number in (signal.SIGSTOP, signal.SIGCONT))
        await self._ground.seize(self.worker, stop, go)
        await asyncio.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ask it to end, and see that it ends well."""
        try:
            if self.process.returncode is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
                async with asyncio.timeout(GRACE_S):
                    code = await self.process.wait()
                    assert code == 0, f"{self._name} ended with {code}"
        finally:
            await reap(self.process)
            if self._reading is not None:
                await self._reading

    async def cut(self) -> None:
        await cut_sessions(self._ground, self._name, self.worker)


_CUT = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name")


async def cut_sessions(ground: Ground, name: str, worker: str) -> None:
    """Take a drainer's sessions away from under it. What it held then may be in doubt: to it, and so to us."""
    await ground.note_held(worker)
    async with ground.circle.store.begin() as connection:
        await connection.execute(_CUT, {"name": name})
    await ground.note_held(worker)
