"""Operate: what a person may do to an entry while the daemon runs. Nothing here can break order.

Both verbs lock the lane first. If a worker holds it, the epoch is raised: what that worker brings back is dropped,
and the lane is looked at when its lease ends, with the intent still written on it, so that a call which may have gone
out is read back and not repeated. A lane that nobody holds is woken at once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from syncd.domain.errors import UserError
from syncd.policy.states import EntryStatus, may_move
from syncd.store.engine import Connection

_FIND = text("SELECT lane_id FROM syncd.entries WHERE id = :entry_id")
_LOCK = text("SELECT id FROM syncd.lanes WHERE id = :lane_id FOR UPDATE")
_READ = text("SELECT id, lane_id, seq, facet, status FROM syncd.entries WHERE id = :entry_id")

# Two profile edits undo each other in the columns that both name, and nowhere else. What was folded into a delivered
# profile edit was delivered with it.
_LATER = text(
    """
    SELECT later.id
    FROM syncd.entries this
    JOIN syncd.entries later ON later.lane_id = this.lane_id AND later.facet = this.facet AND later.seq > this.seq
    WHERE this.id = :entry_id
      AND CASE WHEN this.facet = 'profile'
               THEN later.status IN ('verified', 'accepted', 'diverged', 'superseded')
                    AND jsonb_exists_any(later.payload -> 'new', ARRAY(SELECT jsonb_object_keys(this.payload -> 'new')))
               ELSE later.status IN ('verified', 'accepted', 'diverged') END
    ORDER BY later.seq LIMIT 1
    """
)

_RETRY = text(
    """
    UPDATE syncd.entries
    SET status = 'pending', attempts = 0, next_attempt_at = NULL, settled_at = NULL,
        is_uncertain = NOT :as_new AND (is_uncertain OR status = 'parked')
    WHERE id = :entry_id
    """
)

_SKIP = text(
    """
    UPDATE syncd.entries SET status = 'skipped', settled_at = now(), reason = coalesce(:reason, reason)
    WHERE id = :entry_id
    """
)

_WAKE = text(
    """
    UPDATE syncd.lanes
    SET epoch = epoch + CASE WHEN claimed_by IS NULL THEN 0 ELSE 1 END,
        ready_at = CASE WHEN claimed_by IS NULL THEN now() ELSE ready_at END,
        failures = 0, block_reason = NULL
    WHERE id = :lane_id
    """
)


async def retry_entry(connection: Connection, entry_id: int, *, as_new: bool = False) -> None:
    """Send a dead, parked or diverged entry again, with a fresh budget.

    A call that may have been applied is read back before it is repeated, and parked again if that cannot tell;
    ``as_new`` says that a person has looked: it was not applied, send it.

    Raises UserError when there is nothing to retry, or when a later change of the same facet was delivered already:
    sending the older value after it would undo it.
    """
    entry = await _lock(connection, entry_id)
    if not may_move(EntryStatus(entry.status), EntryStatus.PENDING):
        raise UserError(f"entry {entry_id} is {entry.status}; only dead, parked, diverged and held ones can be retried")
    later = (await connection.execute(_LATER, {"entry_id": entry_id})).scalar_one_or_none()
    if later is not None:
        raise UserError(
            f"entry {entry_id} cannot be retried: entry {later} changed {entry.facet} after it and was delivered; "
            "skip this one, or edit the row again"
        )
    await connection.execute(_RETRY, {"entry_id": entry_id, "as_new": as_new})
    await connection.execute(_WAKE, {"lane_id": entry.lane_id})


async def skip_entry(connection: Connection, entry_id: int, *, reason: str | None = None) -> None:
    """Give up an entry that is not delivered; what waits behind it goes on. Raises UserError when it is settled."""
    entry = await _lock(connection, entry_id)
    if not may_move(EntryStatus(entry.status), EntryStatus.SKIPPED):
        raise UserError(f"entry {entry_id} is {entry.status} already; there is nothing to skip")
    await connection.execute(_SKIP, {"entry_id": entry_id, "reason": reason})
    await connection.execute(_WAKE, {"lane_id": entry.lane_id})


async def _lock(connection: Connection, entry_id: int) -> Any:
    """Lock the entry's lane, then read the entry: it cannot change from here on."""
    lane_id = (await connection.execute(_FIND, {"entry_id": entry_id})).scalar_one_or_none()
    if lane_id is None:
        raise UserError(f"there is no entry {entry_id}; `syncd outbox list` shows what there is")
    await connection.execute(_LOCK, {"lane_id": lane_id})
    return (await connection.execute(_READ, {"entry_id": entry_id})).one()
