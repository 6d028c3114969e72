"""Merging: what one call says when several changes of one facet become it.

Decides the words of the folded call only; whether entries may be folded at all is ``policy.fold``'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateRelation,
    JoinGroup,
    LeaveGroup,
    LocalChange,
    RemoveTag,
    SetField,
    UpdateProfile,
)

_LAST_WINS = frozenset({AddTag, RemoveTag, JoinGroup, LeaveGroup, SetField, UpdateProfile})


def is_last_wins(change: LocalChange | None) -> bool:
    """Tell whether a later value of the facet makes an earlier one moot: tags, groups, field values, profile edits."""
    return type(change) in _LAST_WINS


def keeps_all(change: LocalChange) -> bool:
    """Tell whether the folded call carries something of every change in it, not of the last one alone."""
    return isinstance(change, UpdateProfile)


def says(last: LocalChange, older: LocalChange | None) -> bool:
    """Tell whether a facet's last value leaves nothing to be said of an older one: of a profile edit, every column."""
    if isinstance(last, UpdateProfile):
        return isinstance(older, UpdateProfile) and older.new.keys() <= last.new.keys()
    return older is not None and not isinstance(older, CreateRelation)


def overlaps(earlier: Sequence[LocalChange | None], later: LocalChange | None) -> bool:
    """Tell whether a change speaks of what one of these says: a profile edit only if both name a column."""
    return any(
        not isinstance(one, UpdateProfile) or not isinstance(later, UpdateProfile) or one.new.keys() & later.new.keys()
        for one in earlier
    )


def merged(changes: Sequence[LocalChange]) -> LocalChange:
    """Return the one change that does what these, all of one facet and in order, do together."""
    last = changes[-1]
    match last:
        case UpdateProfile():
            return _merged_profile([change for change in changes if isinstance(change, UpdateProfile)])
        case SetField():
            first = changes[0]
            old = first.old if isinstance(first, SetField) else last.old
            return SetField(field_id=last.field_id, code=last.code, old=old, new=last.new)
        case _:
            return last


def readdressed(refused: Sequence[LocalChange | None], last: LocalChange) -> LocalChange:
    """Return the identity change to send after ones that were not applied: a create under the address that ``last``
    gives, or the change from the address that the first of them left. A relation without an id is found by that."""
    if not isinstance(last, ChangeEmail):
        return last
    for change in refused:
        match change:
            case CreateRelation():
                return CreateRelation(email=last.new, profile=change.profile)
            case ChangeEmail():
                return ChangeEmail(old=change.old, new=last.new)
    return last


def without(edit: UpdateProfile, columns: Collection[str]) -> UpdateProfile:
    """Return what a profile edit says of all other columns."""
    old = {name: value for name, value in edit.old.items() if name not in columns}
    return UpdateProfile(old=old, new={name: value for name, value in edit.new.items() if name not in columns})


def _merged_profile(edits: Sequence[UpdateProfile]) -> UpdateProfile:
    """The newest value of each column over the oldest known one."""
    old: dict[str, str | None] = {}
    new: dict[str, str | None] = {}
    for edit in edits:
        old = edit.old | old
        new = new | edit.new
    return UpdateProfile(old=old, new=new)
