"""The backlog: how much is not delivered, and of that what goes out by itself and what waits for a person.

A command ends by this count: it says "try again later" where time alone helps, and "failed" where only a person can.
Which entries get past one that waits for a person is for the fold to say, and for nobody else: told once more in SQL it
came out otherwise. So a lane that holds both is played to its end (``policy.standstill``), and so are lanes that take
addresses which others leave, with those others. All other lanes are counted where they lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.fold import Entry, RepeatSafe
from syncd.policy.standstill import standstill
from syncd.policy.states import EntryStatus
from syncd.store.engine import Connection
from syncd.store.outbox_address import find_awaited
from syncd.store.outbox_claim import read_entries
from syncd.store.outbox_leaving import all_takers
from syncd.store.outbox_overtaken import leave_out_overtaken


@dataclass(frozen=True, slots=True)
class Backlog:
    """Undelivered entries of an account; ``pending`` includes captures that are not staged yet. ``blocked`` wait for a
    person, or behind one that does. ``reasserting`` are delivered values that will be said once more: neither."""

    pending: int
    blocked: int
    reasserting: int = 0

    def __add__(self, other: Backlog) -> Backlog:
        return Backlog(self.pending + other.pending, self.blocked + other.blocked, self.reasserting + other.reasserting)


# Lanes in which nothing waits for a person, or everything does, are counted as they are; the others are named. One that
# is shown otherwise is not counted here, but an older change of its facet may wait for it.
_BY_LANE = text(
    """
    WITH lane AS (
        SELECT lane_id, count(*) FILTER (WHERE status = 'pending' AND reasserts IS NULL) AS pending,
               count(*) FILTER (WHERE status = 'pending' AND reasserts IS NOT NULL) AS reasserting,
               count(*) FILTER (WHERE status NOT IN ('pending', 'diverged')) AS blocked,
               bool_and(status = 'pending') AS is_free
        FROM syncd.entries
        WHERE account_id = :account_id AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')
        GROUP BY lane_id
    ), told AS (
        SELECT *, (pending > 0 AND NOT is_free) OR lane_id = ANY (CAST(:entangled AS bigint[])) AS is_played FROM lane
    )
    SELECT coalesce(sum(pending) FILTER (WHERE NOT is_played), 0) AS pending,
           coalesce(sum(blocked) FILTER (WHERE NOT is_played), 0) AS blocked,
           coalesce(sum(reasserting) FILTER (WHERE NOT is_played), 0) AS reasserting,
           array_agg(lane_id) FILTER (WHERE is_played) AS played
    FROM told
    """
)
_CAPTURED = text("SELECT count(*) FROM syncd.captures WHERE account_id = :account_id")

_WHOLE = 1_000_000_000
_BATCH = 500


async def count_backlog(connection: Connection, account_id: AccountId, is_repeat_safe: RepeatSafe) -> Backlog:
    """Count what an account has not delivered. What somebody is sending at this moment is pending."""
    entangled, awaited = await _entangled(connection, account_id)
    total = _count(entangled, awaited, is_repeat_safe)
    row = (await connection.execute(_BY_LANE, {"account_id": account_id, "entangled": list(entangled)})).one()
    captured = (await connection.execute(_CAPTURED, {"account_id": account_id})).scalar_one()
    total += Backlog(int(row.pending) + captured, int(row.blocked), int(row.reasserting))
    alone = [lane_id for lane_id in row.played or () if lane_id not in entangled]
    for start in range(0, len(alone), _BATCH):
        total += _count(await _read(connection, alone[start : start + _BATCH]), {}, is_repeat_safe)
    return total


async def _entangled(
    connection: Connection, account_id: AccountId
) -> tuple[dict[int, list[Entry]], dict[int, list[int]]]:
    """Return the lanes that take addresses which others leave, those others, and by entry for whom it waits."""
    lanes: dict[int, list[Entry]] = {}
    awaited: dict[int, list[int]] = {}
    to_read = await all_takers(connection, account_id)
    while to_read:
        found = await _read(connection, to_read)
        lanes |= {lane_id: found.get(lane_id, []) for lane_id in to_read}
        to_read = set()
        for waiting in await find_awaited(connection, found.values()):
            awaited.setdefault(waiting.taker, []).append(waiting.awaits)
            to_read |= {waiting.lane_id} - lanes.keys()
    return lanes, awaited


async def _read(connection: Connection, lane_ids: Iterable[int]) -> dict[int, list[Entry]]:
    """Return all that these lanes have not delivered, as a claim would fold it."""
    lanes = await read_entries(connection, dict.fromkeys(lane_ids, 0), _WHOLE)
    await leave_out_overtaken(connection, lanes)
    return lanes


def _count(
    lanes: Mapping[int, Sequence[Entry]], awaited: Mapping[int, Sequence[int]], is_repeat_safe: RepeatSafe
) -> Backlog:
    """Play these lanes to their end and count."""
    left = standstill(lanes, awaited, is_repeat_safe)
    stuck = {entry.id for entries in left.values() for entry in entries}
    pending = blocked = reasserting = 0
    for entry in (entry for entries in lanes.values() for entry in entries):
        if entry.status != EntryStatus.PENDING:
            blocked += entry.status != EntryStatus.DIVERGED
        elif entry.is_reassertion:
            reasserting += 1
        else:
            pending += entry.id not in stuck
            blocked += entry.id in stuck
    return Backlog(pending, blocked, reasserting)
