"""Applying: send exactly what a plan file names, or say what has moved. It mirrors the drain, lane by lane.

Stage; then of each lane: claim it if it is as planned; converse; settle, and in the same transaction claim its next
round (``handover``). Lanes are claimed, leased and fenced as by any drainer, so drainers may run beside it: what one of
them took first has moved. A lane that has moved is left as it is; so is everything that came after the plan was made.

A call that fails is settled as the drain would settle it, and its lane goes no further.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import InfrastructureError
from syncd.domain.reports import DeliveryReport
from syncd.log import get
from syncd.outbound.converse import Line
from syncd.outbound.gate import Gate
from syncd.outbound.guarding import Guarding
from syncd.outbound.handover import AGAIN_S, Handover
from syncd.outbound.intents import Intents
from syncd.outbound.lane import Delivery, Desk, LaneResult, send_lane
from syncd.outbound.leases import Lease
from syncd.outbound.limits import DrainLimits
from syncd.outbound.lookout import Lookout
from syncd.outbound.pace import Pace
from syncd.outbound.plan_file import FiledPlan
from syncd.outbound.planned_lane import LaneOnItsWay
from syncd.outbound.tally import Tally
from syncd.outbound.watch import Watch
from syncd.outbound.worker import worker_name
from syncd.policy.states import EntryStatus
from syncd.providers.contract import Provider
from syncd.store import Store
from syncd.store.outbox import ClaimedLane, Terms, stage, withhold
from syncd.store.outbox_apply import Moved, changes_alone
from syncd.transport import Transport

log = get("syncd.outbound")

_DELIVERED = (EntryStatus.VERIFIED, EntryStatus.ACCEPTED, EntryStatus.DIVERGED)
_STAGINGS = 200


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
        line = Line.to(provider, transport, clock, Pace(limits, clock))
        worker = worker_name(clock)
        self._desk = Desk(line, limits, Intents(store, worker, clock))
        lookout = Lookout(store, account.id, clock, within_s=0.0)
        self._watch = Watch(store, lookout, line, account, limits, is_eager=True, worker=worker)
        self._gate = Gate(self._watch, line.pace, clock, limits)
        self._tally = Tally(account, report)
        self._guarding = Guarding(store, account, limits.guard, clock)
        terms = Terms(worker, limits.lease_s, limits.window, line.is_repeat_safe, lands_s=limits.settle_window_s)
        self._handover = Handover(store, account, clock, terms)

    async def apply(self, plan: FiledPlan, stop: asyncio.Event | None = None) -> Applied:
        """Send the plan's calls until done or stopped; what is under way when it is stopped is finished and settled.

        Raises InfrastructureError when the database is out of reach from the start.
        """
        started = self._clock.monotonic()
        await self._guarding.state(is_kept=False)
        await self._stage_all()
        waiting = deque((number, LaneOnItsWay(lane, plan.made_at)) for number, lane in enumerate(plan.lanes))
        ended: dict[int, AppliedLane] = {}
        async with asyncio.TaskGroup() as group:
            heeding = group.create_task(self._heed(stop or asyncio.Event()))
            width = range(min(self._limits.concurrency, len(plan.lanes)))
            workers = [group.create_task(self._work(place, waiting, ended, len(plan.lanes))) for place in width]
            await asyncio.gather(*workers)
            heeding.cancel()
        await self._watch.leave()
        lanes = tuple(ended[number] for number in sorted(ended))
        return Applied(self._account.name, self._clock.monotonic() - started, lanes, self._tally.requests)

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._gate.stop()

    async def _stage_all(self) -> None:
        """Stage what is captured: the plan may speak of it. Another stager does it as well as we do."""
        for _ in range(_STAGINGS):
            async with self._store.begin() as connection:
                staged = await stage(connection, most=self._limits.stage_batch)
                await withhold(connection, self._account.id, settle_window_s=self._limits.settle_window_s)
            if staged == 0:
                return
            if staged is None:
                await self._clock.sleep(AGAIN_S)

    async def _work(
        self, place: int, waiting: deque[tuple[int, LaneOnItsWay]], ended: dict[int, AppliedLane], total: int
    ) -> None:
        """One worker: take the next lane while there is a place for it; a lane whose worker lost its place goes back.

        None leaves before all is done: who waits for a place would else be left alone with a lane.
        """
        while len(ended) < total:
            if not waiting or not self._has_place(place):
                await self._clock.sleep(self._limits.poll_interval_s)
                continue
            number, lane = waiting.popleft()
            ending = await self._ending(lane, place)
            if ending is None:
                waiting.appendleft((number, lane))
            else:
                fate, reason = ending
                whose = lane.filed
                ended[number] = AppliedLane(whose.relation_id, whose.email, fate, lane.planned, lane.sent, reason)

    def _has_place(self, place: int) -> bool:
        """Whoever stops takes all places away: what is left is told off, not sent."""
        return self._gate.is_stopped or self._desk.line.pace.has_place(place)

    async def _ending(self, lane: LaneOnItsWay, place: int) -> tuple[Fate, str | None] | None:
        try:
            return await self._send(lane, place)
        except InfrastructureError as error:
            return Fate.WAITS, str(error)
        except Exception as error:  # the boundary: a lane that breaks must not stop the others
            log.error("apply.failed", account=self._account.name, relation=lane.filed.relation_id, exc_info=error)
            return Fate.FAILED, f"unexpected {type(error).__name__}; the log has more"

    async def _send(self, lane: LaneOnItsWay, place: int) -> tuple[Fate, str | None] | None:
        """Send one lane's rounds, each under the claim that settled the one before; None when the place is lost."""
        claimed: ClaimedLane | Moved | None = None
        lease_until = 0.0
        while not lane.is_done:
            if claimed is None:
                closed = await self._gate.closed()
                if closed is not None:
                    return Fate.WAITS, closed
                if not self._has_place(place):
                    return None
                lease_until = self._clock.monotonic() + self._limits.lease_s
                claimed = await self._handover.take(lane)
            if isinstance(claimed, Moved):
                return Fate.REFUSED, claimed.reason
            result = await send_lane(self._desk, Lease(claimed, lease_until), place)
            ending = _noted(lane, result)
            goes_on = ending is None and not lane.is_done and self._may_go_on(place)
            lease_until = self._clock.monotonic() + self._limits.lease_s
            claimed = await self._handover.settle(lane, result, goes_on=goes_on)
            self._tally.count(result, isinstance(claimed, Moved) and claimed.is_taken_over)
            if ending is not None:
                return ending
        return Fate.SENT, None

    def _may_go_on(self, place: int) -> bool:
        return self._desk.line.pace.is_open and self._desk.line.pace.has_place(place)


def _noted(lane: LaneOnItsWay, result: LaneResult) -> tuple[Fate, str] | None:
    """Tell the lane what was delivered; return how it ends if it goes no further. What was not begun is no failure."""
    settlement = result.settlement
    unharmed = {e.seq: e for e in settlement.entries if e.status == EntryStatus.PENDING and not e.is_tried}
    ended: dict[int, EntryStatus] = {}
    ending: tuple[Fate, str] | None = None
    for delivery in result.deliveries:
        seq, status = delivery.step.carrier.seq, EntryStatus(delivery.status)
        if status in _DELIVERED or (status is EntryStatus.DEAD and lane.is_expected_to_die(seq)):
            ended[seq] = status
        elif seq not in unharmed:
            ending = ending or (Fate.FAILED, _failure(delivery))
    lane.settled(changes_alone(result.lane.entries), result.lane.plan, ended, settlement.bind_remote_id)
    put_off = next((entry.error for entry in unharmed.values() if entry.delay_s is not None), None)
    return ending or (None if put_off is None else (Fate.WAITS, put_off))


def _failure(delivery: Delivery) -> str:
    what = "it is tried again later" if delivery.status == EntryStatus.PENDING else f"it is {delivery.status} now"
    return f"entry {delivery.step.carrier.id} ({delivery.step.carrier.operation}): {delivery.detail}; {what}"
