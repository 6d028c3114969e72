"""Lane: send one claimed lane's steps in order, and gather how each ended into one settlement.

Steps are of different facets, so a failed one does not hold back the next. Nothing more is sent once the account is
throttled, refused, broken or stopping, when the lease could not cover another conversation, or when the lane turns out
to be somebody else's: what was not begun goes back as it was, with no attempt used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from syncd.domain.changes import IDENTITY, ChangeEmail, operation_of
from syncd.log import redact
from syncd.outbound.converse import Line, Talk, converse, is_the_crms
from syncd.outbound.intents import Intents
from syncd.outbound.leases import Lease
from syncd.outbound.limits import DrainLimits
from syncd.outbound.presuming import overwriting, parts, presumed, yielding
from syncd.policy.fold import Entry, Step, watermark
from syncd.policy.merging import keeps_all
from syncd.policy.outcome import Circumstances, Ending, verdict
from syncd.policy.proof import Showing, Sight
from syncd.policy.reassertion import reassertion
from syncd.policy.states import EntryStatus
from syncd.providers.contract import (
    Contested,
    Delivered,
    Effect,
    Outcome,
    Proof,
    Readable,
    Rejected,
    Request,
    Retryable,
    Target,
    Throttled,
    Unauthorised,
    Unknown,
)
from syncd.store.outbox import AttemptRow, ClaimedLane, EntrySettlement, LaneSettlement, Reassertion
from syncd.store.outbox_history import history_of
from syncd.store.outbox_incidents import diverged, parked
from syncd.store.outbox_landing import Late

_PENDING = EntryStatus.PENDING.value
_SUPERSEDED = EntryStatus.SUPERSEDED.value
_DEAD = EntryStatus.DEAD.value
_DIVERGED = EntryStatus.DIVERGED.value
_GATEWAY = frozenset({502, 504})
_SAID_AGAIN = "said once more, because an earlier try may have landed after it"


@dataclass(slots=True)
class Delivery:
    """One step that was tried: for the report, once it is known whether it could be settled."""

    step: Step
    talk: Talk
    outcome: str
    detail: str
    status: str


@dataclass(slots=True)
class LaneResult:
    """A lane's settlement beside what it tells about each step."""

    lane: ClaimedLane
    settlement: LaneSettlement
    lease: Lease
    deliveries: list[Delivery] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Desk:
    """What every worker has at hand."""

    line: Line
    limits: DrainLimits
    intents: Intents


async def send_lane(desk: Desk, lease: Lease, place: int = 0) -> LaneResult:
    """Send a lane's steps until they are done or nothing more may be sent by the worker at ``place``."""
    lane, work = lease.lane, _LaneWork(desk, lease, place)
    work.bury_broken()
    for step in lane.plan.steps:
        if not work.may_begin():
            break
        if not await work.send(step):
            break
    return work.result()


def untouched(lease: Lease) -> LaneResult:
    """Return the lane as it was claimed: ready again at once, no attempt used."""
    return LaneResult(lease.lane, _empty(lease.lane, is_more=True), lease)


def _empty(lane: ClaimedLane, *, is_more: bool) -> LaneSettlement:
    return LaneSettlement(lane.lane_id, lane.relation_id, lane.epoch, lane.seen_seq, 0, is_more=is_more)


class _LaneWork:
    __slots__ = ("_deliveries", "_desk", "_done", "_given_up", "_lane", "_lease", "_place", "_settled", "_settlement")

    def __init__(self, desk: Desk, lease: Lease, place: int) -> None:
        lane = lease.lane
        self._place = place
        self._desk = desk
        self._lane = lane
        self._lease = lease
        self._settlement = _empty(lane, is_more=lane.plan.is_more)
        self._settlement.again_at = lane.plan.next_at
        self._deliveries: list[Delivery] = []
        self._settled: set[int] = set()
        self._given_up = {e.facet: e.id for e in lane.entries if e.is_uncertain and e.status == _DEAD}
        self._done = 0

    def bury_broken(self) -> None:
        """Entries that nobody can read are dead before anything is sent."""
        for entry in self._lane.plan.broken:
            self._put(EntrySettlement(entry.seq, _DEAD, False, None, False, entry.fault))
            self._block(entry, entry.fault)

    def may_begin(self) -> bool:
        line = self._desk.line
        may_send = line.pace.is_open and line.pace.has_place(self._place)
        return may_send and self._lease.covers(line.clock.monotonic() + self._desk.limits.conversation_s)

    async def send(self, step: Step) -> bool:
        """Hold the conversation about one step; return False when the lane must not go on."""
        desk, lane = self._desk, self._lane
        if self._is_suspended(step):
            return True
        is_repeat = step.carrier.is_uncertain or step.carrier.is_reassertion
        target = Target(
            lane.remote_id,
            lane.email,
            is_repeat=is_repeat,
            since=step.carrier.captured_at,
            agreed=presumed(step, desk.limits.owners),
            stood_at=lane.stood_at,
            others=(*lane.others, *step.carrier.others),
        )
        deadline = min(desk.line.clock.monotonic() + desk.limits.conversation_s, self._lease.until)
        talk = await converse(desk.line, step.change, target, deadline, lambda request: self._may_go(step, request))
        if talk.outcome is None:
            return False
        self._done += 1
        return self._note(step, talk, talk.outcome)

    async def _may_go(self, step: Step, request: Request) -> bool:
        """Tell, right before a request, whether it may go out. What cannot be found out afterwards is written down
        first: what it overwrites, and of what is not repeat-safe that it begins."""
        contests = overwriting(step, request.overwrites)
        if contests and not (self._lease.is_lost or await self._desk.intents.overwrite(self._lease, contests)):
            return False
        if self._lease.is_lost or not step.is_once or request.operation in self._desk.line.reads:
            return not self._lease.is_lost
        return await self._desk.intents.begin(self._lease, step.carrier.seq)

    def _note(self, step: Step, talk: Talk, outcome: Outcome) -> bool:
        match outcome:
            case Contested():
                self._contest(step, talk, outcome)
            case Delivered():
                self._deliver(step, talk, outcome)
            case Throttled():
                # "Retry after 0 seconds" names no pause; to believe it would be to hammer on.
                self._desk.line.pace.throttled(outcome.retry_after_s or self._desk.limits.throttle_s)
                self._fail(step, talk, Ending.THROTTLED, outcome.reason)
            case Unauthorised():
                self._desk.line.pace.unauthorised(_told(outcome.reason))
                self._fail(step, talk, Ending.UNAUTHORISED, outcome.reason)
            case Rejected():
                if is_the_crms(talk):
                    self._desk.line.pace.declined(step.carrier.id, talk.status, _told(outcome.reason))
                self._fail(step, talk, Ending.REJECTED, outcome.reason)
            case Retryable(is_misconfigured=True):
                self._desk.line.pace.suspend(operation_of(step.change), _told(outcome.reason))
                self._put_off(step, outcome.reason)
                self._tell(step, talk, Ending.RETRYABLE.value, _told(outcome.reason), _PENDING)
            case Retryable():
                self._fail_perhaps_by_the_host(step, talk, Ending.RETRYABLE, outcome)
            case Unknown():
                self._fail_perhaps_by_the_host(step, talk, Ending.UNKNOWN, outcome)
        return self._desk.line.pace.is_open

    def _fail_perhaps_by_the_host(self, step: Step, talk: Talk, ending: Ending, outcome: Retryable | Unknown) -> None:
        """Count a failure for the breaker. A pause that the CRM asked for with it is asked of the whole account; the
        try counts all the same, because it may be this entry alone that is answered so."""
        pace, carrier = self._desk.line.pace, step.carrier
        is_on_trial = pace.breaker.is_on_trial
        pace.failed(carrier.id, _told(outcome.reason), is_again=carrier.attempts > 0)
        if outcome.retry_after_s:
            pace.throttled(outcome.retry_after_s)
        self._fail(step, talk, ending, outcome.reason, outcome.retry_after_s, is_on_trial=is_on_trial)

    def _is_suspended(self, step: Step) -> bool:
        """Put a step off while its operation is suspended: nothing is sent and no try is used up."""
        suspended_s = self._desk.line.pace.suspended_s(operation_of(step.change))
        if suspended_s > 0:
            self._put_off(step, "its operation is suspended: a setting is wrong for it; see syncd status")
            self._done += 1
        return suspended_s > 0

    def _put_off(self, step: Step, reason: str) -> None:
        """Wait as long as the operation is suspended, and a little more by chance: the first to come tries it."""
        pace, chance = self._desk.line.pace, self._desk.line.clock.random()
        delay_s = pace.suspended_s(operation_of(step.change)) + chance * self._desk.limits.probe_s
        self._look_again(delay_s)
        self._put(EntrySettlement(step.carrier.seq, _PENDING, False, delay_s, False, _told(reason)))

    def _deliver(self, step: Step, talk: Talk, outcome: Delivered) -> None:
        self._desk.line.pace.delivered(operation_of(step.change))
        carrier, settlement = step.carrier, self._settlement
        proof = outcome.proof.value
        settlement.delivered.append((carrier.seq, proof))
        self._settled.add(carrier.seq)
        for entry in step.superseded:
            self._put(EntrySettlement(entry.seq, _SUPERSEDED, False, superseded_by=carrier.id))
            if entry.status == _DIVERGED:
                settlement.at_rest.append(entry.id)
        settlement.is_delivered = True
        settlement.moved += [entry.id for entry in parts(step) if isinstance(entry.change, ChangeEmail)]
        if outcome.proof is not Proof.VERIFIED:
            self._await_proof(carrier, outcome)
        self._reassert_later(step)
        row = None if self._lane.relation_id is None or carrier.is_reassertion else history_of(step.change)
        if row is not None:
            settlement.history.append((carrier.id, row))
        if outcome.remote_id is not None and self._lane.remote_id is None:
            settlement.bind_remote_id = outcome.remote_id
        detail = outcome.detail or (_SAID_AGAIN if carrier.is_reassertion else "")
        self._tell(step, talk, proof, detail and _told(detail), proof)

    def _contest(self, step: Step, talk: Talk, outcome: Contested) -> None:
        """Put the entry back: what must not be sent of it leaves the outbox before it is claimed again."""
        self._settlement.contests += yielding(step, outcome.conflicts, self._desk.limits.owners)
        self._put(EntrySettlement(step.carrier.seq, _PENDING, False, 0.0, False, _told(outcome.reason)))
        self._settlement.is_more = True
        self._tell(step, talk, "contested", _told(outcome.reason), _PENDING)

    def _await_proof(self, carrier: Entry, outcome: Delivered) -> None:
        """Let a later read show what the CRM said yes to; on purpose where a first read did not, or the dice say so."""
        line, limits = self._desk.line, self._desk.limits
        readable = Readable.NEVER if carrier.change is None else line.provider.readable(carrier.change)
        if readable is not Readable.NEVER:
            self._settlement.awaiting.append(carrier.seq)
        if outcome.proof is Proof.DIVERGED:
            seen = outcome.difference or Showing(Sight.OTHER)
            self._settlement.incidents.append(diverged(carrier.id, carrier.operation, carrier.facet, seen))
        elif readable is Readable.BY_CALL and (outcome.is_unshown or limits.read_back_share > line.clock.random()):
            self._settlement.read_back.append((carrier.seq, limits.read_back_after_s))

    def _reassert_later(self, step: Step) -> None:
        """Let the facet's value be said once more, if an earlier try of this call may still land behind it."""
        window_s = self._desk.limits.settle_window_s
        root = next((entry.reasserts or entry.id for entry in parts(step) if entry.is_uncertain), None)
        if root is None and not step.carrier.is_reassertion:  # given up behind a barrier, it was not folded into this
            root = self._given_up.get(step.carrier.facet)
        if root is None or window_s <= 0:
            return
        if (again := reassertion(step.change)) is not None:
            self._settlement.reassertions.append(Reassertion(again, root, window_s))
            self._look_again(window_s)

    def _expect(self, step: Step) -> None:
        """Let the lane know that a try of this call may still land."""
        self._settlement.late |= Late.of(step.change, self._desk.limits.settle_window_s)

    def _fail(
        self,
        step: Step,
        talk: Talk,
        ending: Ending,
        reason: str,
        asked_s: float | None = None,
        *,
        is_on_trial: bool = False,
    ) -> None:
        """Write down a step that was not delivered, as its kind and its history ask."""
        carrier, told = step.carrier, _told(reason)
        result = verdict(ending, self._circumstances(step, talk, is_on_trial=is_on_trial))
        delay_s = None
        if result.status is EntryStatus.PENDING and result.is_tried:
            jitter = self._desk.line.clock.random()
            delay_s = self._desk.limits.retry.delay_s(carrier.attempts + 1, jitter, asked_s)
            self._look_again(delay_s)
        status = result.status.value
        is_uncertain = result.is_uncertain or (result.status is EntryStatus.DEAD and _inherits_doubt(step))
        self._put(EntrySettlement(carrier.seq, status, result.is_tried, delay_s, is_uncertain, told))
        if result.is_uncertain:
            self._expect(step)
        if result.status is not EntryStatus.PENDING:
            self._give_up_with(step, status, told, is_uncertain=is_uncertain or carrier.is_uncertain)
        elif result.is_uncertain:
            self._doubt_with(step, delay_s)
        if isinstance(carrier.change, ChangeEmail) and result.status is EntryStatus.DEAD:
            self._settlement.moved.append(carrier.id)
        if result.status is EntryStatus.PARKED:
            self._settlement.incidents.append(parked(carrier.id, carrier.operation, carrier.facet))
            if self._desk.line.provider.readable(step.change) is not Readable.NEVER:
                self._settlement.awaiting.append(carrier.seq)
        self._settlement.is_failed = self._settlement.is_failed or result.is_tried
        self._settlement.is_more = self._settlement.is_more or not result.is_tried
        self._tell(step, talk, ending.value, told, status)

    def _circumstances(self, step: Step, talk: Talk, *, is_on_trial: bool) -> Circumstances:
        """Tell what is true of a step. What was refused by a rule of ours is the entry's own trouble; and who
        fails the trial backs off like any other, so that the next trial is another entry's."""
        carrier = step.carrier
        age_s = (self._lane.now - carrier.captured_at).total_seconds()
        return Circumstances(
            is_barrier=step.is_barrier,
            is_once=self._desk.line.provider.effect(step.change) in (Effect.ONCE, Effect.CONSENT),
            is_repeat=carrier.is_uncertain,
            is_spent=self._desk.limits.retry.is_spent(carrier.attempts + 1, age_s),
            is_account_down=self._desk.line.pace.is_broken and is_the_crms(talk) and not is_on_trial,
            may_land_late=talk.has_written and talk.status in _GATEWAY,
        )

    def _doubt_with(self, step: Step, delay_s: float | None) -> None:
        """What is merged into a call that may have been applied may have been applied with it, also what only lent it
        its columns."""
        for entry in step.superseded if keeps_all(step.change) else ():
            if not entry.is_reassertion and entry.status != _DIVERGED:
                delay = delay_s if entry.status == _PENDING else None
                self._put(EntrySettlement(entry.seq, entry.status, False, delay, True))

    def _give_up_with(self, step: Step, status: str, reason: str, *, is_uncertain: bool) -> None:
        """A value that was never sent is moot; columns that were merged stay dead, so that a later edit takes them. An
        e-mail change that was passed, because it waits for another lane, is as it was."""
        for entry in step.superseded:
            is_pending = entry.status == _PENDING
            if entry.is_reassertion:  # what was delivered before is not undone by what was not
                self._settlement.is_more = self._settlement.is_more or is_pending
            elif keeps_all(step.change):
                if is_pending or (is_uncertain and entry.status == _DEAD):
                    told = reason if is_pending else None
                    self._put(EntrySettlement(entry.seq, status, False, None, is_uncertain, told))
            elif is_pending and not step.is_barrier:
                self._put(EntrySettlement(entry.seq, _SUPERSEDED, False, superseded_by=step.carrier.id))
        self._block(step.carrier, reason)

    def _block(self, entry: Entry, reason: str) -> None:
        if entry.facet == IDENTITY and not entry.is_reassertion:
            self._settlement.block_reason = f"{entry.operation} was not delivered: {reason}"

    def _look_again(self, delay_s: float) -> None:
        before = self._settlement.after_s
        self._settlement.after_s = delay_s if before is None else min(before, delay_s)

    def _put(self, entry: EntrySettlement) -> None:
        self._settlement.entries.append(entry)
        if entry.status != _PENDING:
            self._settled.add(entry.seq)

    def _tell(self, step: Step, talk: Talk, outcome: str, detail: str, status: str) -> None:
        self._deliveries.append(Delivery(step, talk, outcome, detail, status))
        self._settlement.attempts.append(
            AttemptRow(
                step.carrier.id,
                operation_of(step.change),
                talk.started_at,
                talk.elapsed_s,
                talk.requests,
                talk.status,
                outcome,
                detail,
            )
        )

    def result(self) -> LaneResult:
        lane, settlement = self._lane, self._settlement
        settlement.acked_seq = watermark(lane.entries, self._settled, lane.seen_seq)
        settlement.is_more = settlement.is_more or self._done < len(lane.plan.steps)
        return LaneResult(lane, settlement, self._lease, self._deliveries)


def _inherits_doubt(step: Step) -> bool:
    """Tell whether a call that is given up takes entries with it whose own first try may still land: nobody else will
    remember them, and what is delivered next has to be said once more for their sake."""
    moot = (e for e in step.superseded if e.status == _PENDING and not e.is_reassertion)
    return not keeps_all(step.change) and any(entry.is_uncertain for entry in moot)


def _told(reason: str) -> str:
    """Cut and redact a reason for the database: it may quote what the CRM said."""
    return redact(reason.replace("\x00", ""))[:500]
