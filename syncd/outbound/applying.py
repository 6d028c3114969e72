"""Applying: send exactly what a plan file names, or say what has moved. It mirrors the drain, lane by lane.

Stage; then of each lane: claim it if it is as planned; converse; settle, and in the same transaction claim its next
round. Lanes are claimed, leased and fenced as by any drainer, so drainers may run beside it: what one of them took
first has moved. A lane that has moved is left as it is; so is everything that came after the plan was made.

A call that fails is settled as the drain would settle it, and its lane goes no further.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.changes import LocalChange
from syncd.domain.errors import InfrastructureError
from syncd.domain.reports import DeliveryReport
from syncd.log import get
from syncd.outbound.converse import Line
from syncd.outbound.gate import Gate
from syncd.outbound.lane import Delivery, Desk, LaneResult, send_lane
from syncd.outbound.leases import Lease
from syncd.outbound.limits import DrainLimits
from syncd.outbound.lookout import Lookout
from syncd.outbound.pace import Pace
from syncd.outbound.plan_file import FiledLane, FiledPlan
from syncd.outbound.planned_lane import LaneOnItsWay
from syncd.outbound.tally import Tally
from syncd.outbound.watch import Watch
from syncd.policy.states import EntryStatus
from syncd.providers.contract import Effect, Provider
from syncd.store import Store
from syncd.store.outbox import ClaimedLane, Terms, settle, stage
from syncd.store.outbox_apply import Locked, Moved, changes_alone, claim_planned
from syncd.transport import Transport

log = get("syncd.outbound")

_DELIVERED = (EntryStatus.VERIFIED, EntryStatus.ACCEPTED, EntryStatus.DIVERGED)
# A lane that somebody writes to, a stager that is at work, a database that is away: looked at again after a moment.
_AGAIN_S = 0.1
_AGAIN = 50


class Fate(StrEnum):
    """How a planned lane ended."""

    SENT = "sent"
    REFUSED = "refused"  # it has moved: nothing more of it was sent
    FAILED = "failed"  # a call was not delivered; its entry waits or is dead, as after a drain
    WAITS = "waits"  # nothing may be sent now


@dataclass(frozen=True, slots=True)
class AppliedLane:
    """One lane: how many calls were planned, how many were delivered, and why not all."""

    relation_id: int | None
    email: str | None
    fate: Fate
    planned: int
    sent: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan file."""

    account: str
    elapsed_s: float
    lanes: tuple[AppliedLane, ...]
    requests: int

    def count(self, fate: Fate) -> int:
        return sum(lane.fate is fate for lane in self.lanes)


class Applier:
    """One account's. Beside drainers it is one more: it holds a lane only while it sends it."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        transport: Transport,
        clock: Clock,
        account: Account,
        limits: DrainLimits,
        report: Callable[[DeliveryReport], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._account = account
        self._limits = limits
        reads = frozenset(name for name, row in provider.endpoints.items() if row.effect is Effect.SAFE)
        line = Line(provider, transport, clock, Pace(limits, clock), reads)
        self._desk = Desk(line, limits)
        lookout = Lookout(store, account.id, clock, within_s=0.0)
        self._gate = Gate(Watch(store, lookout, line, account, limits, is_eager=True), line.pace, clock, limits)
        self._tally = Tally(account, report)
        worker = f"{socket.gethostname()}/{os.getpid()}/{int(clock.random() * 0xFFFFFFFF):08x}"
        self._terms = Terms(worker, limits.lease_s, limits.window, self._is_repeat_safe)

    async def apply(self, plan: FiledPlan, stop: asyncio.Event | None = None) -> Applied:
        """Send the plan's calls until done or stopped; what is under way when it is stopped is finished and settled.

        Raises InfrastructureError when the database is out of reach from the start.
        """
        started = self._clock.monotonic()
        await self._stage_all()
        ended: dict[int, AppliedLane] = {}
        waiting = iter(enumerate(plan.lanes))
        async with asyncio.TaskGroup() as group:
            heeding = group.create_task(self._heed(stop or asyncio.Event()))
            width = range(min(self._limits.concurrency, len(plan.lanes)))
            workers = [group.create_task(self._work(plan, waiting, ended)) for _ in width]
            await asyncio.gather(*workers)
            heeding.cancel()
        lanes = tuple(ended[place] for place in sorted(ended))
        return Applied(self._account.name, self._clock.monotonic() - started, lanes, self._tally.requests)

    def _is_repeat_safe(self, change: LocalChange) -> bool:
        return self._desk.line.provider.effect(change) in (Effect.REPEAT_SAFE, Effect.SAFE)

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._gate.stop()

    async def _stage_all(self) -> None:
        """Stage what is captured: the plan may speak of it. Another stager does it as well as we do."""
        for _ in range(_AGAIN):
            async with self._store.begin() as connection:
                staged = await stage(connection, most=self._limits.stage_batch)
            if staged == 0:
                return
            if staged is None:
                await self._clock.sleep(_AGAIN_S)

    async def _work(
        self, plan: FiledPlan, waiting: Iterator[tuple[int, FiledLane]], ended: dict[int, AppliedLane]
    ) -> None:
        """One worker: take the next lane of the plan, until none is left."""
        for place, filed in waiting:
            lane = LaneOnItsWay(filed, plan.made_at)
            try:
                fate, reason = await self._send(lane)
            except InfrastructureError as error:
                fate, reason = Fate.WAITS, str(error)
            except Exception as error:
                log.error("apply.failed", account=self._account.name, relation=filed.relation_id, exc_info=error)
                fate, reason = Fate.FAILED, f"unexpected {type(error).__name__}; the log has more"
            ended[place] = AppliedLane(filed.relation_id, filed.email, fate, lane.planned, lane.sent, reason)

    async def _send(self, lane: LaneOnItsWay) -> tuple[Fate, str | None]:
        """Send one lane's rounds, each under the claim that settled the one before."""
        claimed: ClaimedLane | Moved | None = None
        lease_until = 0.0
        while not lane.is_done:
            if claimed is None:
                closed = await self._gate.closed()
                if closed is not None:
                    return Fate.WAITS, closed
                lease_until = self._clock.monotonic() + self._limits.lease_s
                claimed = await self._claim(lane)
            if isinstance(claimed, Moved):
                return Fate.REFUSED, claimed.reason
            result = await send_lane(self._desk, Lease(claimed, lease_until))
            failure = _noted(lane, result)
            lease_until = self._clock.monotonic() + self._limits.lease_s
            claimed = await self._settle(lane, result, goes_on=failure is None and not lane.is_done)
            if failure is not None:
                return Fate.FAILED, failure
        return Fate.SENT, None

    async def _claim(self, lane: LaneOnItsWay) -> ClaimedLane | Moved:
        for _ in range(_AGAIN):
            async with self._store.begin() as connection:
                claimed = await claim_planned(connection, self._account.id, self._terms, lane.sought())
            if not isinstance(claimed, Locked):
                return claimed
            await self._clock.sleep(_AGAIN_S)
        return Moved("somebody else holds its place in the outbox")

    async def _settle(self, lane: LaneOnItsWay, result: LaneResult, *, goes_on: bool) -> ClaimedLane | Moved | None:
        """Write the result down while it is ours to write; return the next claim, None where there is to be none.

        A lane whose relation an application holds is offered again; so is any while the database is away.
        """
        lane_id, settled, claimed = result.settlement.lane_id, None, None
        while settled is None and self._clock.monotonic() < result.lease.until:
            try:
                async with self._store.begin_remote() as connection:
                    settled = await settle(connection, self._account.id, self._terms.worker, [result.settlement])
                    if goes_on and self._desk.line.pace.is_open and not settled.deferred | settled.fenced:
                        claimed = await claim_planned(connection, self._account.id, self._terms, lane.sought())
            except InfrastructureError:
                settled, claimed = None, None
            if settled is None or settled.deferred:
                settled = None
                await self._clock.sleep(_AGAIN_S)
        is_fenced = settled is None or lane_id in settled.fenced
        self._tally.count(result, is_fenced)
        if is_fenced:
            return Moved("its lease ran out while it was sent, and another drainer may have taken it over")
        return None if isinstance(claimed, Locked) else claimed


def _noted(lane: LaneOnItsWay, result: LaneResult) -> str | None:
    """Tell the lane what was delivered; return the first failure. A call that was not begun is none."""
    settlement = result.settlement
    untried = {entry.seq for entry in settlement.entries if entry.status == EntryStatus.PENDING and not entry.is_tried}
    ended: dict[int, EntryStatus] = {}
    failure = None
    for delivery in result.deliveries:
        seq, status = delivery.step.carrier.seq, EntryStatus(delivery.status)
        if status in _DELIVERED or (status is EntryStatus.DEAD and lane.is_expected_to_die(seq)):
            ended[seq] = status
        elif seq not in untried:
            failure = failure or _failure(delivery)
    lane.settled(changes_alone(result.lane.entries), result.lane.plan, ended, settlement.bind_remote_id)
    return failure


def _failure(delivery: Delivery) -> str:
    what = "it is tried again later" if delivery.status == EntryStatus.PENDING else f"it is {delivery.status} now"
    return f"entry {delivery.step.carrier.id} ({delivery.step.carrier.operation}): {delivery.detail}; {what}"
