"""Fold: which calls does a lane need now, given everything that is not delivered yet?

Decides, for one lane in sequence order, the calls to send, which entries each call settles, and when to look again.
Two laws hold (``tests/properties``): the CRM's state after the folded calls equals its state after all calls, and
folding what is left of a fold changes nothing.

* Per facet the last value wins: set_field, add or remove of a tag, join or leave of a group. Profile edits merge.
* A dead entry of such a facet is superseded by a later value; alone it blocks nothing but itself. A dead profile edit
  lends its columns to the later edit, so that nothing an application wrote is forgotten; those that something later
  has said meanwhile are left out before an entry comes here.
* A **barrier** is an identity change (create, e-mail change) or a call that is not repeat-safe. It is sent alone, and
  nothing is ever folded across one that is not settled: two tag changes around a subscription may mean two mails.
* An identity entry that cannot be sent now (backing off, held, dead, parked) stops everything behind it, because a
  call to the wrong relation is worse than a late one. Every other entry stops its own facet only.
* So does a create or an e-mail change while another lane has an older change, not delivered yet, away from the address
  that it takes: the CRM would take the one relation for the other.
* One thing gets past a dead identity: a later e-mail change, if the CRM refused the dead one. It supersedes it, and if
  that was the create, it is the create with the right address: whoever mends a typing error mends the relation. In the
  same way it gets past an e-mail change that waits for another lane, or lanes could wait in a circle whatever is done.
  Once it may have been applied what it has passed stays passed: sent after it, that would undo it.

* A **reassertion** (``policy.reassertion``) repeats what its facet was delivered last, once its settle window is over.
  Until then it is as good as not there. Then it stands before everything that is not delivered yet, so that any newer
  change of its facet supersedes it; where such a change cannot be sent now, it waits with it. One that may have been
  applied keeps it waiting from wherever it stands, behind a barrier too: said before that one is sent again, the older
  value would follow the newer. What it says again may have been shown otherwise (diverged): that is settled with it.
* The CRM finds a profile by its address, and makes a relation where none is found. So while a profile edit or a create
  **may still land**, the address is not changed, nor said once more: landing behind that, it would make a second
  relation of the old one. And while an e-mail change may still land, no profile is edited: the address could change
  between the look at it and the edit. So the two are never in one plan either. A create goes by the address that it
  gives, and waits for nothing of this. Nothing passes a barrier that waits so.

It must never reorder two changes of one facet, and never send past an entry that waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from syncd.domain.changes import IDENTITY, PROFILE, ChangeEmail, CreateRelation, LocalChange
from syncd.policy.landing import ALL_HAS_LANDED, Landing
from syncd.policy.merging import is_last_wins, merged, overlaps, readdressed, says
from syncd.policy.states import EntryStatus

_PENDING = EntryStatus.PENDING.value
_DEAD = EntryStatus.DEAD.value
_DIVERGED = EntryStatus.DIVERGED.value
_HELD = EntryStatus.HELD.value


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One undelivered entry. ``change`` is None when its payload cannot be read; ``fault`` says why. ``is_refused``:
    dead because the CRM said no, so that it certainly was not applied. ``reasserts``: the entry whose call may still
    land, where this one says its facet's last value once more. ``awaits``: the entry of another lane which must be
    delivered first, because it leaves the address that this one takes; looked at again at ``awaits_until``, should
    nobody have said that it is. ``others``: remote ids of relations that may have that address in the CRM, though they
    have left it here. ``moves_on``: an e-mail change stands behind all that was read of the lane; ``has_moved_on``: one
    that may have been applied (``policy.passing``)."""

    id: int
    seq: int
    operation: str
    facet: str
    status: str
    attempts: int
    next_attempt_at: datetime | None
    is_uncertain: bool
    captured_at: datetime
    change: LocalChange | None
    fault: str = ""
    is_refused: bool = False
    reasserts: int | None = None
    awaits: int | None = None
    awaits_until: datetime | None = None
    others: tuple[str, ...] = ()
    moves_on: bool = False
    has_moved_on: bool = False

    @property
    def is_reassertion(self) -> bool:
        return self.reasserts is not None

    @property
    def moves(self) -> bool:
        """Whether it is an e-mail change that may go out now or later, and supersede what it passes."""
        return self.status == _PENDING and self.reasserts is None and isinstance(self.change, ChangeEmail)

    @property
    def has_moved(self) -> bool:
        """Whether it is an e-mail change that may have been applied: its last answer tells, if that was a no."""
        is_change = self.reasserts is None and isinstance(self.change, ChangeEmail)
        return is_change and self.is_uncertain and self.status != _DIVERGED and not self.is_refused


class Step(msgspec.Struct, frozen=True, gc=False):
    """One call: ``change`` after folding, the entry that carries it, and the earlier entries that it supersedes.

    ``is_once``: the call is not repeat-safe, so that it must be known of it whether it had begun."""

    carrier: Entry
    change: LocalChange
    superseded: tuple[Entry, ...] = ()
    is_barrier: bool = False
    is_once: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What to do with a lane now.

    ``broken`` entries can never be sent and are to be settled as dead. ``next_at`` is when the earliest back-off ends;
    ``is_more`` is true when something could be sent as soon as these steps are settled. ``is_barred``: nothing behind
    the entries that were looked at could change the plan.
    """

    steps: tuple[Step, ...] = ()
    broken: tuple[Entry, ...] = ()
    next_at: datetime | None = None
    is_more: bool = False
    is_barred: bool = False

    @property
    def sending_upto(self) -> int | None:
        """The intent: the highest sequence number that these steps try to deliver, negative while nothing has begun.

        A call that is not repeat-safe is alone in its plan. Right before it goes out its number is written down anew.
        """
        if not self.steps:
            return None
        last = self.steps[-1]
        return -last.carrier.seq if last.is_once else last.carrier.seq

    @property
    def is_idle(self) -> bool:
        return not self.steps and not self.broken


RepeatSafe: TypeAlias = Callable[[LocalChange], bool]


def fold(
    entries: Sequence[Entry], is_repeat_safe: RepeatSafe, now: datetime, landing: Landing = ALL_HAS_LANDED
) -> Plan:
    """Plan one lane. ``entries`` are its undelivered ones in sequence order; the provider says what is repeat-safe."""
    walk = _Walk(is_repeat_safe, now, landing)
    for entry in entries:
        if entry.reasserts is not None:
            walk.recall(entry)
            continue
        if entry.is_uncertain and entry.status != _DIVERGED:
            walk.doubted[entry.facet] = entry.id
        if entry.facet != IDENTITY:
            continue
        if entry.moves:
            walk.moves_upto = entry.seq
        if entry.has_moved:
            walk.has_moved_upto = entry.seq
    for entry in entries:
        if entry.reasserts is None and not walk.take(entry):
            walk.is_barred = True
            break
    return walk.plan(entries[-1].seq if entries else 0)


def watermark(entries: Sequence[Entry], settled: frozenset[int] | set[int], tail_seq: int) -> int:
    """Return the highest sequence number with everything up to it settled; dead and parked ones count as passed.

    ``settled`` are the sequence numbers that no longer wait; ``tail_seq`` is the last one that ``entries`` cover.
    """
    for entry in entries:
        if (entry.status == _PENDING or entry.status == _HELD) and entry.seq not in settled:
            return entry.seq - 1
    return tail_seq


class _Walk:
    """One pass over a lane. A facet's trail is its entries so far that a call of this plan may settle. ``passed`` are
    entries of barrier facets that a later barrier of their facet supersedes. ``doubted``: the newest entry of a facet
    that may have been applied and is not delivered, wherever it stands. An e-mail change stands at ``moves_upto``, and
    one that may have been applied at ``has_moved_upto``, none of either behind it. ``refused`` are identity entries
    that an e-mail change behind them supersedes."""

    __slots__ = (
        "barrier",
        "broken",
        "closed",
        "doubted",
        "has_moved_upto",
        "is_barred",
        "is_more",
        "is_repeat_safe",
        "landing",
        "moves_upto",
        "next_at",
        "now",
        "passed",
        "refused",
        "trails",
    )

    def __init__(self, is_repeat_safe: RepeatSafe, now: datetime, landing: Landing) -> None:
        self.is_repeat_safe = is_repeat_safe
        self.now = now
        self.landing = landing
        self.trails: dict[str, list[Entry]] = {}
        self.closed: set[str] = set()
        self.doubted: dict[str, int] = {}
        self.moves_upto = self.has_moved_upto = 0
        self.refused: list[Entry] = []
        self.passed: list[Entry] = []
        self.broken: list[Entry] = []
        self.barrier: Entry | None = None
        self.next_at: datetime | None = None
        self.is_more = False
        self.is_barred = False

    def recall(self, entry: Entry) -> None:
        """Take a reassertion, before everything else: at the head of its facet's trail, or not at all for now."""
        if entry.change is None:
            if entry.status == _PENDING:
                self.broken.append(entry)
        elif entry.status == _PENDING and entry.next_attempt_at is not None and entry.next_attempt_at > self.now:
            self._look_at(entry.next_attempt_at)
        elif entry.status != _HELD:
            self.trails.setdefault(entry.facet, []).append(entry)

    def take(self, entry: Entry) -> bool:
        """Take the next entry in order; return False when nothing behind it may be looked at."""
        if entry.facet == IDENTITY and ((entry.status == _DEAD and entry.is_refused) or self._is_passed(entry)):
            self.refused.append(entry)
            return True
        if self.refused and entry.facet != IDENTITY:
            return True
        if entry.facet == IDENTITY or entry.change is None or not self.is_repeat_safe(entry.change):
            return self._take_alone(entry)
        if entry.facet in self.closed:
            self.is_more = self.is_more or self._is_due(entry)
        elif entry.status == _PENDING:
            self._take_pending(entry)
        elif entry.status == _DIVERGED or (entry.status == _DEAD and is_last_wins(entry.change)):
            self.trails.setdefault(entry.facet, []).append(entry)
        else:
            self.closed.add(entry.facet)
        return True

    def _is_passed(self, entry: Entry) -> bool:
        """Whether a later e-mail change may supersede this one, which waits for another lane, or perhaps has done so. A
        create is never passed: what has been sent in its place must not be forgotten."""
        if not entry.moves or entry.is_uncertain:
            return False
        if entry.awaits is not None and (entry.moves_on or entry.seq < self.moves_upto):
            self._look_at(entry.awaits_until or self.now)
            return True
        return entry.has_moved_on or entry.seq < self.has_moved_upto

    def _take_pending(self, entry: Entry) -> None:
        if entry.next_attempt_at is not None and entry.next_attempt_at > self.now:
            self._wait(entry)
            self.trails.pop(entry.facet, None)
            return
        trail = self.trails.setdefault(entry.facet, [])
        trail.append(entry)
        if not is_last_wins(entry.change):
            self.closed.add(entry.facet)

    def _take_alone(self, entry: Entry) -> bool:
        """A barrier, or an entry that cannot be read: nothing is folded across it."""
        is_identity = entry.facet == IDENTITY
        if entry.status == _DIVERGED:
            self.passed.append(entry)
            return True
        if is_identity:
            self.passed.extend(self.trails.pop(IDENTITY, ()))
        if entry.facet in self.closed or entry.status != _PENDING:
            self._fence(entry)
            return not is_identity
        if entry.change is None:
            self.broken.append(entry)
            self._fence(entry)
            self.is_more = True
            return not is_identity
        if entry.next_attempt_at is not None and entry.next_attempt_at > self.now:
            self._wait(entry)
            self._fence(entry)
            return not is_identity
        if (until := self._held_until(entry, is_identity=is_identity)) is not None:
            self._look_at(until)
            self.is_more = self.is_more or (entry.awaits is not None and self._sends_before())
            self._fence(entry)
            return False
        if self.broken or self._sends_before():
            self.is_more = True
        else:
            self.barrier = entry
        return False

    def _sends_before(self) -> bool:
        return any(self._may_send(trail) for trail in self.trails.values())

    def _held_until(self, entry: Entry, *, is_identity: bool) -> datetime | None:
        """How long a barrier waits for another lane, or for what may still land: itself, or for the profile edit that
        stands before it. That one has not failed, so it is not passed as a failing facet is: a mail may tell the name.
        """
        if entry.awaits is not None:
            return entry.awaits_until or self.now
        if is_identity and self.landing.profile_until is not None and not self._makes(entry):
            return self.landing.profile_until
        return self.landing.address_until if _is_sendable(self.trails.get(PROFILE, ())) else None

    def _makes(self, entry: Entry) -> bool:
        """Whether this is the create, or an e-mail change that was sent as one and is in doubt."""
        is_made_again = entry.is_uncertain and any(isinstance(e.change, CreateRelation) for e in self.refused)
        return isinstance(entry.change, CreateRelation) or is_made_again

    def _wait(self, entry: Entry) -> None:
        self.closed.add(entry.facet)
        if entry.next_attempt_at is not None:
            self._look_at(entry.next_attempt_at)

    def _look_at(self, instant: datetime) -> None:
        self.next_at = instant if self.next_at is None else min(self.next_at, instant)

    def _fence(self, entry: Entry) -> None:
        """Let calls that are planned go out as they are; what is dead on this side stays on this side. What is pending
        keeps its facet, also where it waits for a person. A reassertion is on no side: a newer change of its facet,
        wherever it stands, supersedes it or keeps it waiting."""
        self.closed.update(
            facet
            for facet, trail in self.trails.items()
            if any(e.status == _PENDING and not e.is_reassertion for e in trail)
        )
        self.trails = {facet: _upto_pending(trail) for facet, trail in self.trails.items() if _is_sendable(trail)}
        self.closed.add(entry.facet)

    def _is_due(self, entry: Entry) -> bool:
        """Whether a call of this plan is what keeps this entry waiting: then it is looked at again right after."""
        return entry.status == _PENDING and self._may_send(self.trails.get(entry.facet, ()))

    def _may_send(self, trail: Sequence[Entry]) -> bool:
        """Whether a trail makes a call now: not to say an older value again before a newer one that is in doubt, not to
        find by an address that may change in that moment, and not to change one by which a call may still find."""
        if not _is_sendable(trail) or self.landing.keeps_until(trail[0].facet) is not None:
            return False
        carrier = next(entry for entry in reversed(trail) if entry.status == _PENDING)
        return carrier.reasserts is None or self.doubted.get(carrier.facet, 0) <= carrier.reasserts

    def plan(self, last_seq: int) -> Plan:
        for facet in self.trails:
            if (until := self.landing.keeps_until(facet)) is not None:
                self._look_at(until)
        barrier = self.barrier
        if barrier is not None and barrier.change is not None:
            change = readdressed([entry.change for entry in self.refused], barrier.change)
            passed = (entry for entry in self.passed if entry.facet == barrier.facet)
            step = Step(barrier, change, (*self.refused, *passed), True, not self.is_repeat_safe(change))
            is_more = self.is_more or barrier.seq < last_seq or bool(self.refused)
            return Plan((step,), tuple(self.broken), self.next_at, is_more, self.is_barred)
        sent = {facet: trail for facet, trail in self.trails.items() if self._may_send(trail)}
        is_put_off = IDENTITY in sent and sent.pop(PROFILE, None) is not None
        steps = [_step(trail, self.passed) for trail in sent.values()]
        steps.sort(key=lambda step: step.carrier.seq)
        return Plan(tuple(steps), tuple(self.broken), self.next_at, self.is_more or is_put_off, self.is_barred)


def _is_sendable(trail: Sequence[Entry]) -> bool:
    """Whether something is pending that no newer entry stands behind which was given up and may have been applied, of
    profile edits in a column of it. A reassertion says what was delivered after the entry that it is about: no older
    one is newer than that, nor is one that was delivered and is shown otherwise."""
    root = (trail[0].reasserts or 0) if trail else 0
    last = max((place for place, entry in enumerate(trail) if entry.status == _PENDING), default=-1)
    said = [entry.change for entry in trail[: last + 1]]
    newer = [e for e in trail[last + 1 :] if e.is_uncertain and e.id > root and overlaps(said, e.change)]
    is_overtaken = bool(newer) and not trail[last].is_reassertion
    return last >= 0 and not is_overtaken and all(entry.status == _DIVERGED for entry in newer)


def _upto_pending(trail: list[Entry]) -> list[Entry]:
    """Take what is dead at the end off a trail that something is pending in."""
    while trail[-1].status != _PENDING:
        trail.pop()
    return trail


def _step(trail: list[Entry], passed: Sequence[Entry]) -> Step:
    """Fold one facet's trail up to its last pending entry; what is dead behind that one stays as it is. A reassertion
    says what was delivered last: it takes along what is shown otherwise, wherever that stands, if it says all of it."""
    behind = list(trail)
    carrier = _upto_pending(trail)[-1]
    assert carrier.change is not None
    shown: tuple[Entry, ...] = ()
    if carrier.reasserts is not None:
        others = (*behind[len(trail) :], *(entry for entry in passed if entry.facet == carrier.facet))
        shown = tuple(entry for entry in others if entry.status == _DIVERGED and says(carrier.change, entry.change))
    if len(trail) == 1:
        return Step(carrier, carrier.change, shown)
    change = merged([entry.change for entry in trail if entry.change is not None])
    return Step(carrier, change, (*trail[:-1], *shown))
