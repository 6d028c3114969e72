"""Reassertion: what must be said once more, because a request whose fate was unknown may land after a newer value.

A call that was sent again after a lost answer is delivered, and the first request may yet arrive: seconds later,
behind whatever else was delivered meanwhile. So the last value of its facet is sent once more when the settle window
is over.

Decides the words alone: when, and whether a newer change makes it moot, is ``policy.fold``'s business. It never names a
call that does something each time it is made: a second mail is worse than a value that may have been undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

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
)


def reassertion(change: LocalChange) -> LocalChange | None:
    """Return what to say once more after a delivery that was in doubt; None where nothing is, or nothing may be.

    ``change`` is the call as it was delivered. A create that lands late writes its profile over what came after it.
    """
    match change:
        case CreateRelation():
            return UpdateProfile(old={}, new=dict(change.profile)) if change.profile else None
        case UpdateProfile() | ChangeEmail() | AddTag() | RemoveTag() | SetField() | JoinGroup() | LeaveGroup():
            return change
        case Subscribe() | Unsubscribe() | SubscribeWithConsent() | EndSubscription() | CreateField():
            return None
        case _:
            assert_never(change)


def after_given_up(change: LocalChange) -> LocalChange | None:
    """Return what stands for a call that was given up in doubt until something is delivered behind it; None where
    nothing can be said against its landing. It is never said as it is: the value was given up.
    """
    match change:
        case UpdateProfile():
            return UpdateProfile(old={}, new={})
        case CreateRelation():
            return None
        case _:
            return reassertion(change)


def brought_up(change: LocalChange, later: Iterable[LocalChange]) -> LocalChange:
    """Return a reassertion with what its facet was delivered since: ``later``, in commit order, laid over it."""
    for newer in later:
        if isinstance(change, UpdateProfile) and isinstance(newer, UpdateProfile):
            change = UpdateProfile(old=newer.old | change.old, new=change.new | newer.new)
        elif not isinstance(newer, CreateRelation):
            change = newer
    return change
