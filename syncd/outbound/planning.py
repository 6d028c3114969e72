"""Planning: what a drain would send now, found out without sending, moving or claiming anything.

Read the outbox as one snapshot; fold each lane to its end; count all, keep what is shown; close the snapshot; if asked,
look at the CRM with safe reads. The calls are those of ``policy.fold``, as the drainer's are: there is no other way to
decide them. What a drain would do after a call failed is not planned: a plan supposes that calls succeed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.facets import Turn, turn_of
from syncd.outbound.limits import DrainLimits
from syncd.outbound.looking import look_at_crm
from syncd.outbound.plan_file import (
    FORMAT,
    VERSION,
    FiledCall,
    FiledLane,
    FiledPlan,
    FiledRound,
    filed_entry,
    payload_of,
)
from syncd.outbound.plan_lanes import LaneCourse, show_lanes
from syncd.outbound.planned import CallCount, Plan, PlannedLane, PlanTotals
from syncd.outbound.rehearsal import Rehearsed, rehearse
from syncd.policy.fold import Step
from syncd.policy.rounds import course
from syncd.policy.waits import waits
from syncd.providers.contract import Provider, Target, is_repeat_safe
from syncd.store import Store
from syncd.store.outbox_foresee import foresee
from syncd.store.outbox_plan import AccountNow, WaitingLane, read_account_now, snapshot, waiting_lanes
from syncd.transport import Transport

# What stands for the remote id that an earlier call of the same lane will bring.
_TO_COME = "0"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the plan is asked for: one address or all, how many lanes to show, whether to look at the CRM, and whether
    to keep every lane for a file."""

    email: str | None = None
    most: int = 50
    with_remote: bool = False
    is_filed: bool = False


class Planner:
    """One account's planner: it may be used beside any number of drainers."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        transport: Transport,
        clock: Clock,
        account: Account,
        limits: DrainLimits,
    ) -> None:
        self._store = store
        self._provider = provider
        self._transport = transport
        self._clock = clock
        self._account = account
        self._limits = limits
        self._is_repeat_safe = partial(is_repeat_safe, provider)

    async def plan(self, wish: Wish) -> tuple[Plan, FiledPlan]:
        """Make the plan; the filed one has no lanes unless it is wished for.

        Raises InfrastructureError when the database is out of reach.
        """
        totals, kept, filed, more = PlanTotals(), list[LaneCourse](), list[FiledLane](), 0
        async with snapshot(self._store) as connection:
            now = await read_account_now(connection, self._account.id)
            lands_s = self._limits.settle_window_s
            async for lane in waiting_lanes(
                connection, self._account.id, self._is_repeat_safe, now.now, lands_s=lands_s, email=wish.email
            ):
                totals.reassertions += lane.reassertions
                if not lane.entries:
                    continue
                made = self._course(lane, now)
                self._count(made, totals, now)
                if wish.is_filed and made.steps:
                    filed.append(self._filed(made, now))
                if len(kept) < wish.most:
                    kept.append(made)
                else:
                    more += 1
            lanes = await show_lanes(connection, self._provider, self._account, kept, now)
            is_captured = totals.captured > 0
            held = await foresee(connection, self._account.id, self._limits.guard) if is_captured else None
        reading = await self._look(lanes) if wish.with_remote else None
        plan = replace(self._plan(now, totals, lanes, more, wish, reading), would_be_held=held)
        account, name = self._account, self._provider.name
        return plan, FiledPlan(FORMAT, VERSION, account.name, name, now.now, tuple(filed))

    def _course(self, lane: WaitingLane, now: AccountNow) -> LaneCourse:
        """Fold the lane to its end, asking of every step whether its conversation would send anything at all."""
        rehearsed: dict[int, Rehearsed] = {}

        def refusal(step: Step, is_bound: bool) -> str | None:
            remote_id = lane.remote_id or (_TO_COME if is_bound else None)
            target = Target(remote_id, lane.email, is_repeat=step.carrier.is_uncertain, others=step.carrier.others)
            rehearsed[step.carrier.seq] = rehearse(self._provider, step.change, target)
            return rehearsed[step.carrier.seq].refusal

        is_bound, window = lane.remote_id is not None, self._limits.window
        made = course(
            lane.entries, self._is_repeat_safe, now.now, window, refusal, is_bound=is_bound, landing=lane.landing
        )
        return LaneCourse(lane, made, rehearsed)

    def _count(self, made: LaneCourse, totals: PlanTotals, now: AccountNow) -> None:
        steps = made.steps
        totals.relations += bool(steps)
        totals.captured += sum(entry.id < 0 for entry in made.lane.entries)
        for _, step in steps:
            totals.calls += 1
            totals.requests += made.rehearsed[step.carrier.seq].requests
            totals.superseded += len(step.superseded)
            turn = turn_of(step.change)
            totals.added += turn is Turn.ADD
            totals.updated += turn is Turn.UPDATE
            totals.removed += turn is Turn.REMOVE
            row = self._provider.call(step.change)
            count = CallCount(row.operation, row.verb, row.path, row.effect.value)
            totals.by_call.setdefault(row.operation, count).number += 1
        for wait in waits(made.course.left, now.now, made.lane.landing):
            totals.waiting += 1
            why = made.why(wait)
            totals.by_reason[why] = totals.by_reason.get(why, 0) + 1

    def _filed(self, made: LaneCourse, now: AccountNow) -> FiledLane:
        lane = made.lane
        rounds = tuple(
            FiledRound(
                round_.entries[-1].seq if round_.is_cut else lane.tail_seq,
                tuple(self._filed_call(step, made.course.refused) for step in round_.plan.steps),
            )
            for round_ in made.course.rounds
        )
        entries = tuple(filed_entry(entry, now.now) for entry in lane.entries)
        return FiledLane(lane.relation_id, lane.remote_id, lane.email, lane.tail_seq, entries, rounds)

    def _filed_call(self, step: Step, refused: Mapping[int, str]) -> FiledCall:
        row = self._provider.call(step.change)
        supersedes = tuple(entry.seq for entry in step.superseded)
        seq, payload = step.carrier.seq, payload_of(step.change)
        return FiledCall(seq, supersedes, row.operation, row.verb, row.path, payload, refused.get(seq))

    async def _look(self, lanes: Sequence[PlannedLane]) -> str | None:
        return await look_at_crm(self._provider, self._transport, self._clock, self._limits, lanes)

    def _plan(
        self,
        now: AccountNow,
        totals: PlanTotals,
        lanes: tuple[PlannedLane, ...],
        more: int,
        wish: Wish,
        reading: str | None,
    ) -> Plan:
        rate = self._limits.rate_per_s
        return Plan(
            account=self._account.name,
            provider=self._provider.name,
            made_at=now.now,
            rate_per_s=rate,
            estimated_s=None if rate is None else totals.requests / rate,
            paused=now.paused,
            throttled_s=now.throttled_s,
            breaker=now.breaker_state,
            suspended=now.suspended,
            totals=totals,
            lanes=lanes,
            more_lanes=more,
            is_read=wish.with_remote,
            reading=reading,
        )
