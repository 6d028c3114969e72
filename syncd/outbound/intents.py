"""Intents: ask, right before a call goes out that leaves nothing to find out afterwards, whether it may begin.

Two kinds do: a call that is not repeat-safe, and one that overwrites what the CRM's people wrote. If the answer to that
one is lost, whoever sends it again finds our own value in the CRM, and theirs nowhere.

The database is told first (``store.outbox_intent``, ``store.outbox_contest``), in a transaction of its own. If it does
not say yes, nothing is sent: either the lane is somebody else's by now, or the commit is in doubt. A commit in doubt
counts as begun for whoever takes over, and as not begun for us; we have sent nothing, and the settle that gives the
lane back says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from syncd.clock import Clock
from syncd.domain.errors import SyncdError
from syncd.log import get
from syncd.outbound.leases import Lease
from syncd.store import Connection, Store
from syncd.store.outbox import Contest, write_begun, write_contests

log = get("syncd.outbound")

# The lane is ready again at once when nothing was sent: a statement that fails each time must not run in a circle.
_REST_S = 1.0


class Intents:
    """One worker's word to the database about what it begins."""

    def __init__(self, store: Store, worker: str, clock: Clock) -> None:
        self._store = store
        self._worker = worker
        self._clock = clock

    async def begin(self, lease: Lease, seq: int) -> bool:
        """Tell whether the call of the lane's entry ``seq`` may go out now; from then on it counts as begun."""
        lane = lease.lane
        return await self._told(
            lease,
            self._store.at_once(),
            lambda connection: write_begun(connection, self._worker, lane.lane_id, lane.epoch, seq),
        )

    async def overwrite(self, lease: Lease, contests: Sequence[Contest]) -> bool:
        """Tell whether a call that overwrites these fields may go out now; from then on each is a conflict's."""
        lane = lease.lane
        return await self._told(
            lease,
            self._store.begin(),
            lambda connection: write_contests(connection, self._worker, lane.lane_id, lane.epoch, contests),
        )

    async def _told(
        self,
        lease: Lease,
        opened: AbstractAsyncContextManager[Connection],
        write: Callable[[Connection], Awaitable[bool]],
    ) -> bool:
        try:
            async with opened as connection:
                is_ours = await write(connection)
        except SyncdError as error:
            log.warning("intent.not_written", lane=lease.lane.lane_id, reason=str(error))
            return False
        except Exception as error:  # the boundary: what the database has against it is no fault of the change
            log.error("intent.failed", lane=lease.lane.lane_id, exc_info=error)
            await self._clock.sleep(_REST_S)
            return False
        if not is_ours and not lease.is_lost:
            lease.is_lost = True
            log.warning("lease.lost", lanes=1)
        return is_ours
