"""Facets in words: what a change is about, and what it turns into what.

The names are those that people type: ``tag:VIP``, ``field:Kleur``, ``group:Klanten``, ``list:Nieuws``, and columns by
their own names. ``called`` maps stored facets (``field:3``) to names where the change does not carry one itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

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

_NOTHING: Mapping[str, str] = MappingProxyType({})
YES, NO = "yes", "no"


class Turn(StrEnum):
    """Which way a change goes."""

    ADD = "add"
    UPDATE = "update"
    REMOVE = "remove"


class FacetValue(msgspec.Struct, frozen=True):
    """One thing that a change says: ``base`` is what both sides last agreed on, ``local`` what it shall be.

    ``key`` is how the CRM calls it where it shows it: a tag by its name, a list by its remote id.
    """

    name: str
    base: str | None
    local: str | None
    key: str | None = None


def turn_of(change: LocalChange) -> Turn:
    """Tell whether a change adds something, takes it away, or changes it."""
    match change:
        case AddTag() | JoinGroup() | CreateRelation() | CreateField() | Subscribe() | SubscribeWithConsent():
            return Turn.ADD
        case RemoveTag() | LeaveGroup() | Unsubscribe() | EndSubscription():
            return Turn.REMOVE
        case SetField(old=old, new=new):
            return Turn.REMOVE if new is None else Turn.ADD if old is None else Turn.UPDATE
        case ChangeEmail() | UpdateProfile():
            return Turn.UPDATE


def values_of(
    change: LocalChange,
    earliest: LocalChange | None = None,
    *,
    called: Mapping[str, str] = _NOTHING,
    bases: Mapping[str, str] = _NOTHING,
) -> tuple[FacetValue, ...]:
    """Return what a change says, one value each.

    ``earliest`` is the first of the changes that were folded into it: what it presumes is what the CRM has. ``bases``
    are known values, by stored facet, of what a change does not carry the old value of (lists, paid subscriptions).
    """
    name = name_of(change, called)
    match change:
        case CreateRelation():
            columns = {"email": change.email, **change.profile}
            return tuple(FacetValue(column, None, value) for column, value in columns.items())
        case ChangeEmail():
            return (FacetValue("email", change.old, change.new),)
        case UpdateProfile():
            return tuple(FacetValue(column, change.old.get(column), value) for column, value in change.new.items())
        case AddTag() | JoinGroup():
            base = YES if isinstance(earliest, RemoveTag | LeaveGroup) else NO
            return (FacetValue(name, base, YES, change.tag_name if isinstance(change, AddTag) else None),)
        case RemoveTag() | LeaveGroup():
            base = NO if isinstance(earliest, AddTag | JoinGroup) else YES
            return (FacetValue(name, base, NO, change.tag_name if isinstance(change, RemoveTag) else None),)
        case SetField():
            return (FacetValue(name, change.old, change.new),)
        case Subscribe() | SubscribeWithConsent():
            return (FacetValue(name, bases.get(facet_of(change)), "subscribed", change.list_remote_id),)
        case Unsubscribe():
            return (FacetValue(name, bases.get(facet_of(change)), "unsubscribed", change.list_remote_id),)
        case EndSubscription():
            return (FacetValue(name, bases.get(facet_of(change)), f"ends {change.ends_on.isoformat()}"),)
        case CreateField():
            return (FacetValue(name, None, change.type),)


def name_of(change: LocalChange, called: Mapping[str, str] = _NOTHING) -> str:
    """Return the facet of a change as people say it."""
    facet = facet_of(change)
    kind = facet.partition(":")[0]
    match change:
        case AddTag() | RemoveTag():
            return f"{kind}:{change.tag_name}"
        case JoinGroup() | LeaveGroup():
            return f"{kind}:{change.group_title or called.get(facet) or change.group_id}"
        case SetField():
            return f"{kind}:{called.get(facet) or change.code}"
        case Subscribe() | Unsubscribe() | SubscribeWithConsent():
            return f"{kind}:{called.get(facet) or change.list_id}"
        case _:
            return facet
