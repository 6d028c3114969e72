"""Waits: why an entry that is not delivered is not sent now, in words that a person can act on.

It explains what ``policy.fold`` decided and decides nothing: an entry that a plan sends is never asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from syncd.domain.changes import IDENTITY
from syncd.policy.fold import Entry
from syncd.policy.landing import Landing
from syncd.policy.states import EntryStatus


class Why(StrEnum):
    """What an undelivered entry waits for."""

    BACK_OFF = "back_off"  # its next try is not due yet
    HELD = "held"  # a mass change that waits for approval
    DEAD = "dead"  # refused, or tried too often: a person decides
    PARKED = "parked"  # nobody can tell whether it was applied: a person decides
    DIVERGED = "diverged"  # the CRM said yes and shows something else: a person decides
    LANDING = "landing"  # a call that was in doubt may still land, and this one must not be in its way
    ADDRESS = "address"  # another relation must have given up the address that this one takes
    BEHIND = "behind"  # another entry must be settled first


class Wait(msgspec.Struct, frozen=True):
    """``behind`` is the entry that must be settled first, ``until`` when it will be over, if that is the reason;
    ``awaits`` is the entry of another lane that leaves an address (negative: a capture)."""

    entry: Entry
    why: Why
    behind: Entry | None = None
    until: datetime | None = None
    awaits: int | None = None


_OWN = {
    EntryStatus.HELD.value: Why.HELD,
    EntryStatus.DEAD.value: Why.DEAD,
    EntryStatus.PARKED.value: Why.PARKED,
    EntryStatus.DIVERGED.value: Why.DIVERGED,
}


def waits(left: Sequence[Entry], now: datetime, landing: Landing) -> tuple[Wait, ...]:
    """Say of each entry that a lane's plan leaves why it waits; ``left`` in sequence order, ``landing`` as the plan was
    told."""
    found: list[Wait] = []
    identity: Entry | None = None
    facets: dict[str, Entry] = {}
    moved = next((entry for entry in reversed(left) if entry.has_moved), None)
    for entry in left:
        wait = _wait(entry, _blocker(entry, identity or facets.get(entry.facet), moved), now, landing)
        found.append(wait)
        if wait.why is Why.DIVERGED:
            continue
        if entry.facet == IDENTITY:
            identity = identity or entry
        facets.setdefault(entry.facet, entry)
    return tuple(found)


def _blocker(entry: Entry, first: Entry | None, moved: Entry | None) -> Entry | None:
    """An e-mail change supersedes what the CRM refused: that is not what it waits for. It does wait for a later one
    that has passed it and may have been applied (``moved``)."""
    if entry.operation != "change_email" or entry.is_reassertion:
        return first
    if moved is not None and moved.seq > entry.seq:
        return moved
    return None if first is not None and first.is_refused else first


def _wait(entry: Entry, blocker: Entry | None, now: datetime, landing: Landing) -> Wait:
    own = _OWN.get(entry.status)
    if own is not None:
        return Wait(entry, own)
    if blocker is not None:
        return Wait(entry, Why.BEHIND, blocker)
    if entry.next_attempt_at is not None and entry.next_attempt_at > now:
        return Wait(entry, Why.BACK_OFF, until=entry.next_attempt_at)
    if entry.awaits is not None:
        return Wait(entry, Why.ADDRESS, awaits=entry.awaits)
    until = landing.keeps_until(entry.facet)
    return Wait(entry, Why.BEHIND) if until is None else Wait(entry, Why.LANDING, until=until)
