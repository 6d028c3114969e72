"""Intents: ask, right before a call that is not repeat-safe goes out, whether it may begin.

The database is told first (``store.outbox_intent``), in a statement of its own. If it does not say yes, nothing is
sent: either the lane is somebody else's by now, or the commit is in doubt. A commit in doubt counts as begun for
whoever takes over, and as not begun for us; we have sent nothing, and the settle that gives the lane back says so.
"""

from __future__ import annotations

from syncd.domain.errors import SyncdError
from syncd.log import get
from syncd.outbound.leases import Lease
from syncd.store import Store
from syncd.store.outbox import write_begun

log = get("syncd.outbound")


class Intents:
    """One worker's word to the database about what it begins."""

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._worker = worker

    async def begin(self, lease: Lease, seq: int) -> bool:
        """Tell whether the call of the lane's entry ``seq`` may go out now; from then on it counts as begun."""
        lane = lease.lane
        try:
            async with self._store.at_once() as connection:
                is_ours = await write_begun(connection, self._worker, lane.lane_id, lane.epoch, seq)
        except SyncdError as error:
            log.warning("intent.not_written", lane=lane.lane_id, reason=str(error))
            return False
        except Exception as error:  # the boundary: what the database has against it is no fault of the change
            log.error("intent.failed", lane=lane.lane_id, exc_info=error)
            return False
        if not is_ours and not lease.is_lost:
            lease.is_lost = True
            log.warning("lease.lost", lanes=1)
        return is_ours
