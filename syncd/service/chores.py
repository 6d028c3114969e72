"""Chores in the daemon: finish what was decided, forget what was delivered long ago and history older than is kept.

Done by the replica that holds the account's lease, beside draining and pulling and in no hurry: each batch is a
transaction of its own, with a pause after it. A round that finds the lease elsewhere or the database away does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from syncd import log
from syncd.clock import Clock
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.service.accounts import AccountRuntime
from syncd.service.lease import Lease
from syncd.service.schedule import Job
from syncd.store.history_prune import prune_history
from syncd.store.outbox import carry_out, prune, unfinished

FINISH_EVERY_S, PRUNE_EVERY_S, PRUNE_FIRST_S = 30.0, 3600.0, 300.0
PAUSE_S = 0.05


class AccountChores:
    """One account's chores, as jobs for the schedule."""

    def __init__(self, runtime: AccountRuntime, lease: Lease, clock: Clock) -> None:
        self._runtime, self._lease, self._clock = runtime, lease, clock
        self._log = log.get("syncd.service").bind(account=runtime.account.name)
        self._turn = asyncio.Lock()
        self._is_stopping = False

    def jobs(self) -> tuple[Job, ...]:
        """Return what is to be done and how often; pruning is left out when everything is kept."""
        name = self._runtime.account.name
        finish = Job(f"{name}/finish_holds", FINISH_EVERY_S, self.finish_holds, FINISH_EVERY_S)
        prune_every_s = PRUNE_EVERY_S if self._runtime.config.send.keep_sent_days > 0 else 0.0
        forget_every_s = PRUNE_EVERY_S if self._runtime.config.pull.keep_history_days > 0 else 0.0
        return (
            finish,
            Job(f"{name}/prune", prune_every_s, self.prune, PRUNE_FIRST_S),
            Job(f"{name}/prune_history", forget_every_s, self.prune_history, PRUNE_FIRST_S),
        )

    async def finish(self) -> None:
        """Begin no further batch and wait for the one under way."""
        self._is_stopping = True
        async with self._turn:
            return

    async def finish_holds(self) -> None:
        """Go on with decisions that a crash cut short."""
        await self._round("finish_holds", self._finish_holds)

    async def prune(self) -> None:
        """Delete settled entries that are older than is kept."""
        await self._round("prune", self._prune)

    async def prune_history(self) -> None:
        """Delete changes that are older than is kept of the history."""
        await self._round("prune_history", self._prune_history)

    async def _round(self, chore: str, work: Callable[[], Awaitable[None]]) -> None:
        """Work when it is ours to do. The boundary at which a crash ends; an absent database is told of elsewhere."""
        async with self._turn:
            try:
                await work()
            except (InfrastructureError, ConfigurationError):
                return
            except Exception as error:  # noqa: BLE001 (one broken chore must not end the daemon)
                self._log.error("chore.crashed", chore=chore, exc_info=error)

    def _may_work(self) -> bool:
        return self._lease.is_held and not self._is_stopping

    async def _finish_holds(self) -> None:
        if not self._may_work():
            return
        store, account = self._runtime.store, self._runtime.account
        async with store.begin() as connection:
            waiting = await unfinished(connection, account.id)
        for hold_id in waiting:
            entries = 0
            async with aclosing(carry_out(store, hold_id)) as batches:
                async for moved in batches:
                    entries += moved
                    if not self._may_work():
                        return
            self._log.info("hold.finished", hold=hold_id, entries=entries)

    async def _prune(self) -> None:
        store, account = self._runtime.store, self._runtime.account
        keep_days, after, entries, attempts = self._runtime.config.send.keep_sent_days, 0, 0, 0
        while self._may_work():
            async with store.begin() as connection:
                done = await prune(connection, account.id, keep_days=keep_days, after=after)
            entries, attempts = entries + done.entries, attempts + done.attempts
            if done.after is None:
                break
            after = done.after
            await self._clock.sleep(PAUSE_S)
        if entries:
            self._log.info("outbox.pruned", entries=entries, attempts=attempts)

    async def _prune_history(self) -> None:
        store, account = self._runtime.store, self._runtime.account
        keep_days, after, changes = self._runtime.config.pull.keep_history_days, 0, 0
        while self._may_work():
            async with store.begin() as connection:
                done = await prune_history(connection, account.id, keep_days=keep_days, after=after)
            changes += done.changes
            if done.after is None:
                break
            after = done.after
            await self._clock.sleep(PAUSE_S)
        if changes:
            self._log.info("history.pruned", changes=changes)
