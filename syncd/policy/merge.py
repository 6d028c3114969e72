"""Merge: which value a field takes when the CRM and an application both have something to say, and what is told of it.

Decided per field on three values: ``base`` (what both sides last agreed on), the local one and the CRM's. A local value
that is *possibly sent* (tried before, its answer lost) comes back as an echo and is nobody's news. Texts are compared
as the CRMs do: nothing, null and blanks are one value, a gender of nobody is ``-``, letter case makes no address.

Who is right when both moved is the **owner** of the field, by setting: ``local`` (the application's value is sent over
the CRM's), ``remote`` (the CRM's is taken, the edit is not sent) or ``hold`` (neither is sent nor overwritten until a
person decides). Whatever the owner says, the loser is written down in ``syncd.conflicts``; nothing is lost in silence.

The table is the whole of it; ``tests/pipelines/test_merge_table.py`` plays every row of it through a pull and a drain
and compares the outcome with this text. "b>l" is an edit from b to l that is not delivered; "b>b" one there and back;
"b>m>l" two edits, of which the first is possibly sent; a tag or a membership is a field that is there or not.

| field | agreed | here | in the CRM | owner | both end with | conflict |
|---|---|---|---|---|---|---|
| text | b | b | r | any | r | none |
| text | b | b>l | b | any | l | none |
| text | b | b>l | l | any | l | none |
| text | b | b>m>l | m | any | l | none |
| text | b | b>l | r | local | l | local |
| text | b | b>l | r | remote | r | remote |
| text | b | b>l | r | hold | here l, there r | open |
| text | b | b>b | b | any | b | none |
| text | b | b>b | r | local | b | local |
| text | b | b>b | r | remote | r | remote |
| text | b | b>b | r | hold | here b, there r | open |
| address | b | b | r | any | r | none |
| address | b | b>l | b | any | l | none |
| address | b | b>l | r | local | l | local |
| address | b | b>l | r | remote | r | remote |
| address | b | b>l | r | hold | here l, there r | open |
| created | - | ->l | - | any | l | none |
| created | - | ->l | l | any | l | none |
| created | - | ->l | r | local | l | local |
| created | - | ->l | r | remote | r | remote |
| created | - | ->l | r | hold | here l, there r | open |
| tag | out | out | in | any | in | none |
| tag | in | in | out | any | out | none |
| tag | out | out>in | out | any | in | none |
| tag | out | out>in | in | any | in | none |
| tag | in | in>out | in | any | out | none |
| tag | in | in>out | out | any | out | none |
| tag | in | in>in | in | any | in | none |
| tag | in | in>in | out | local | in | local |
| tag | in | in>in | out | remote | out | remote |
| tag | in | in>in | out | hold | here in, there out | open |
| tag | out | out>out | in | local | out | local |
| tag | out | out>out | in | remote | in | remote |
| tag | out | out>out | in | hold | here out, there in | open |
| group | out | out | in | any | in | none |
| group | in | in | out | any | out | none |
| group | out | out>in | out | any | in | none |
| group | out | out>in | in | any | in | none |
| group | in | in>out | in | any | out | none |
| group | in | in>out | out | any | out | none |
| group | in | in>in | out | local | in | local |
| group | in | in>in | out | remote | out | remote |
| group | in | in>in | out | hold | here in, there out | open |
| group | out | out>out | in | remote | in | remote |

An answer that was asked for before a delivery was acknowledged says nothing about the delivered field: whatever the
CRM showed then, the delivery came after it.

Never decided here: whether a change is still undelivered (``store.mirror.undelivered``), and how a withheld change
leaves the outbox (``store.outbox_withhold``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import msgspec
from msgspec import UNSET

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
    facet_of,
)
from syncd.domain.facets import NO, YES


class Owner(StrEnum):
    """Whose value counts when both sides moved a field."""

    REMOTE = "remote"
    LOCAL = "local"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Owners:
    """``by_name`` names columns, ``tags``, ``tag:NAME``, ``groups``, ``group:TITLE``; all others are ``default``'s."""

    default: Owner = Owner.LOCAL
    by_name: Mapping[str, Owner] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, *names: str | None) -> Owner:
        """Return the owner by the first of these names that has one: the nearest name first."""
        return next((self.by_name[name] for name in names if name is not None and name in self.by_name), self.default)


class Edit(msgspec.Struct, frozen=True):
    """A local change and what is known of its way. ``is_sent``: it may have reached the CRM by now. ``is_delivered``:
    it did, after the answer was asked for. ``is_given_up``: it protects nothing, yet what is here came from it."""

    change: LocalChange
    made_at: datetime
    is_sent: bool = False
    is_delivered: bool = False
    is_given_up: bool = False


class Trail(msgspec.Struct, frozen=True):
    """The edits of one field: ``base`` is its value before the first, ``sent`` are values that may be our own echo.

    ``is_open``: some of them are not delivered; without that no answer can be at odds with them, only be older.
    """

    base: str | None
    made_at: datetime | None = None
    sent: frozenset[str | None] = frozenset()
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides moved one field away from ``base``. ``made_at`` is when the application began to."""

    field: str
    base: str | None
    local: str | None
    remote: str | None
    made_at: datetime | None = None

    @property
    def is_settled(self) -> bool:
        """Whether both sides say the same by now."""
        return is_same(self.field, self.local, self.remote)


@dataclass(frozen=True, slots=True)
class Merged:
    """``values`` are the columns to write; ``kept`` those that keep their local value."""

    values: Mapping[str, object]
    kept: frozenset[str]
    conflicts: tuple[Conflict, ...]


def trails(edits: Iterable[Edit]) -> Mapping[str, Trail]:
    """Return what protects each field that these edits, in commit order, speak about.

    Fields are columns by name, tags and groups by facet (yes or no). What was given up counts where an edit follows it:
    the value that stood before it is what was last agreed on.
    """
    found: dict[str, list[tuple[Edit, str | None, str | None]]] = {}
    for edit in edits:
        for name, old, new in _moves(edit.change):
            found.setdefault(name, []).append((edit, old, new))
    return {name: _trail(moves) for name, moves in found.items() if any(not edit.is_given_up for edit, _, _ in moves)}


def is_contested(name: str, trail: Trail, local: str | None, remote: str | None) -> bool:
    """Tell whether the CRM moved a field that is being moved here, and not to the same value."""
    ours = (local, trail.base, *trail.sent)
    return trail.is_open and not any(is_same(name, remote, one) for one in ours)


def is_same(name: str, one: str | None, other: str | None) -> bool:
    """Compare two values of a field as the CRMs do."""
    return _normal(name, one) == _normal(name, other)


def merge(local: Mapping[str, object], remote: Mapping[str, object], protected: Mapping[str, Trail]) -> Merged:
    """Merge an answer into a row. ``protected`` names the columns that keep their local value, and why."""
    values: dict[str, object] = {}
    conflicts: list[Conflict] = []
    for column, value in remote.items():
        if value is UNSET:
            continue
        trail = protected.get(column)
        if trail is None:
            values[column] = value
        elif is_contested(column, trail, _text(local[column]), _text(value)):
            conflicts.append(Conflict(column, trail.base, _text(local[column]), _text(value), trail.made_at))
    kept = frozenset(column for column in protected if column in remote and remote[column] is not UNSET)
    return Merged(values, kept, tuple(conflicts))


class Agreed(msgspec.Struct, frozen=True):
    """What a delivery presumes: each field's trail, and which fields give way or wait when the CRM moved them."""

    trails: Mapping[str, Trail]
    yielding: frozenset[str] = frozenset()

    def clashes(self, wanted: Mapping[str, str | None], present: Mapping[str, str | None]) -> tuple[Conflict, ...]:
        """Return the fields that the CRM, as it is now, has moved away from what was agreed."""
        return tuple(
            Conflict(name, self.trails[name].base, value, present[name], self.trails[name].made_at)
            for name, value in wanted.items()
            if name in self.trails and name in present and is_contested(name, self.trails[name], value, present[name])
        )

    def gives_way(self, clashes: Iterable[Conflict]) -> bool:
        """Tell whether one of them must not be overwritten."""
        return any(clash.field in self.yielding for clash in clashes)


def _trail(moves: list[tuple[Edit, str | None, str | None]]) -> Trail:
    first, base, _ = moves[0]
    counting = [(edit, new) for edit, _, new in moves if not edit.is_given_up]
    sent = frozenset(new for edit, new in counting if edit.is_sent or edit.is_delivered)
    is_open = any(not edit.is_delivered for edit, _ in counting)
    return Trail(base, counting[0][0].made_at if counting else first.made_at, sent, is_open)


def _moves(change: LocalChange) -> Iterable[tuple[str, str | None, str | None]]:
    """Return the fields that a change moves, each with its value before and after."""
    match change:
        case CreateRelation():
            # Both sides begin with the address: it is what makes them one relation.
            return [("email", change.email, change.email), *((name, None, new) for name, new in change.profile.items())]
        case ChangeEmail():
            return [("email", change.old, change.new)]
        case UpdateProfile():
            return [(column, change.old.get(column), value) for column, value in change.new.items()]
        case AddTag() | JoinGroup():
            return [(facet_of(change), NO, YES)]
        case RemoveTag() | LeaveGroup():
            return [(facet_of(change), YES, NO)]
        case SetField():
            return [(facet_of(change), change.old, change.new)]
        case _:
            return []  # a call has no value that two sides could have moved


def _normal(name: str, value: str | None) -> str:
    told = (value or "").strip()
    match name:
        case "gender":
            return (told or "-").upper()
        case "email":
            return told.casefold()
        case _:
            return told


def _text(value: object) -> str | None:
    return None if value is None else str(value)
