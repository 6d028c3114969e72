"""Intent: write down, right before it goes out, that a call which is not repeat-safe begins.

The claim writes what it is about to send, as a negative number where that is such a call: nothing has begun. Here the
number is turned. Whoever takes over a dropped lane reads from the sign whether to look at the CRM first, and perhaps to
ask a person, or simply to send. It must never be turned for a lane that is not ours any more: the epoch that a takeover
or an operator raised forbids the call itself, however late its worker wakes up.
"""

from __future__ import annotations

from sqlalchemy import text

from syncd.store.engine import Connection

# Whoever claims or settles this lane holds its row: the condition is looked at again when they are done.
_BEGIN = text(
    """
    UPDATE syncd.lanes SET sending_upto = :seq
    WHERE id = :lane_id AND epoch = :epoch AND claimed_by = :worker
    RETURNING id
    """
)


async def write_begun(connection: Connection, worker: str, lane_id: int, epoch: int, seq: int) -> bool:
    """Write down that the call of an entry begins; False when the lane is not ours any more: then it must not."""
    binds = {"worker": worker, "lane_id": lane_id, "epoch": epoch, "seq": seq}
    return (await connection.execute(_BEGIN, binds)).scalar_one_or_none() is not None
