"""The two laws of fold, over all operation kinds: the CRM ends the same, and folding what is left changes nothing.

The model CRM applies calls one by one. Lanes are drained by folding again and again; every claim may fail in any of the
ways that leave the order to fold: a back-off that ends, or a lost answer of a call that is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateRelation,
    JoinGroup,
    LeaveGroup,
    LocalChange,
    RemoveTag,
    SetField,
    Subscribe,
    Unsubscribe,
    UpdateProfile,
)
from syncd.policy.fold import Entry, fold
from tests.support import lanes as build
from tests.support.lanes import LATER, NOW, entry, is_repeat_safe

small = st.integers(1, 3)
word = st.sampled_from(["a", "b", "c", None])
CHANGES = st.one_of(
    st.builds(build.add, small),
    st.builds(build.remove, small),
    st.builds(build.join, small),
    st.builds(build.leave, small),
    st.builds(build.field, word, st.none(), small),
    st.dictionaries(st.sampled_from(["first_name", "last_name", "gender"]), word, min_size=1).map(
        lambda new: build.profile(**new)
    ),
    st.builds(build.email, st.sampled_from(["a@x.example", "b@x.example", "c@x.example"])),
    st.builds(build.create),
    st.builds(build.subscribe, small),
    st.builds(build.unsubscribe, small),
)
LANES = st.lists(CHANGES, max_size=12)


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
            case Subscribe() | Unsubscribe():
                seen = (self.email, dict(self.profile), set(self.tags), set(self.groups), dict(self.fields))
                self.mails.append((type(change).__name__, change.list_id, seen))
            case _:
                raise AssertionError(change)


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
    plain = Crm()
    for change in changes:
        plain.apply(change)
    folded, settled = drained(build.lane(*changes))
    assert folded == plain
    assert sorted(seq for call in settled for seq in call) == list(range(1, len(changes) + 1)), "each settled once"


@given(LANES)
def test_folding_what_was_folded_changes_nothing(changes: list[LocalChange]) -> None:
    """The second law: the calls of a plan, taken as a lane of their own, fold to themselves."""
    made = fold(build.lane(*changes), is_repeat_safe, NOW)
    again = fold([entry(seq, step.change) for seq, step in enumerate(made.steps, 1)], is_repeat_safe, NOW)
    assert [step.change for step in again.steps] == [step.change for step in made.steps]


@given(LANES, st.data())
def test_order_holds_per_facet_whatever_backs_off(changes: list[LocalChange], data: st.DataObject) -> None:
    """Any entries may be in back-off at first: when those end, the CRM is where it would have been."""
    plain = Crm()
    for change in changes:
        plain.apply(change)
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
    assert (crm.tags, crm.groups, crm.fields) == (plain.tags, plain.groups, plain.fields)
    assert (crm.email, crm.profile) == (plain.email, plain.profile)


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
