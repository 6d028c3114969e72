"""Landing: until when a call of a lane whose fate is unknown may still reach the CRM.

A lane says it, and not an entry: what was tried may by now be delivered, folded into another, dead or given up, and may
stand anywhere in the lane. Two kinds matter (``policy.landing.Landing``): what finds a relation by its address, and
what changes the address. A create is of the first kind; it does not wait for its own.

Whoever writes down a doubt writes this in the same transaction, under the lane's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.changes import ChangeEmail, CreateRelation, LocalChange, UpdateProfile
from syncd.policy.fold import Entry
from syncd.policy.landing import Landing, may_land
from syncd.store.engine import Connection


class Late(msgspec.Struct, frozen=True, gc=False):
    """For how many seconds from now a call of each kind may still land; None: nothing is known of one."""

    profile_s: float | None = None
    address_s: float | None = None

    @classmethod
    def of(cls, change: LocalChange | None, window_s: float) -> Late:
        """Return what a try of this change amounts to, if nobody knows what became of it."""
        if window_s <= 0:
            return NOTHING
        match change:
            case UpdateProfile() | CreateRelation():
                return cls(profile_s=window_s)
            case ChangeEmail():
                return cls(address_s=window_s)
            case _:
                return NOTHING

    def __or__(self, other: Late) -> Late:
        return Late(_longer(self.profile_s, other.profile_s), _longer(self.address_s, other.address_s))

    def __bool__(self) -> bool:
        return self.profile_s is not None or self.address_s is not None


NOTHING = Late()

_EXPECT = text(
    """
    UPDATE syncd.lanes l
    SET profile_lands_until = GREATEST(l.profile_lands_until, now() + make_interval(secs => g.profile_s)),
        address_lands_until = GREATEST(l.address_lands_until, now() + make_interval(secs => g.address_s))
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:profile AS double precision[]),
                CAST(:address AS double precision[])) AS g (lane_id, profile_s, address_s)
    WHERE l.id = g.lane_id
    """
)


async def expect(connection: Connection, late: Mapping[int, Late]) -> None:
    """Let lanes, whose locks the caller holds, expect what may land from now on; nothing is ever taken back."""
    told = {lane_id: one for lane_id, one in late.items() if one}
    if told:
        binds = {
            "lane_ids": list(told),
            "profile": [one.profile_s for one in told.values()],
            "address": [one.address_s for one in told.values()],
        }
        await connection.execute(_EXPECT, binds)


def late_of(tried: Iterable[Entry], lane: Sequence[Entry], lands_s: float) -> Late:
    """Return what may still land for ``lands_s``, if these of a lane's entries were tried just now. Behind a refused
    create an e-mail change is sent as that create."""
    creates = [entry.change for entry in lane if entry.is_refused and isinstance(entry.change, CreateRelation)]
    late = NOTHING
    for entry in tried:
        for change in (entry.change, *(creates if isinstance(entry.change, ChangeEmail) else ())):
            late |= Late.of(change, lands_s)
    return late


def expected(lane: Any, late: Late, now: datetime) -> Landing:
    """Return what a lane's row says of late calls at this moment, and these on top of it."""
    profile_until = _later(lane.profile_lands_until, late.profile_s, now)
    return may_land(profile_until, _later(lane.address_lands_until, late.address_s, now), now)


def _later(until: datetime | None, more_s: float | None, now: datetime) -> datetime | None:
    if more_s is None:
        return until
    more = now + timedelta(seconds=more_s)
    return more if until is None else max(until, more)


def _longer(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)
