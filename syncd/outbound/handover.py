"""Handover: settle one claim of a planned lane and, in the same transaction, take its next round.

Between two transactions a drainer could take the lane, and send the rest of a plan that somebody approved whole. A
commit whose answer was lost is not guessed at: the settle is offered again, and if it was done the first time, the lane
is asked for by the epoch that the lost claim would have given it.
"""

from __future__ import annotations

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import InfrastructureError
from syncd.outbound.lane import LaneResult
from syncd.outbound.planned_lane import LaneOnItsWay
from syncd.store import Connection, Store
from syncd.store.outbox import ClaimedLane, Terms, already_settled, renew, settle
from syncd.store.outbox_apply import Locked, Moved, claim_planned

# A lane that somebody writes to, a relation that an application holds, a database that is away: tried again so soon.
AGAIN_S = 0.1
_AGAIN = 50


class Handover:
    """One applier's claims and settles. ``Moved`` is told once nothing more of a lane may be sent."""

    def __init__(self, store: Store, account: Account, clock: Clock, terms: Terms) -> None:
        self._store = store
        self._account = account
        self._clock = clock
        self._terms = terms

    async def take(self, lane: LaneOnItsWay) -> ClaimedLane | Moved:
        """Claim what is next of a lane. Raises InfrastructureError when the database stays away."""
        doubtful: ClaimedLane | None = None
        for left in reversed(range(_AGAIN)):
            claimed: ClaimedLane | Moved | Locked | None = None
            try:
                async with self._store.begin() as connection:
                    if (ours := await self._adopt(connection, doubtful)) is not None:
                        return ours
                    claimed = await claim_planned(connection, self._account.id, self._terms, lane.sought())
                if not isinstance(claimed, Locked):
                    return claimed
            except InfrastructureError:
                doubtful = claimed if isinstance(claimed, ClaimedLane) else doubtful
                if left == 0:
                    raise
            await self._clock.sleep(AGAIN_S)
        return Moved("somebody else holds its place in the outbox")

    async def settle(self, lane: LaneOnItsWay, result: LaneResult, *, goes_on: bool) -> ClaimedLane | Moved | None:
        """Write a result down; return the next claim, None where none is wanted, Moved when the lane was taken over."""
        until = self._clock.monotonic() + self._terms.lease_s
        doubtful: ClaimedLane | None = None
        is_doubtful = False
        while self._clock.monotonic() < until:
            claimed: ClaimedLane | Moved | Locked | None = None
            try:
                async with self._store.begin_remote() as connection:
                    settled = await settle(connection, self._account.id, self._terms.worker, [result.settlement])
                    if settled.fenced:
                        is_done = is_doubtful and await already_settled(connection, [result.settlement])
                        return await self._adopt(connection, doubtful) if is_done else _TAKEN_OVER
                    if goes_on and not settled.deferred:
                        claimed = await claim_planned(connection, self._account.id, self._terms, lane.sought())
                if not settled.deferred:
                    return None if isinstance(claimed, Locked) else claimed
            except InfrastructureError:
                is_doubtful, doubtful = True, claimed if isinstance(claimed, ClaimedLane) else doubtful
            await self._clock.sleep(AGAIN_S)
        return _TAKEN_OVER

    async def _adopt(self, connection: Connection, claimed: ClaimedLane | None) -> ClaimedLane | None:
        """Take up a round if the commit that was in doubt claimed it for us."""
        if claimed is None:
            return None
        named = [(claimed.lane_id, claimed.epoch)]
        renewal = await renew(connection, self._terms.worker, named, self._terms.lease_s)
        return claimed if claimed.lane_id in renewal.renewed else None


_TAKEN_OVER = Moved("another drainer has taken it over; what came of its last call is known there", True)
