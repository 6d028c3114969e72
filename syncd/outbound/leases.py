"""Leases: what this drainer holds, until when, and what it may hold without knowing.

Every claimed lane is kept here from its claim to its settle, whether it waits for a worker, is being sent, or waits to
be settled. Leases are renewed in good time and together, long before one is too short to cover a conversation; most
lanes settle before their first renewal. A lane that turns out to be somebody else's is lost from that moment on:
nothing more is sent for it.

A claim whose commit is in doubt may have left lanes in our name that nobody would send until their lease ends. They are
asked for by their epochs, and taken up if they are ours. It must never take up a lane that was claimed anew since: the
same epoch may have been given twice, if the first claim was rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from syncd.clock import Clock
from syncd.domain.errors import InfrastructureError
from syncd.log import get
from syncd.store import Store
from syncd.store.outbox import ClaimedLane, Renewal, renew

log = get("syncd.outbound")

# With less than this share of its lease left, a lane is renewed; twice in that time it is looked at.
_RENEW_AT = 0.75
_LOOKS = 16
_DOUBT_S = 1.0
_NOTHING = Renewal(frozenset(), frozenset(), frozenset())


@dataclass(slots=True, eq=False)
class Lease:
    """A claimed lane and how long it is ours to send, by our own clock: it ends too early there, never too late."""

    lane: ClaimedLane
    until: float
    is_lost: bool = False

    def covers(self, until: float) -> bool:
        return not self.is_lost and self.until >= until


class Leases:
    """Everything that one drainer holds."""

    def __init__(self, store: Store, worker: str, clock: Clock, lease_s: float) -> None:
        self._store = store
        self._worker = worker
        self._clock = clock
        self._lease_s = lease_s
        self._held: dict[int, Lease] = {}
        self._doubtful: dict[int, Lease] = {}
        self._asked_at = float("-inf")

    @property
    def are_in_doubt(self) -> bool:
        return bool(self._doubtful)

    @property
    def is_asking_due(self) -> bool:
        """Whether to ask for lanes in doubt now: at once, then every second, for the commit may still be under way."""
        return self.are_in_doubt and self._clock.monotonic() - self._asked_at >= _DOUBT_S

    def hold(self, lanes: Iterable[ClaimedLane], until: float) -> list[Lease]:
        """Take up lanes that a claim brought."""
        leases = [Lease(lane, until) for lane in lanes]
        for lease in leases:
            self._held[lease.lane.lane_id] = lease
            self._doubtful.pop(lease.lane.lane_id, None)
        return leases

    def let_go(self, lease: Lease) -> None:
        """Forget a lane that is settled or given up. The same lane may be ours again already, by a later claim."""
        if self._held.get(lease.lane.lane_id) is lease:
            del self._held[lease.lane.lane_id]

    def doubt(self, lanes: Iterable[ClaimedLane], until: float) -> None:
        """Remember lanes of a claim that was not answered."""
        self._doubtful.update((lane.lane_id, Lease(lane, until)) for lane in lanes)
        self._asked_at = float("-inf")

    async def adopt(self) -> list[Lease]:
        """Return those lanes in doubt that are ours after all. Raises InfrastructureError."""
        asked_at = self._clock.monotonic()
        asked = [lease for lease in self._doubtful.values() if lease.until > asked_at]
        renewal = await self._renew(asked) if asked else _NOTHING
        self._asked_at = asked_at
        ours = [lease for lease in asked if lease.lane.lane_id in renewal.renewed]
        gone = renewal.renewed | renewal.lost - renewal.unclaimed
        self._doubtful = {lease.lane.lane_id: lease for lease in asked if lease.lane.lane_id not in gone}
        for lease in ours:
            self._held[lease.lane.lane_id] = lease
        if ours:
            log.info("claim.adopted", lanes=len(ours))
        return ours

    async def run(self) -> None:
        """Renew for ever what is held long."""
        while True:
            await self._clock.sleep(self._lease_s / _LOOKS)
            due_at = self._clock.monotonic() + _RENEW_AT * self._lease_s
            due = [lease for lease in self._held.values() if lease.until < due_at and not lease.is_lost]
            try:
                if due:
                    self._lose(due, (await self._renew(due)).lost)
            except InfrastructureError as error:
                log.debug("lease.not_renewed", lanes=len(due), reason=str(error))

    def _lose(self, leases: Sequence[Lease], lost: frozenset[int]) -> None:
        for lease in leases:
            lease.is_lost = lease.lane.lane_id in lost
        if lost:
            log.warning("lease.lost", lanes=len(lost))

    async def _renew(self, leases: Sequence[Lease]) -> Renewal:
        until = self._clock.monotonic() + self._lease_s
        named = [(lease.lane.lane_id, lease.lane.epoch) for lease in leases]
        async with self._store.begin() as connection:
            renewal = await renew(connection, self._worker, named, self._lease_s)
        for lease in leases:
            if lease.lane.lane_id in renewal.renewed:
                lease.until = until
        return renewal
