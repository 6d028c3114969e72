"""Shift: one run of the drainer: a feeder, the workers and the settler, from the first look to the last settle.

The feeder alone stages and claims; it keeps the queue of claimed lanes filled and decides when there is nothing left.
The workers send; the settler writes. They share the pace, the queue and one bell that ends the feeder's rest early.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from syncd.domain.account import Account
from syncd.domain.errors import InfrastructureError
from syncd.log import get
from syncd.outbound.guarding import Guarding
from syncd.outbound.lane import Desk, LaneResult, send_lane, untouched
from syncd.outbound.leases import Leases
from syncd.outbound.limits import DrainLimits
from syncd.outbound.lookout import Lookout
from syncd.outbound.prover import Prover
from syncd.outbound.queue import LaneQueue
from syncd.outbound.settler import Settler
from syncd.outbound.tally import Tally
from syncd.outbound.waiting import wait_for
from syncd.outbound.watch import Watch
from syncd.policy.lowwater import LAG_S
from syncd.store import Store
from syncd.store.account_states import Outlook
from syncd.store.outbox import Claim, Stager, Terms, claim, end_still_stager, stage, withhold

log = get("syncd.outbound")

# How often a busy drainer looks: at the account's state, and from where its claims need to read.
_LOOK_AGAIN_S = LAG_S
_WITHHOLD_AGAIN_S = 0.5
_LOST_S = (0.1, 5.0)
# For how long another stager may be at work, whenever we ask, before we ask whether it stands still.
_STILL_S = 5.0


@dataclass(frozen=True, slots=True)
class Post:
    """Where a shift works: the database, the account, under which name, within which limits and which guard."""

    store: Store
    account: Account
    worker: str
    limits: DrainLimits
    guarding: Guarding


class Shift:
    """``is_endless``: wait for new work for ever; otherwise end when nothing can be sent now or soon."""

    def __init__(self, post: Post, desk: Desk, tally: Tally, *, is_endless: bool) -> None:
        self._post = post
        self._desk = desk
        self._tally = tally
        self._is_endless = is_endless
        self._clock = desk.line.clock
        self._pace = desk.line.pace
        tally.width = lambda: self._pace.allowed
        self._bell = asyncio.Event()
        self._leases = Leases(post.store, post.worker, self._clock, post.limits.lease_s)
        self._queue = LaneQueue(post.limits, self._pace, self._clock, self._bell)
        self._settler = Settler(post.store, post.account, post.worker, self._clock, post.limits, self._settled)
        self._looked_at = self._moved_at = self._stuck_at = float("-inf")
        self._lost_s: float | None = None
        self._is_staged = False
        self._had_stage_at = self._clock.monotonic()
        within_s = 0.0 if is_endless else post.limits.patience_s
        self._lookout = Lookout(post.store, post.account.id, self._clock, within_s=within_s)
        self._prover = Prover(post.store, desk.line, post.limits, tally)
        self.watch = Watch(
            post.store,
            self._lookout,
            desk.line,
            post.account,
            post.limits,
            is_eager=not is_endless,
            worker=post.worker,
        )
        self._stager = Stager()

    async def work(self, stop: asyncio.Event) -> None:
        """Feed, send and settle until stopped or done; then finish what is under way and give back the rest."""
        failure: InfrastructureError | None = None
        async with asyncio.TaskGroup() as group:
            heeding = group.create_task(self._heed(stop))
            renewing = group.create_task(self._leases.run())
            guarding = group.create_task(self._keep_guard())
            settling = group.create_task(self._settler.run())
            proving = group.create_task(self._prove(stop))
            workers = [group.create_task(self._send(place)) for place in range(self._post.limits.concurrency)]
            try:
                await self._feed()
                await self._catch_up()
            except InfrastructureError as error:
                failure = error
            self._pace.stop()
            proving.cancel()
            await self._take_up_doubtful()
            self._queue.close()
            await asyncio.wait(workers)
            self._settler.finish()
            await asyncio.wait([settling])
            renewing.cancel()
            guarding.cancel()
            heeding.cancel()
        await self.watch.leave()
        if failure is not None:
            raise failure

    async def _keep_guard(self) -> None:
        """Beside the rounds: one may take longer than the guard is kept, as where the CRM lets a probe wait."""
        if self._is_endless:
            await self._post.guarding.keep()

    async def _take_up_doubtful(self) -> None:
        """Give back at the end what may be ours without our knowing, if the database can be asked."""
        with suppress(InfrastructureError):
            self._queue.put(await self._leases.adopt())

    async def _prove(self, stop: asyncio.Event) -> None:
        if self._is_endless:
            await self._prover.run(stop)

    async def _catch_up(self) -> None:
        """A one-shot drain reads back what is due once everything is delivered."""
        if not self._is_endless:
            await self._prover.catch_up()

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._pace.stop()
        self._bell.set()

    async def _feed(self) -> None:
        while not self._pace.is_stopping:
            self._bell.clear()
            rest_s = await self._round_or_rest()
            if rest_s is None:
                return
            if rest_s > 0 and not self._pace.is_stopping:
                await wait_for(self._bell, rest_s)

    async def _round_or_rest(self) -> float | None:
        """One round; while the database is out of reach, a growing rest instead. Logged on the edges alone."""
        try:
            rest_s = await self._round()
        except InfrastructureError as error:
            if self._lost_s is None:
                log.warning("database.lost", account=self._post.account.name, reason=str(error))
            self._lost_s = min(_LOST_S[1], 2 * self._lost_s) if self._lost_s else _LOST_S[0]
            if not self._is_endless and self._lost_s >= _LOST_S[1]:
                raise
            return self._lost_s
        if self._lost_s is not None:
            log.info("database.recovered", account=self._post.account.name)
        self._lost_s = None
        return rest_s

    async def _round(self) -> float | None:
        """Look, stage, claim; return how long to rest, or None when a one-shot drain is done."""
        await self._post.guarding.state(is_kept=self._is_endless)
        if self._leases.is_asking_due:
            self._queue.put(await self._leases.adopt())
        is_busy = bool(len(self._queue)) or self._settler.under_way > 0 or not self._settler.is_idle
        if not is_busy or self._must_look():
            outlook, closed_s = await self.watch.gate(self._pace)
            self._looked_at = self._clock.monotonic()
            if closed_s > 0 or not self._pace.is_open:
                return self._closed(closed_s, is_busy)
            if not is_busy and not outlook.has_work and not self._may_withhold(outlook):
                return self._idle(outlook.ready_in_s)
        if is_busy and self._is_staged and self._queue.wanted == 0:
            return self._post.limits.poll_interval_s
        moved = await self._stage_and_claim()
        return 0.0 if moved else self._post.limits.poll_interval_s

    def _may_withhold(self, outlook: Outlook) -> bool:
        """A conflict may wait for who holds its row: it is looked at again in a while, by a one-shot drain never."""
        again_s = _WITHHOLD_AGAIN_S if self._is_endless else float("inf")
        is_stuck = self._stuck_at > self._moved_at and self._clock.monotonic() - self._stuck_at < again_s
        return outlook.has_contest and not is_stuck

    def _must_look(self) -> bool:
        """An entry that failed again is asked about before anything more is claimed: it may be the host's trouble."""
        is_due = self._clock.monotonic() - self._looked_at > _LOOK_AGAIN_S
        return is_due or not self._pace.is_open or self._pace.is_doubtful

    def _closed(self, closed_s: float, is_busy: bool) -> float | None:
        limits = self._post.limits
        rest_s = max(closed_s, limits.poll_interval_s)
        if self._is_endless or is_busy:
            return min(rest_s, 1.0)
        return None if self.watch.paused is not None or rest_s > limits.patience_s else min(rest_s, 1.0)

    def _idle(self, ready_in_s: float | None) -> float | None:
        limits = self._post.limits
        if self._is_endless or self._leases.are_in_doubt:
            return limits.rest_s(self._clock.monotonic() - self._moved_at)
        if not self._lookout.is_whole:  # who says that all is delivered has looked everywhere
            self._lookout.insist()
            return 0.0
        return None if ready_in_s is None or ready_in_s > limits.patience_s else ready_in_s + 0.001

    async def _stage_and_claim(self) -> int:
        """Stage, and fill the queue, in one transaction: what was just committed is on its way a commit sooner.

        By our clock the lease starts before the claim: it ends too early, never too late.
        """
        limits = self._post.limits
        # What is known already is written down before anything is claimed: it may be about the very same lanes.
        wanted = 0 if self._settler.is_delayed else self._queue.wanted
        mark = self._lookout.mark
        safe, lands_s = self._desk.line.is_repeat_safe, limits.settle_window_s
        terms = Terms(self._post.worker, limits.lease_s, limits.window, safe, mark, lands_s)
        claimed, withheld = Claim((), 0), 0
        lease_until = self._clock.monotonic() + limits.lease_s
        try:
            async with self._post.store.begin() as connection:
                moved = await stage(connection, self._stager, most=limits.stage_batch, now=self._clock.monotonic())
                withheld = await withhold(connection, self._post.account.id, settle_window_s=limits.settle_window_s)
                if wanted > 0:
                    claimed = await claim(connection, self._post.account.id, terms, most=wanted)
        except InfrastructureError:
            self._leases.doubt(claimed.lanes, lease_until)
            raise
        self._stager.committed(self._clock.monotonic())
        self._tell_holds()
        staged = moved or 0
        self._is_staged = staged < limits.stage_batch
        self._tally.staged += staged
        if staged or withheld or claimed.looked:
            self._moved_at = self._clock.monotonic()
        else:
            self._stuck_at = self._clock.monotonic()
        self._queue.put(self._leases.hold(claimed.lanes, lease_until))
        await self._wait_for_stage(is_ours=moved is not None)
        return staged + withheld + claimed.looked

    async def _wait_for_stage(self, *, is_ours: bool) -> None:
        """Others may stage in our place, but not stand still at it: nobody would stage anything, for any account."""
        now = self._clock.monotonic()
        if not is_ours and now - self._had_stage_at < _STILL_S:
            return
        self._had_stage_at = now
        if not is_ours:
            async with self._post.store.reading() as connection:
                if await end_still_stager(connection, _STILL_S):
                    log.warning("stager.ended", account=self._post.account.name, still_s=_STILL_S)

    def _tell_holds(self) -> None:
        """Log a hold once, when it is opened; it may be another account's, whose changes we staged."""
        for incident in self._stager.sightings.news:
            log.warning("hold.opened", reason=incident.summary, **incident.detail)
        self._stager.sightings.news.clear()

    async def _send(self, place: int) -> None:
        """One worker: take a lane, send it, hand over what came of it."""
        while (lease := await self._queue.take(place)) is not None:
            self._settler.under_way += 1
            started = self._clock.monotonic()
            try:
                if self._pace.is_open:
                    result = await send_lane(self._desk, lease, place)
                else:
                    result = untouched(lease)
            finally:
                self._settler.under_way -= 1
            self._queue.note(self._clock.monotonic() - started)
            self._settler.add(result)

    def _settled(self, result: LaneResult, is_fenced: bool) -> None:
        self._leases.let_go(result.lease)
        self._tally.count(result, is_fenced)
        if result.settlement.is_more:
            self._bell.set()
