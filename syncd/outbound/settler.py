"""Settler: one task that writes results down, in batches.

A batch goes when it is full, when its first result has waited long enough, or at once when nobody else is under way.
A result that the database did not take stays here and is offered again until it is taken or the lane turns out to be
somebody else's: the epoch decides that, however late, and not the lease, which is about sending. If the connection was
lost in the middle, the commit may have happened: what is refused then is read, and counts as settled if it was. A batch
that holds something unwritable is settled lane by lane, so that it costs its own lane only.

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
from syncd.store.outbox import Settled, already_settled, settle

log = get("syncd.outbound")

# A lane whose relation an application holds is offered again after this long.
DEFERRED_S = 0.1
# How long a clean end waits for a database that is out of reach.
FAREWELL_S = 5.0


class Settler:
    """Takes results with ``add``; ``on_settled`` hears of each, and whether it was fenced.

    ``is_delayed`` while the database does not take a batch.
    """

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
        self.is_delayed = False
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
            self._is_writing = self.is_delayed = False
        if self._waiting:
            self._bell.set()

    async def _write(self, batch: Sequence[LaneResult]) -> None:
        pause_s, is_doubtful = 0.05, False
        while batch:
            try:
                settled = await self._settle(batch, is_doubtful)
            except InfrastructureError as error:
                if not is_doubtful:
                    log.warning("settle.delayed", account=self._account.name, lanes=len(batch), reason=str(error))
                is_doubtful = self.is_delayed = True
                await self._clock.sleep(pause_s)
                pause_s = min(2.0, pause_s * 2)
                batch = self._unless_over(batch)
            else:
                self._conclude(batch, settled)
                return

    def _conclude(self, batch: Sequence[LaneResult], settled: Settled) -> None:
        for result in batch:
            if result.settlement.lane_id not in settled.deferred:
                self._on_settled(result, result.settlement.lane_id in settled.fenced)
        deferred = self._unless_over([r for r in batch if r.settlement.lane_id in settled.deferred])
        if deferred:
            self._deferred += len(deferred)
            asyncio.get_running_loop().call_later(DEFERRED_S, self._offer_again, deferred)

    def _offer_again(self, deferred: Sequence[LaneResult]) -> None:
        self._deferred -= len(deferred)
        for result in deferred:
            self.add(result)
        self._bell.set()

    async def _settle(self, batch: Sequence[LaneResult], is_doubtful: bool) -> Settled:
        try:
            return await self._transact(batch, is_doubtful)
        except InfrastructureError:
            raise
        except Exception as error:
            if len(batch) == 1:
                log.error("settle.failed", account=self._account.name, lane=batch[0].settlement.lane_id, exc_info=error)
                return Settled(fenced=frozenset({batch[0].settlement.lane_id}))
        parts = [await self._settle([result], is_doubtful) for result in batch]
        return Settled(
            frozenset().union(*(part.fenced for part in parts)), frozenset().union(*(part.deferred for part in parts))
        )

    async def _transact(self, batch: Sequence[LaneResult], is_doubtful: bool) -> Settled:
        settlements = [result.settlement for result in batch]
        async with self._store.begin_remote() as connection:
            settled = await settle(connection, self._account.id, self._worker, settlements)
            if not (is_doubtful and settled.fenced):
                return settled
            refused = [s for s in settlements if s.lane_id in settled.fenced]
            done = await already_settled(connection, refused)
        return Settled(settled.fenced - done, settled.deferred)

    def _unless_over(self, batch: Sequence[LaneResult]) -> list[LaneResult]:
        """Let go of everything once a clean end has waited long enough; it counts as fenced."""
        if self._clock.monotonic() < self._give_up_at:
            return list(batch)
        for result in batch:
            self._on_settled(result, True)
        return []


def _epoch(result: LaneResult) -> int:
    return result.settlement.epoch
