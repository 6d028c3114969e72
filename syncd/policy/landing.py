"""Landing: what a lane's calls that are in doubt may still do to its relation.

Decides which facets wait for such a call, and until when; what the lane has been told is the store's to know
(``store.outbox_landing``). It must never let an address change while a call may land that finds by it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from syncd.domain.changes import IDENTITY, PROFILE


class Landing(msgspec.Struct, frozen=True, gc=False):
    """How long a call of a lane, delivered since or not, may still land that finds by address (``profile_until``: a
    profile edit, a create), and one that changes it (``address_until``). None: no longer."""

    profile_until: datetime | None = None
    address_until: datetime | None = None

    def keeps_until(self, facet: str) -> datetime | None:
        """Return how long what may still land keeps a call of this facet waiting."""
        if facet == PROFILE:
            return self.address_until
        return self.profile_until if facet == IDENTITY else None


ALL_HAS_LANDED = Landing()


def may_land(profile_until: datetime | None, address_until: datetime | None, now: datetime) -> Landing:
    """Return what may still land now, of what a lane has been told."""
    if profile_until is None and address_until is None:
        return ALL_HAS_LANDED
    return Landing(_yet(profile_until, now), _yet(address_until, now))


def _yet(until: datetime | None, now: datetime) -> datetime | None:
    return until if until is not None and until > now else None
