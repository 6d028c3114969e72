"""Settler: one task that writes results down, in batches.

A batch goes when it is full, when its first result has waited long enough, or at once when nobody else is under way.
A result that the database did not take stays here and is offered again while its lease lasts; after that the lane is
somebody else's, and what we knew is found out again by reading back. A batch that holds something unwritable is
settled lane by lane, so that it costs its own lane only.

While results wait, their leases may end and this very drainer may claim the lanes anew: of two results of one lane the
older is fenced there and then, so that no batch can carry it past the guard beside the newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import InfrastructureError
from syncd.log import get
from syncd.outbound.lane import LaneResult
from syncd.outbound.limits import DrainLimits
from syncd.outbound.waiting import wait_for
from syncd.store import Store
from syncd.store.outbox import Settled, settle

log = get("syncd.outbound")

# A lane whose relation an application holds is offered again after this long.
DEFERRED_S = 0.1
# How long a clean end waits for a database that is out of reach.
FAREWELL_S = 5.0


class Settler:
    """Takes results with ``add``; ``on_settled`` hears of each, and whether it was fenced."""

    def __init__(
        self,
        store: Store,
        account: Account,
        worker: str,
        clock: Clock,
        limits: DrainLimits,
        on_settled: Callable[[LaneResult, bool], None],
    ) -> None:
        self._store = store
        self._account = account
        self._worker = worker
        self._clock = clock
        self._limits = limits
        self._on_settled = on_settled
        self._waiting: dict[int, LaneResult] = {}
        self._first_at = 0.0
        self._bell = asyncio.Event()
        self._is_finishing = False
        self._give_up_at = float("inf")
        self._deferred = 0
        self._is_writing = False
        self.under_way = 0

    @property
    def is_idle(self) -> bool:
        return not (self._waiting or self._deferred or self._is_writing)

    def add(self, result: LaneResult) -> None:
        if not self._waiting:
            self._first_at = self._clock.monotonic()
        lane_id = result.settlement.lane_id
        waiting = self._waiting.get(lane_id)
        if waiting is not None:
            older, result = sorted((waiting, result), key=_epoch)
            self._on_settled(older, True)
        self._waiting[lane_id] = result
        if self.under_way == 0 or len(self._waiting) >= self._limits.settle_batch or len(self._waiting) == 1:
            self._bell.set()

    def finish(self) -> None:
        """Let ``run`` end when everything is written, or when the database stays away too long for a clean end."""
        self._give_up_at = self._clock.monotonic() + FAREWELL_S
        self._is_finishing = True
        self._bell.set()

    async def run(self) -> None:
        """Write until finished."""
        while not (self._is_finishing and self.is_idle):
            await self._bell.wait()
            self._bell.clear()
            await self._gather()
            if self._waiting:
                await self._write_batch()

    async def _gather(self) -> None:
        """Wait for company as long as there is any to come."""
        while self._waiting and self.under_way > 0 and not self._is_finishing:
            left_s = self._first_at + self._limits.settle_s - self._clock.monotonic()
            if left_s <= 0 or len(self._waiting) >= self._limits.settle_batch:
                return
            await wait_for(self._bell, left_s)
            self._bell.clear()

    async def _write_batch(self) -> None:
        batch, self._waiting = tuple(self._waiting.values()), {}
        self._is_writing = True
        try:
            await self._write(batch)
        finally:
            self._is_writing = False
        if self._waiting:
            self._bell.set()

    async def _write(self, batch: Sequence[LaneResult]) -> None:
        pause_s = 0.05
        while batch:
            try:
                settled = await self._settle(batch)
            except InfrastructureError as error:
                if pause_s == 0.05:
                    log.warning("settle.delayed", account=self._account.name, lanes=len(batch), reason=str(error))
                await self._clock.sleep(pause_s)
                pause_s = min(2.0, pause_s * 2)
                batch = self._still_ours(batch)
            else:
                self._conclude(batch, settled)
                return

    def _conclude(self, batch: Sequence[LaneResult], settled: Settled) -> None:
        for result in batch:
            if result.settlement.lane_id not in settled.deferred:
                self._on_settled(result, result.settlement.lane_id in settled.fenced)
        deferred = self._still_ours([r for r in batch if r.settlement.lane_id in settled.deferred])
        if deferred:
            self._deferred += len(deferred)
            asyncio.get_running_loop().call_later(DEFERRED_S, self._offer_again, deferred)

    def _offer_again(self, deferred: Sequence[LaneResult]) -> None:
        self._deferred -= len(deferred)
        for result in deferred:
            self.add(result)
        self._bell.set()

    async def _settle(self, batch: Sequence[LaneResult]) -> Settled:
        try:
            return await self._transact(batch)
        except InfrastructureError:
            raise
        except Exception as error:
            if len(batch) == 1:
                log.error("settle.failed", account=self._account.name, lane=batch[0].settlement.lane_id, exc_info=error)
                return Settled(fenced=frozenset({batch[0].settlement.lane_id}))
        parts = [await self._settle([result]) for result in batch]
        return Settled(
            frozenset().union(*(part.fenced for part in parts)), frozenset().union(*(part.deferred for part in parts))
        )

    async def _transact(self, batch: Sequence[LaneResult]) -> Settled:
        async with self._store.begin_remote() as connection:
            return await settle(connection, self._account.id, self._worker, [r.settlement for r in batch])

    def _still_ours(self, batch: Sequence[LaneResult]) -> list[LaneResult]:
        """Let go of what is not ours to settle any more; it counts as fenced."""
        now = self._clock.monotonic()
        kept: list[LaneResult] = []
        for result in batch:
            if now < min(result.lease_until, self._give_up_at):
                kept.append(result)
            else:
                self._on_settled(result, True)
        return kept


def _epoch(result: LaneResult) -> int:
    return result.settlement.epoch
