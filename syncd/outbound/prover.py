"""Prover: read back a share of what the CRM said yes to, beside the deliveries.

It takes what is due (so that two drainers never read the same), asks without any transaction open, and writes down what
the answers prove. It is nobody's hurry: it reads one change after the other, at the account's rate, and stops whenever
the account is not to be talked to. A read that fails says nothing about the change, nor about the account: deliveries
find out about that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from syncd.domain.errors import InfrastructureError
from syncd.log import get
from syncd.outbound.converse import Line
from syncd.outbound.limits import DrainLimits
from syncd.outbound.tally import Tally
from syncd.outbound.waiting import wait_for
from syncd.policy.proof import UNTOLD, Showing, Sight
from syncd.providers.contract import Answer, Outcome, ReadBack, Rejected, Request, Target, Throttled
from syncd.store import Store
from syncd.store.outbox_awaited import Awaited, Reading, expire, leave, postpone, take
from syncd.store.outbox_proof import Concluded, conclude

log = get("syncd.outbound")

_LOOK_S = 1.0
_AGAIN_S = 600.0
_EXPIRE_EVERY_S = 3600.0
# What a one-shot drain reads at most: it is there to deliver.
_ROUNDS = 8


class Prover:
    """One drainer's read-backs."""

    def __init__(self, store: Store, line: Line, limits: DrainLimits, tally: Tally) -> None:
        self._store = store
        self._line = line
        self._limits = limits
        self._tally = tally
        self._expired_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Read back what falls due until stopped."""
        while not stop.is_set():
            if not await self._tried_round():
                await wait_for(stop, _LOOK_S)

    async def catch_up(self) -> None:
        """Read back what is due now, within reason."""
        for _ in range(_ROUNDS):
            if not await self._tried_round():
                return

    async def _tried_round(self) -> int:
        """One round; while the database is away there is none, and the feeder has said so already."""
        if not self._line.pace.is_open:
            return 0
        try:
            return await self._round()
        except InfrastructureError:
            return 0

    async def _round(self) -> int:
        """Take, read, conclude; return how many were taken."""
        await self._expire()
        account_id, lease_s = self._tally.account.id, self._limits.lease_s
        async with self._store.begin() as connection:
            taken, asked_at = await take(connection, account_id, most=self._limits.read_back_batch, lease_s=lease_s)
        if asked_at is None:
            return 0
        found = await self._read_all(taken, self._line.clock.monotonic() + lease_s / 2)
        self._count(await self._conclude(taken, found, asked_at))
        return len(taken)

    async def _read_all(self, taken: Sequence[Awaited], deadline: float) -> Mapping[int, Showing | Outcome]:
        """Read one after the other, until time or the account's state ends it."""
        found: dict[int, Showing | Outcome] = {}
        for entry in taken:
            came_of_it = await self._read(entry, deadline)
            if isinstance(came_of_it, Throttled):
                self._line.pace.throttled(came_of_it.retry_after_s or self._limits.throttle_s)
            if came_of_it is None or not self._line.pace.is_open:
                break
            found[entry.id] = came_of_it
        return found

    async def _read(self, entry: Awaited, deadline: float) -> Showing | Outcome | None:
        target = Target(entry.remote_id, entry.email, since=entry.settled_at)
        try:
            return await self._hold(self._line.provider.read_back(entry.change, target), deadline)
        except Exception as error:  # the boundary: a conversation's bug must not end the drainer
            log.error("read_back.crashed", account=self._tally.account.name, entry_id=entry.id, exc_info=error)
            return UNTOLD

    async def _hold(self, reading: ReadBack, deadline: float) -> Showing | Outcome | None:
        """Drive a read-back to its end; None when it was not begun or broken off."""
        try:
            request = next(reading)
            while await self._may_send(deadline):
                request = reading.send(await self._exchange(request, deadline))
            reading.close()
        except StopIteration as end:
            found: Showing | Outcome = end.value
            return found
        return None

    async def _may_send(self, deadline: float) -> bool:
        line = self._line
        wait_s = line.pace.turn_s(max(0.0, deadline - line.clock.monotonic()))
        if wait_s is None or not line.pace.is_open:
            return False
        if wait_s > 0:
            await line.clock.sleep(wait_s)
        return line.clock.monotonic() < deadline

    async def _exchange(self, request: Request, deadline: float) -> Answer:
        self._tally.requests += 1
        return await self._line.transport.send(request, timeout_s=deadline - self._line.clock.monotonic())

    async def _conclude(
        self, taken: Sequence[Awaited], found: Mapping[int, Showing | Outcome], asked_at: datetime
    ) -> Concluded:
        """Write down what was seen. What cannot tell is left to pulls; what may tell later is read again later."""
        reading = Reading(self._tally.account.id, asked_at, self._limits.settle_window_s)
        seen = {entry.id: (entry, one) for entry in taken if isinstance(one := found.get(entry.id), Showing)}

        def look(entry: Awaited) -> Showing:
            before, showing = seen[entry.id]
            return showing if before.change == entry.change else UNTOLD  # part of it has been overtaken

        async with self._store.begin() as connection:
            concluded = await conclude(connection, reading, [entry for entry, _ in seen.values()], look)
            settled = {*concluded.verified, *concluded.diverged}
            left = [entry.id for entry in taken if entry.id not in settled]
            await leave(connection, [one for one in left if not _may_tell_later(found.get(one))])
            await postpone(connection, [one for one in left if _may_tell_later(found.get(one))], _AGAIN_S)
        return concluded

    async def _expire(self) -> None:
        now = self._line.clock.monotonic()
        if now - self._expired_at >= _EXPIRE_EVERY_S:
            self._expired_at = now
            async with self._store.begin() as connection:
                await expire(connection)

    def _count(self, found: Concluded) -> None:
        self._tally.verified += len(found.verified)
        self._tally.diverged += len(found.diverged)
        for warning in found.warnings:
            log.warning("entry.diverged", account=self._tally.account.name, reason=warning)


def _may_tell_later(found: Showing | Outcome | None) -> bool:
    """Tell whether another read may tell more: after a failed one, or when it was too early to conclude anything."""
    if isinstance(found, Showing):
        return found.sight is Sight.OTHER
    return not isinstance(found, Rejected)
