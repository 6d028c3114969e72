"""Lease: prolong what a worker holds, and find out what became of a commit whose answer never came.

A lease is the database's to give: it is prolonged from the database's now, for lanes that are still ours by epoch and
name. It governs *sending* alone. What was sent may be settled as long as the epoch stands, however late.

A commit whose connection dies is in doubt: it happened, it did not, or it is happening now. Nothing is guessed. Who
claimed asks for a prolongation of exactly those lanes at exactly those epochs, and has them if it gets it. Who settled
settles again; a lane that refuses is read, and says whether the first settle was what moved it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from syncd.store.by_index import plan_by_index
from syncd.store.engine import Connection
from syncd.store.outbox_results import LaneSettlement

# A lane that somebody has locked at this moment is neither prolonged nor given up: it is asked for again.
_RENEW = text(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[])) AS g (lane_id, epoch)
    ), ours AS MATERIALIZED (
        SELECT l.id FROM given g JOIN syncd.lanes l ON l.id = g.lane_id
        WHERE l.epoch = g.epoch AND l.claimed_by = :worker
        FOR UPDATE OF l SKIP LOCKED
    ), renewed AS (
        UPDATE syncd.lanes l SET ready_at = now() + make_interval(secs => :lease_s)
        FROM ours WHERE l.id = ours.id
        RETURNING l.id
    )
    SELECT g.lane_id, r.id IS NOT NULL AS is_renewed, coalesce(l.epoch < g.epoch, false) AS is_unclaimed,
           coalesce(l.epoch = g.epoch AND l.claimed_by = :worker, false) AS is_ours
    FROM given g LEFT JOIN renewed r ON r.id = g.lane_id LEFT JOIN syncd.lanes l ON l.id = g.lane_id
    """
)

# A claim is ended by the settle of its epoch and by nothing else: taking a lane over and every operator's verb raise
# the epoch. A lane that was claimed again since still has the attempts of that epoch.
_DONE = text(
    """
    SELECT g.lane_id
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[]), CAST(:entry_ids AS bigint[]))
        AS g (lane_id, epoch, entry_id)
    JOIN syncd.lanes l ON l.id = g.lane_id
    WHERE (l.epoch = g.epoch AND l.claimed_by IS NULL)
       OR (l.epoch > g.epoch AND EXISTS (SELECT FROM syncd.attempts a
                                         WHERE a.entry_id = g.entry_id AND a.lane_id = g.lane_id AND a.epoch = g.epoch))
    """
)


@dataclass(frozen=True, slots=True)
class Renewal:
    """``renewed`` lanes are ours for another lease; ``lost`` ones are not ours. Of all others nothing is known now.

    Of the lost ones, ``unclaimed`` never came to the epoch asked for: that claim is not there, or not there yet.
    """

    renewed: frozenset[int]
    lost: frozenset[int]
    unclaimed: frozenset[int]


async def renew(connection: Connection, worker: str, lanes: Sequence[tuple[int, int]], lease_s: float) -> Renewal:
    """Prolong the leases of lanes, given as (lane id, epoch)."""
    lane_ids, epochs = [lane_id for lane_id, _ in lanes], [epoch for _, epoch in lanes]
    binds = {"worker": worker, "lane_ids": lane_ids, "epochs": epochs, "lease_s": lease_s}
    await plan_by_index(connection)
    rows = (await connection.execute(_RENEW, binds)).all()
    lost = [row for row in rows if not row.is_renewed and not row.is_ours]
    return Renewal(
        frozenset(row.lane_id for row in rows if row.is_renewed),
        frozenset(row.lane_id for row in lost),
        frozenset(row.lane_id for row in lost if row.is_unclaimed),
    )


async def already_settled(connection: Connection, settlements: Sequence[LaneSettlement]) -> frozenset[int]:
    """Return which lanes were settled by an earlier try of these settlements, whose commit was in doubt."""
    binds = {
        "lane_ids": [s.lane_id for s in settlements],
        "epochs": [s.epoch for s in settlements],
        "entry_ids": [s.attempts[0].entry_id if s.attempts else None for s in settlements],
    }
    await plan_by_index(connection)
    return frozenset((await connection.execute(_DONE, binds)).scalars())
