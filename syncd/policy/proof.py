"""Proof: does what the CRM shows say that a change has arrived?

Pure comparisons of a change with a record, for pulls and for reading back alike. Each returns a ``Showing``: as
expected, something else with both values, or that it does not tell. It never says "something else" of what another hand
may plainly have done since: a standing whose event is younger than the delivery tells nothing about it.

An empty text, a null and a key that is not there are one value here, as they are to the CRMs; a column that the record
does not say (``UNSET``) tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec import UNSET

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
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
)
from syncd.domain.records import FreeField, Order, Relation, Subscription

# A CRM's dates may be of whole days, its clock another: an event must be older than this to be "from before".
SLACK = timedelta(days=1)
_COLUMNS = frozenset({"first_name", "suffix", "last_name", "gender"})


class Sight(StrEnum):
    EXPECTED = "expected"
    OTHER = "other"
    UNTOLD = "untold"


class Showing(msgspec.Struct, frozen=True):
    """What was seen. With ``OTHER`` both values by name, as texts for a person."""

    sight: Sight
    expected: Mapping[str, str] = {}
    shown: Mapping[str, str] = {}


UNTOLD = Showing(Sight.UNTOLD)
EXPECTED = Showing(Sight.EXPECTED)


def by_relation(change: CreateRelation | UpdateProfile | ChangeEmail, shown: Relation) -> Showing:
    """Compare an identity or profile change with a relation as the CRM shows it."""
    expected = _expected(change)
    told = {name: getattr(shown, name, UNSET) for name in expected}
    other = {n: v for n, v in told.items() if v is not UNSET and not _is_equal(change, n, v, expected[n])}
    if other:
        return Showing(Sight.OTHER, {name: expected[name] for name in other}, {n: v or "" for n, v in other.items()})
    return UNTOLD if UNSET in told.values() else EXPECTED


def is_shown_by_relations(change: LocalChange) -> bool:
    """Tell whether all that a relation's change says is among what CRMs show of a relation."""
    match change:
        case ChangeEmail():
            return True
        case CreateRelation():
            return _COLUMNS.issuperset(change.profile)
        case UpdateProfile():
            return _COLUMNS.issuperset(change.new)
        case _:
            return False


def by_tags(change: AddTag | RemoveTag, is_there: bool) -> Showing:
    """Compare with whether the relation has the tag."""
    words = {True: "there", False: "not there"}
    return _by_presence(f"tag {change.tag_name}", isinstance(change, AddTag), is_there, words)


def by_members(change: JoinGroup | LeaveGroup, is_there: bool) -> Showing:
    """Compare with whether the relation is among the group's members."""
    words = {True: "member", False: "no member"}
    name = f"group {change.group_title or change.group_remote_id or change.group_id}"
    return _by_presence(name, isinstance(change, JoinGroup), is_there, words)


def by_standing(
    change: Subscribe | SubscribeWithConsent | Unsubscribe,
    shown: Subscription | None,
    made_at: datetime | None,
    delivered_at: datetime | None,
    stood_at: datetime | None = None,
) -> Showing:
    """Compare with the relation's latest standing on the list; None when it has none.

    ``delivered_at`` is None when nobody knows whether it was: then an event from before ``made_at`` proves nothing,
    because the relation may have stood so already. Where that is known, ``stood_at`` is the last time at which it may
    have come to, and only an event that is plainly younger is this change's doing.
    """
    wanted = "unsubscribed" if isinstance(change, Unsubscribe) else "subscribed"
    name = f"list {change.list_remote_id or change.list_id}"
    event_at = shown.event_at if shown is not None else None
    if shown is not None and shown.status == wanted:
        return UNTOLD if delivered_at is None and _may_be_from_before(event_at, made_at, stood_at) else EXPECTED
    if delivered_at is not None and event_at is not None and event_at > delivered_at:
        return UNTOLD  # somebody else moved it since
    return Showing(Sight.OTHER, {name: wanted}, {name: shown.status if shown is not None else "nothing"})


def _may_be_from_before(event_at: datetime | None, made_at: datetime | None, stood_at: datetime | None) -> bool:
    """Tell whether a standing may be older than the change: by its date, or because it was known to be so by then."""
    if event_at is None:
        return stood_at is not None
    is_old = made_at is not None and event_at < made_at - SLACK
    return is_old or (stood_at is not None and event_at <= stood_at + SLACK)


def by_fields(change: CreateField, shown: Iterable[FreeField]) -> Showing:
    """Compare with the list of all fields. One that only has the label may be ours or not."""
    name = change.name.casefold()
    fields = list(shown)
    if any(name in {(field.name or "").casefold(), field.code.casefold()} for field in fields):
        return EXPECTED
    if any(field.name == change.label for field in fields):
        return UNTOLD
    return Showing(Sight.OTHER, {f"field {change.name}": "there"}, {f"field {change.name}": "not there"})


def by_end(change: EndSubscription, ends_on: Iterable[date | None]) -> Showing:
    """Compare with the end dates that order lines show of the subscription; none at all tells nothing."""
    dates = list(ends_on)
    if not dates:
        return UNTOLD
    if change.ends_on in dates:
        return EXPECTED
    name = f"subscription {change.subscription_id} ends on"
    shown = ", ".join(sorted({day.isoformat() if day else "never" for day in dates}))
    return Showing(Sight.OTHER, {name: change.ends_on.isoformat()}, {name: shown})


def by_orders(change: EndSubscription, orders: Iterable[Order]) -> Showing:
    """Compare with a relation's orders."""
    lines = (line for order in orders for line in order.lines)
    return by_end(change, [ln.subscription_ends_on for ln in lines if ln.subscription_id == change.subscription_id])


def still_expected(delivered: Sequence[tuple[int, LocalChange]]) -> dict[int, LocalChange]:
    """Return, of one facet's delivered changes (sequence number and change, in order), what each still lets expect.

    The last one speaks for its facet; of a profile each column is spoken for by its last change. The others are left
    out: what they said has been overtaken.
    """
    found: dict[int, LocalChange] = {}
    taken: set[str] = set()
    for seq, change in reversed(delivered):
        if not isinstance(change, UpdateProfile):
            return found or {seq: change}
        fresh = {name: value for name, value in change.new.items() if name not in taken}
        if fresh:
            found[seq] = UpdateProfile(old=change.old, new=fresh)
            taken |= fresh.keys()
    return found


def _expected(change: CreateRelation | UpdateProfile | ChangeEmail) -> dict[str, str]:
    match change:
        case ChangeEmail():
            return {"email": change.new}
        case CreateRelation():
            return {"email": change.email, **{name: value or "" for name, value in change.profile.items()}}
        case UpdateProfile():
            return {name: value or "" for name, value in change.new.items()}


def _is_equal(change: LocalChange, name: str, shown: str | None, expected: str) -> bool:
    told, wanted = (shown or "").strip(), expected.strip()
    if name == "gender":
        return (told or "-").upper() == (wanted or "-").upper()
    if name == "email":
        is_spelling = isinstance(change, ChangeEmail) and (change.old or "").casefold() == change.new.casefold()
        return told == wanted if is_spelling else told.casefold() == wanted.casefold()
    return told == wanted


def _by_presence(name: str, is_wanted: bool, is_there: bool, words: Mapping[bool, str]) -> Showing:
    if is_wanted == is_there:
        return EXPECTED
    return Showing(Sight.OTHER, {name: words[is_wanted]}, {name: words[is_there]})
