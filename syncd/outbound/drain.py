"""Drain: bring what the outbox holds to the CRM. Stage; claim; fold; converse; settle; report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from syncd import interpreter
from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.reports import DeliveryReport, DrainReport
from syncd.outbound.converse import Line
from syncd.outbound.guarding import Guarding
from syncd.outbound.intents import Intents
from syncd.outbound.lane import Desk
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.outbound.shift import Post, Shift
from syncd.outbound.tally import Tally
from syncd.outbound.worker import worker_name
from syncd.providers.contract import Provider, is_repeat_safe
from syncd.store import Store
from syncd.store.outbox import Backlog, count_backlog
from syncd.store.outbox_plan import snapshot
from syncd.transport import Transport

_LIMITS = DrainLimits()


class Drainer:
    """One account's drainer. Any number may run against one database: lanes are claimed, leased and fenced."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        transport: Transport,
        clock: Clock,
        account: Account,
        limits: DrainLimits = _LIMITS,
        report: Callable[[DeliveryReport], None] = lambda _: None,
        on_share: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``on_share`` is told of how many replicas share the account's rate, whenever that changes."""
        self._store = store
        self._provider = provider
        self._transport = transport
        self._clock = clock
        self._account = account
        self._limits = limits
        self._report = report
        self._on_share = on_share
        self._worker = worker_name(clock)
        self.guarding = Guarding(store, account, limits.guard, clock)

    async def drain(self, stop: asyncio.Event | None = None) -> DrainReport:
        """Send until nothing can be sent now; back-offs up to the limits' patience are sat out.

        Raises InfrastructureError when the database stays out of reach.
        """
        started = self._clock.monotonic()
        tally = Tally(self._account, self._report)
        shift = self._shift(tally, is_endless=False)
        await shift.work(stop or asyncio.Event())
        backlog = await self.backlog()
        elapsed_s = self._clock.monotonic() - started
        return tally.total(elapsed_s, backlog, shift.watch.paused)

    async def backlog(self) -> Backlog:
        """Count what is not delivered. Raises InfrastructureError when the database is out of reach."""
        async with snapshot(self._store) as connection:
            return await count_backlog(connection, self._account.id, partial(is_repeat_safe, self._provider))

    async def run(self, stop: asyncio.Event) -> None:
        """Send until stopped: what is under way is finished and settled, what is claimed beyond that is given back."""
        await self._shift(Tally(self._account, self._report), is_endless=True).work(stop)

    def _shift(self, tally: Tally, *, is_endless: bool) -> Shift:
        interpreter.tune()
        pace = Pace(self._limits, self._clock, self._on_share)
        line = Line.to(self._provider, self._transport, self._clock, pace)
        post = Post(self._store, self._account, self._worker, self._limits, self.guarding)
        desk = Desk(line, self._limits, Intents(self._store, self._worker, self._clock))
        return Shift(post, desk, tally, is_endless=is_endless)
