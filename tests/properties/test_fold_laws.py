"""The two laws of fold, over all operation kinds: the CRM ends the same, and folding what is left changes nothing.

The model CRM applies calls one by one. Lanes are drained by folding again and again; every claim may fail in any of the
ways that leave the order to fold: a back-off that ends, or a lost answer of a call that is sent again. Such a call may
land late, after what was delivered since; the reassertions that follow a doubt must put that right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from syncd.domain.changes import (
    CHANGES as KINDS,
)
from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    EndSubscription,
    JoinGroup,
    LeaveGroup,
    LocalChange,
    RemoveTag,
    SetField,
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
    facet_of,
)
from syncd.policy.fold import Entry, Plan, fold
from syncd.policy.landing import Landing
from syncd.policy.reassertion import brought_up, reassertion
from tests.support import lanes as build
from tests.support.lanes import LATER, NOW, entry, is_repeat_safe

small = st.integers(1, 3)
word = st.sampled_from(["a", "b", "c", None])
columns = st.dictionaries(st.sampled_from(["first_name", "last_name", "gender"]), word, min_size=1)
EACH = {
    AddTag: st.builds(build.add, small),
    RemoveTag: st.builds(build.remove, small),
    JoinGroup: st.builds(build.join, small),
    LeaveGroup: st.builds(build.leave, small),
    SetField: st.builds(build.field, word, st.none(), small),
    UpdateProfile: columns.map(lambda new: build.profile(**new)),
    ChangeEmail: st.builds(build.email, st.sampled_from(["a@x.example", "b@x.example", "c@x.example"])),
    CreateRelation: columns.map(lambda new: build.create(**new)),
    Subscribe: st.builds(build.subscribe, small),
    Unsubscribe: st.builds(build.unsubscribe, small),
    SubscribeWithConsent: st.builds(build.consent, small),
    EndSubscription: st.builds(build.end, small, st.integers(1, 3)),
    CreateField: st.builds(build.new_field, st.sampled_from(["colour", "size"])),
}
CHANGES = st.one_of(*EACH.values())
LANES = st.lists(CHANGES, max_size=12)
LATER_CHANGES = CHANGES.filter(lambda change: not isinstance(change, CreateRelation))
SHORT = st.lists(LATER_CHANGES, max_size=5)
# As lanes really are: a relation is created first, if at all.
BORN = st.tuples(st.lists(EACH[CreateRelation], max_size=1), st.lists(LATER_CHANGES, max_size=11)).map(
    lambda parts: [*parts[0], *parts[1]]
)


def test_every_kind_of_change_is_drawn() -> None:
    """A law over all kinds but one is no law."""
    assert set(EACH) == set(KINDS)


@dataclass
class Crm:
    """One relation of a CRM; ``mails`` is the sequence of effects that are there to stay, with what they saw."""

    email: str | None = None
    profile: dict[str, str | None] = field(default_factory=dict)
    tags: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)
    fields: dict[int, str | None] = field(default_factory=dict)
    mails: list[object] = field(default_factory=list)

    def apply(self, change: LocalChange) -> None:
        match change:
            case CreateRelation():
                self.email = change.email
                self.profile |= change.profile
            case ChangeEmail():
                self.email = change.new
            case UpdateProfile():
                self.profile |= change.new
            case AddTag():
                self.tags.add(change.tag_id)
            case RemoveTag():
                self.tags.discard(change.tag_id)
            case JoinGroup():
                self.groups.add(change.group_id)
            case LeaveGroup():
                self.groups.discard(change.group_id)
            case SetField():
                self.fields[change.field_id] = change.new
            case Subscribe() | Unsubscribe() | SubscribeWithConsent() | EndSubscription() | CreateField():
                seen = (self.email, dict(self.profile), set(self.tags), set(self.groups), dict(self.fields))
                self.mails.append((change, seen))

    @property
    def state(self) -> tuple[object, ...]:
        """All that a later call can set right."""
        return self.email, self.profile, self.tags, self.groups, self.fields

    @property
    def calls(self) -> list[object]:
        return [mail[0] for mail in self.mails]  # type: ignore[index]


def after(changes: list[LocalChange]) -> Crm:
    """The CRM to which all of these were told, one by one."""
    crm = Crm()
    for change in changes:
        crm.apply(change)
    return crm


def drained(entries: list[Entry]) -> tuple[Crm, list[set[int]]]:
    """Fold and apply until nothing is left; return the CRM and what each call settled."""
    crm, settled = Crm(), []
    for _ in range(len(entries) + 1):
        made = fold(entries, is_repeat_safe, NOW)
        if made.is_idle:
            break
        for step in made.steps:
            crm.apply(step.change)
            settled.append({step.carrier.seq, *(e.seq for e in step.superseded)})
        done = set().union(*settled)
        entries = [e for e in entries if e.seq not in done]
    assert entries == [], "every entry is settled by some call"
    return crm, settled


@given(LANES)
def test_folded_calls_leave_the_crm_as_all_calls_would(changes: list[LocalChange]) -> None:
    """The first law. What a once-call saw when it was made is part of the state: nothing was folded across it."""
    folded, settled = drained(build.lane(*changes))
    assert folded == after(changes)
    assert sorted(seq for call in settled for seq in call) == list(range(1, len(changes) + 1)), "each settled once"


@given(LANES, st.data())
def test_folding_what_was_folded_changes_nothing(changes: list[LocalChange], data: st.DataObject) -> None:
    """The second law: the calls of a plan, taken as a lane of their own, fold to themselves, reassertions too."""
    again = data.draw(st.sets(st.integers(0, max(0, len(changes) - 1))))
    entries = [_reasserting(seq, change) if seq - 1 in again else entry(seq, change) for seq, change in _lane(changes)]
    made = fold(entries, is_repeat_safe, NOW)
    calls = [
        _reasserting(seq, step.change) if step.carrier.is_reassertion else entry(seq, step.change)
        for seq, step in enumerate(made.steps, 1)
    ]
    assert _said(fold(calls, is_repeat_safe, NOW)) == _said(made)


def _lane(changes: list[LocalChange]) -> list[tuple[int, LocalChange]]:
    """Changes with their sequence numbers; a reassertion is never of a call that does something each time."""
    return list(enumerate(changes, 1))


def _reasserting(seq: int, change: LocalChange, **given: object) -> Entry:
    said = reassertion(change)
    if said is None:
        return entry(seq, change)
    return entry(seq, said, reasserts=900, **given)


def _said(made: Plan) -> list[LocalChange]:
    return [step.change for step in made.steps]


@given(BORN, st.data())
def test_order_holds_per_facet_whatever_backs_off(changes: list[LocalChange], data: st.DataObject) -> None:
    """Any entries may be in back-off at first: when those end, the CRM is where it would have been."""
    waiting = data.draw(st.sets(st.integers(1, max(1, len(changes)))))
    entries = [
        entry(seq, change, next_attempt_at=LATER if seq in waiting else None) for seq, change in enumerate(changes, 1)
    ]
    crm, settled = Crm(), set[int]()
    for now in (NOW, LATER):
        for _ in range(len(changes) + 1):
            made = fold([e for e in entries if e.seq not in settled], is_repeat_safe, now)
            for step in made.steps:
                assert all(
                    e.next_attempt_at is None or e.next_attempt_at <= now for e in (step.carrier, *step.superseded)
                )
                crm.apply(step.change)
                settled |= {step.carrier.seq, *(e.seq for e in step.superseded)}
    assert settled == set(range(1, len(changes) + 1))
    assert crm.state == after(changes).state


@given(LANES, st.data())
def test_no_call_passes_one_that_waits_for_a_person(changes: list[LocalChange], data: st.DataObject) -> None:
    """Parked and held entries: nothing later of their facet is sent, and behind an identity nothing at all."""
    statuses = [data.draw(st.sampled_from(["pending", "pending", "parked", "held", "dead"])) for _ in changes]
    entries = [entry(seq, c, s) for seq, (c, s) in enumerate(zip(changes, statuses, strict=True), 1)]
    made = fold(entries, is_repeat_safe, NOW)
    for step in made.steps:
        before = [e for e in entries if e.seq < step.carrier.seq and e.status != "pending"]
        assert not any(e.facet == "identity" for e in before)
        assert not any(e.facet == step.carrier.facet and e.status in ("parked", "held") for e in before)
        assert {step.carrier.status} == {"pending"}
        assert all(e.status in ("pending", "dead") and e.facet == step.carrier.facet for e in step.superseded)


@given(LANES, st.data())
def test_a_reassertion_that_waits_is_as_good_as_not_there(changes: list[LocalChange], data: st.DataObject) -> None:
    """It delays and blocks nobody, of its own facet or of its lane, and is settled by nobody."""
    statuses = [data.draw(st.sampled_from(["pending", "pending", "parked", "held", "dead"])) for _ in changes]
    entries = [entry(seq * 10, c, s) for seq, (c, s) in enumerate(zip(changes, statuses, strict=True), 1)]
    repeated = data.draw(st.lists(CHANGES.filter(lambda c: reassertion(c) is not None), max_size=3))
    waiting = [
        _reasserting(data.draw(st.integers(0, 12)) * 10 + 1 + n, change, next_attempt_at=LATER)
        for n, change in enumerate(repeated)
    ]
    lane = sorted([*entries, *waiting], key=lambda e: e.seq)
    plain, beside = fold(entries, is_repeat_safe, NOW), fold(lane, is_repeat_safe, NOW)
    assert beside.steps == plain.steps
    assert beside.broken == plain.broken


@given(LANES, st.booleans())
def test_address_and_profile_wait_for_each_others_late_calls_and_nobody_else(
    changes: list[LocalChange], is_profile_late: bool
) -> None:
    """An address does not change while a profile edit may land by it, nor is a profile edited while the address may
    change. What waits is looked at again when the window is over."""
    late = Landing(profile_until=LATER) if is_profile_late else Landing(address_until=LATER)
    entries = [entry(number, change) for number, change in enumerate(changes, 1)]
    made, plain = fold(entries, is_repeat_safe, NOW, late), fold(entries, is_repeat_safe, NOW)
    waiting = "change_email" if is_profile_late else "update_profile"
    assert not any(step.carrier.operation == waiting for step in made.steps)
    if any(step.carrier.operation == waiting for step in plain.steps):
        assert made.next_at == LATER
    if not any(e.operation == waiting for e in entries):
        assert made == plain


@given(LANES, EACH[ChangeEmail], st.one_of(st.none(), EACH[UpdateProfile]))
def test_an_address_and_what_finds_by_it_are_never_in_one_plan(
    changes: list[LocalChange], address: LocalChange, said: LocalChange | None
) -> None:
    """The answer to the first may be lost: then the second is under way by an address that may still change."""
    entries = [entry(number * 10, change) for number, change in enumerate(changes, 1)]
    repeated = [_reasserting(5, address), *([] if said is None else [_reasserting(6, said)])]
    made = fold([*repeated, *entries], is_repeat_safe, NOW)
    assert made.steps
    assert not {"change_email", "update_profile"} <= {step.carrier.operation for step in made.steps}


@given(st.lists(EACH[CreateRelation], max_size=1), SHORT, SHORT, SHORT, st.data())
def test_the_last_value_stands_whatever_lands_late(
    created: list[LocalChange],
    told: list[LocalChange],
    inside: list[LocalChange],
    later: list[LocalChange],
    data: st.DataObject,
) -> None:
    """Any calls may have been in doubt and land when the window ends: the CRM ends as if each had landed once, in
    order. Some newer edits are delivered inside the window, some back off beyond it, some are made after it."""
    told = [*created, *told]
    doubtful = data.draw(st.sets(st.integers(0, max(0, len(told) - 1)))) if told else set[int]()
    backs_off = data.draw(st.sets(st.integers(0, max(0, len(inside) - 1))))
    lane = _Lane(told, doubtful, data.draw(st.integers(0, len(inside))))
    for index, change in enumerate(inside):
        lane.stage(change, LATER if index in backs_off else None)
    lane.drain(NOW)
    for index in sorted(doubtful):
        if reassertion(told[index]) is not None:
            lane.land_late(told[index])
    for change in later:
        lane.stage(change)
    lane.drain(LATER)
    everything = after([*told, *inside, *later])
    assert lane.crm.state == everything.state
    assert Counter(lane.crm.calls) == Counter(everything.calls), "nothing that does something each time was repeated"
    assert lane.left == []


class _Lane:
    """A lane whose first changes are delivered, some of them in doubt; each such facet has one reassertion."""

    def __init__(self, told: list[LocalChange], doubtful: set[int], place: int) -> None:
        self.crm = after(told)
        self.left: list[Entry] = []
        self._delivered = list(told)
        self._roots: dict[int, int] = {}
        self._seq = 0
        self._place = place
        self._waiting = self._reassertions(told, doubtful)

    def _reassertions(self, told: list[LocalChange], doubtful: set[int]) -> list[tuple[int, LocalChange]]:
        roots: dict[str, tuple[int, LocalChange]] = {}
        for index in sorted(doubtful):
            if (said := reassertion(told[index])) is not None:
                roots.setdefault(facet_of(said), (index, said))
        return list(roots.values())

    def stage(self, change: LocalChange, next_attempt_at: object = None) -> None:
        """Append a change; the reassertions stand among the first, where the doubtful settles happened to be."""
        if self._seq >= self._place:
            self._append_reassertions()
        self._seq += 1
        self.left.append(entry(self._seq, change, next_attempt_at=next_attempt_at))

    def _append_reassertions(self) -> None:
        for root, said in self._waiting:
            self._seq += 1
            self._roots[self._seq] = root
            self.left.append(entry(self._seq, said, reasserts=900 + root, next_attempt_at=LATER))
        self._waiting = []

    def land_late(self, change: LocalChange) -> None:
        """A late create of an address that is there writes its profile alone."""
        self.crm.apply(UpdateProfile({}, dict(change.profile)) if isinstance(change, CreateRelation) else change)

    def drain(self, now: object) -> None:
        self._append_reassertions()
        for _ in range(len(self.left) + 1):
            made = fold([self._brought_up(e) for e in self.left], is_repeat_safe, now)  # type: ignore[arg-type]
            for step in made.steps:
                self.crm.apply(step.change)
                if not step.carrier.is_reassertion:
                    self._delivered.append(step.change)
                done = {step.carrier.seq, *(e.seq for e in step.superseded)}
                self.left = [e for e in self.left if e.seq not in done]

    def _brought_up(self, one: Entry) -> Entry:
        """As the claim does: what the facet was delivered since the doubt is laid over what the entry says."""
        if not one.is_reassertion:
            return one
        assert one.change is not None
        since = self._delivered[self._roots[one.seq] + 1 :]
        change = brought_up(one.change, [c for c in since if facet_of(c) == one.facet])
        return entry(one.seq, change, reasserts=one.reasserts, next_attempt_at=one.next_attempt_at)
