"""Presuming: what a step takes for agreed on with the CRM, and whose word counts where the CRM has moved on.

Decided from the entries that the step carries and the owners of its fields alone; what the CRM holds is read by the
conversation, and what two sides disagree about is written down by the store.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncd.domain.changes import AddTag, JoinGroup, LeaveGroup, LocalChange, RemoveTag, SetField
from syncd.policy.fold import Entry, Step
from syncd.policy.merge import Agreed, Conflict, Edit, Owner, Owners, trails
from syncd.policy.states import EntryStatus
from syncd.store.outbox import Contest


def presumed(step: Step, owners: Owners) -> Agreed:
    """Say what the step presumes. A re-assertion never gives way: what it meets may be its own delayed request."""
    known = trails(_edit(entry) for entry in parts(step) if entry.change is not None)
    if step.carrier.is_reassertion:
        return Agreed(known)
    return Agreed(known, frozenset(name for name in known if _owner(owners, name, step.change) is not Owner.LOCAL))


def overwriting(step: Step, clashes: Iterable[Conflict]) -> list[Contest]:
    """Return what is to be written down before a call overwrites these fields."""
    return [Contest(step.carrier.id, step.carrier.seq, clash, Owner.LOCAL) for clash in clashes]


def yielding(step: Step, clashes: Iterable[Conflict], owners: Owners) -> list[Contest]:
    """Return what keeps the step from being sent: the fields among these that give way or wait for a person."""
    contests = [
        Contest(step.carrier.id, step.carrier.seq, clash, _owner(owners, clash.field, step.change)) for clash in clashes
    ]
    return [] if step.carrier.is_reassertion else [one for one in contests if one.owner is not Owner.LOCAL]


def parts(step: Step) -> tuple[Entry, ...]:
    """Return the entries that a step delivers, in order."""
    return (*step.superseded, step.carrier)


def _edit(entry: Entry) -> Edit:
    assert entry.change is not None
    is_pending = entry.status == EntryStatus.PENDING.value
    is_tried = entry.attempts > 0 or entry.is_uncertain or not is_pending or entry.is_reassertion
    return Edit(entry.change, entry.captured_at, is_sent=is_tried)


def _owner(owners: Owners, name: str, change: LocalChange) -> Owner:
    """Return the owner of a field by the names that people give it."""
    match change:
        case AddTag() | RemoveTag():
            return owners.of(f"tag:{change.tag_name}", "tags")
        case JoinGroup() | LeaveGroup():
            return owners.of(f"group:{change.group_title}", "groups")
        case SetField():
            return owners.of(f"field:{change.code}", "fields")
        case _:
            return owners.of(name)
