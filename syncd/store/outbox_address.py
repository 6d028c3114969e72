"""Address: what takes an address waits until the relation that had it before has given it up in the CRM.

The CRM finds a relation by its e-mail address. Locally one relation may leave an address and another may take it a
moment later; these are two lanes, and each is in order by itself alone. Were the second sent first, the CRM would find
the first relation under the address and write the one's data over the other's. So a create, or a change to an address,
**waits** for every older change away from it that is not delivered, also for one that waits for a person. Whoever
settles or gives up such a change wakes those that wait; one that is missed looks again by itself.

A change away that was given up, or that the CRM answered with "no such relation", is waited for no longer, unless a
later one of its lane is on its way. But nobody knows whether the address is free: as long as nothing was delivered
after it, its relation is one of the **others**, and what the CRM has under the address must be none of them
(``providers.contract.Target``). So it is, too, where a relation without a remote id is to be found by its address. The
others are known for as long as the given-up change is kept (``outbox_prune``): by then pulls have shown who is who.

Only older changes are waited for, so that lanes wait in a circle only where a refused change is to be superseded by a
later one of its lane, which waits itself. ``syncd plan`` shows each with what it waits for; an address for either
relation that nobody has ends it (``policy.fold``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import text

from syncd.domain.changes import IDENTITY
from syncd.domain.ids import AccountId
from syncd.policy.fold import Entry
from syncd.policy.passing import is_to_be_told, told
from syncd.policy.states import EntryStatus
from syncd.store.engine import Connection
from syncd.store.outbox_leaving import TAKES, leavers_of, pairs
from syncd.store.refusal import was_refused


class Awaited(NamedTuple):
    """An entry, and one that it waits for, of another lane."""

    taker: int
    awaits: int
    lane_id: int


# A later change that was delivered has given the relation another address, whatever became of this one.
_HAS_MOVED_ON = """
    EXISTS (SELECT FROM syncd.entries d
            WHERE d.lane_id = l.lane_id AND d.seq > l.seq AND d.facet = 'identity' AND d.reasserts IS NULL
              AND d.status IN ('verified', 'accepted'))
"""

# What became of the changes that were found. One that is still to be delivered is waited for. One that is over (given
# up, or answered by "not found") is not, but the last of its lane that came after it and before the taker is. "Not
# found" is not believed on its word: it only means that the CRM is asked.
_FATES = text(
    f"""
    SELECT p.taker, coalesce(awaited.captured_id, awaited.id, CASE WHEN p.leaver < 0 THEN p.leaver END) AS awaits,
           CASE WHEN l.is_over THEN r.remote_id END AS other,
           CASE WHEN awaited.status <> 'pending' OR (k.claimed_by IS NULL AND k.ready_at IS NULL)
                THEN statement_timestamp() + make_interval(secs => :asleep_s)
                WHEN k.claimed_by IS NULL AND k.ready_at > statement_timestamp()
                THEN LEAST(k.ready_at, statement_timestamp() + make_interval(secs => :asleep_s)) + :soon
                ELSE statement_timestamp() + :soon END AS until, l.lane_id
    FROM unnest(CAST(:takers AS bigint[]), CAST(:leavers AS bigint[])) AS p (taker, leaver)
    LEFT JOIN LATERAL (
        SELECT e.id, e.lane_id, e.seq, e.status, e.relation_id,
               e.status = 'skipped' OR (e.status = 'dead' AND coalesce((
                   SELECT a.status_code = 404 FROM syncd.attempts a WHERE a.entry_id = e.id ORDER BY a.id DESC LIMIT 1
               ), false)) AS is_over
        FROM syncd.entries e WHERE e.id = p.leaver
    ) AS l ON true
    LEFT JOIN crm.relations r ON r.id = l.relation_id
    LEFT JOIN LATERAL (
        SELECT l.id, l.status, CAST(NULL AS bigint) AS captured_id WHERE NOT l.is_over
        UNION ALL
        (SELECT NULL, 'pending', -c.id FROM syncd.captures c
         WHERE l.is_over AND c.relation_id = l.relation_id AND c.operation = 'change_email' AND c.id < -p.taker
         ORDER BY c.id DESC LIMIT 1)
        UNION ALL
        (SELECT m.id, m.status, NULL FROM syncd.entries m
         WHERE l.is_over AND m.lane_id = l.lane_id AND m.seq > l.seq AND (p.taker < 0 OR m.id < p.taker)
           AND m.operation = 'change_email' AND m.reasserts IS NULL
           AND m.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
         ORDER BY m.seq DESC LIMIT 1)
        ORDER BY captured_id LIMIT 1
    ) AS awaited ON true
    LEFT JOIN syncd.lanes k ON k.id = l.lane_id
    WHERE NOT {_HAS_MOVED_ON}
    """
)

_OTHERS = text(
    f"""
    SELECT l.id, r.remote_id
    FROM syncd.entries l JOIN crm.relations r ON r.id = l.relation_id
    WHERE l.id = ANY (CAST(:ids AS bigint[])) AND r.remote_id IS NOT NULL AND NOT {_HAS_MOVED_ON}
    """
)

_MOVES = text(
    f"""
    SELECT g.lane_id, bool_or(e.status = 'pending') AS moves_on,
           bool_or(e.is_uncertain AND NOT {was_refused("e")}) AS has_moved_on
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:lasts AS bigint[])) AS g (lane_id, last)
    JOIN syncd.entries e ON e.lane_id = g.lane_id AND e.seq > g.last
    WHERE e.operation = 'change_email' AND e.status IN ('pending', 'dead', 'parked') AND e.reasserts IS NULL
    GROUP BY g.lane_id
    """
)

# Waited for is an entry for the address that it leaves itself, and for those that were given up leaving before it. A
# lane is looked up from its newest version down, as the claim does it, and written where it was locked.
_WAITING = text(
    f"""
    SELECT k.id, k.place
    FROM (
        SELECT DISTINCT t.lane_id
        FROM unnest(CAST(:ids AS bigint[])) AS gone (id)
        JOIN syncd.entries g ON g.id = gone.id AND g.operation = 'change_email'
        CROSS JOIN LATERAL (
            SELECT lower(g.payload ->> 'old') AS address
            UNION
            SELECT lower(s.payload ->> 'old') FROM syncd.entries s
            WHERE s.lane_id = g.lane_id AND s.seq < g.seq AND s.operation = 'change_email'
              AND s.status IN ('skipped', 'dead')
        ) AS l
        CROSS JOIN LATERAL (
            SELECT w.lane_id FROM syncd.entries w
            WHERE w.facet = 'identity' AND w.status = 'pending' AND w.account_id = g.account_id
              AND {TAKES} = l.address OFFSET 0
        ) AS t
        WHERE t.lane_id <> g.lane_id
    ) AS waiting
    CROSS JOIN LATERAL (
        SELECT id, CAST(ctid AS text) AS place FROM syncd.lanes
        WHERE id BETWEEN waiting.lane_id AND waiting.lane_id
          AND claimed_by IS NULL AND (ready_at IS NULL OR ready_at > clock_timestamp())
        ORDER BY id DESC LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS k
    """
)
_WAKE = text(
    """
    UPDATE syncd.lanes l SET ready_at = clock_timestamp()
    FROM unnest(CAST(CAST(:places AS text[]) AS tid[]), CAST(:lane_ids AS bigint[])) AS w (place, id)
    WHERE l.ctid = w.place AND l.id = w.id
    """
)

# Whoever waits is woken. Should that be missed, because somebody has the lane locked at that moment, it is looked at
# again soon after the other lane may have been sent; what waits for a person can be in no such hurry.
_SOON = timedelta(seconds=2)
_ASLEEP_S = 120.0


async def note_addresses(connection: Connection, lanes: Collection[list[Entry]], *, are_captured: bool = False) -> None:
    """Note in each entry that takes an address for which entry of another lane it waits, and whose it may still be.
    Few entries do.

    ``are_captured``: these are not staged yet, and have the negative numbers of their captures.
    """
    if found := await _fates(connection, lanes, are_captured=are_captured):
        noted = _noted(found)
        for trail in lanes:
            trail[:] = [msgspec.structs.replace(entry, **noted.get(entry.id, {})) for entry in trail]


async def find_awaited(connection: Connection, lanes: Collection[Sequence[Entry]]) -> list[Awaited]:
    """Return every entry that these staged ones wait for."""
    found = await _fates(connection, lanes)
    return [Awaited(row.taker, row.awaits, row.lane_id) for row in found if row.awaits is not None]


async def find_others(
    connection: Connection, account_id: AccountId, addresses: Mapping[int, Sequence[str]]
) -> dict[int, list[str]]:
    """Return by lane the remote ids of relations that left one of these addresses (lower case), by a change that is not
    delivered or was given up: found by the address, it is they who are found."""
    if not addresses:
        return {}
    left = await leavers_of(connection, account_id, {address for theirs in addresses.values() for address in theirs})
    ids = {leaver.id for leavers in left.values() for leaver in leavers}
    if not ids:
        return {}
    remote_ids = dict(tuple(row) for row in await connection.execute(_OTHERS, {"ids": list(ids)}))
    found = {
        lane_id: {
            remote_ids[leaver.id]
            for address in theirs
            for leaver in left.get(address, ())
            if leaver.lane_id != lane_id and leaver.id in remote_ids
        }
        for lane_id, theirs in addresses.items()
    }
    return {lane_id: sorted(others) for lane_id, others in found.items() if others}


async def tell_of_moves(connection: Connection, entries: Mapping[int, list[Entry]], window: int) -> None:
    """Tell the e-mail changes of lanes that were read in part, as far as the ``window``, what stands behind
    (``policy.passing``). Few lanes are so long, and few of those begin with such a change."""
    lasts = {id_: read[-1].seq for id_, read in entries.items() if len(read) >= window and is_to_be_told(read)}
    if lasts:
        found = await connection.execute(_MOVES, {"lane_ids": list(lasts), "lasts": list(lasts.values())})
        for lane_id, moves_on, has_moved_on in found:
            entries[lane_id][:] = told(entries[lane_id], moves_on=moves_on, has_moved_on=has_moved_on)


async def wake_takers(connection: Connection, ids: Collection[int]) -> None:
    """Look at once at the lanes that wait for one of these entries, which are on their way no more.

    A lane that somebody has locked at this moment looks again by itself: to wait for it here could be to wait in a
    circle.
    """
    if not ids:
        return
    waiting = (await connection.execute(_WAITING, {"ids": list(ids)})).all()
    if waiting:
        lane_ids, places = (list(column) for column in zip(*waiting, strict=True))
        await connection.execute(_WAKE, {"lane_ids": lane_ids, "places": places})


async def _fates(
    connection: Connection, lanes: Collection[Sequence[Entry]], *, are_captured: bool = False
) -> Sequence[Any]:
    """Return what became of the changes away from addresses that these entries take."""
    ids = [entry.id for trail in lanes for entry in trail if _may_take(entry)]
    found = await pairs(connection, ids, are_captured=are_captured) if ids else []
    if not found:
        return []
    takers, left = (list(column) for column in zip(*found, strict=True))
    binds = {"takers": takers, "leavers": left, "soon": _SOON, "asleep_s": _ASLEEP_S}
    return (await connection.execute(_FATES, binds)).all()


def _may_take(entry: Entry) -> bool:
    return entry.facet == IDENTITY and entry.status == EntryStatus.PENDING and not entry.is_reassertion


def _noted(rows: Iterable[Any]) -> Mapping[int, Mapping[str, Any]]:
    """Gather by taker: it waits for the last of several, a captured one (negative) being later than any."""
    last: dict[int, tuple[int | None, datetime | None]] = {}
    others: dict[int, set[str]] = {}
    for taker, awaits, other, until, _lane_id in rows:
        before, _ = last.setdefault(taker, (None, None))
        others.setdefault(taker, set()).update([other] if other else [])
        if awaits is not None and (before is None or _place(awaits) > _place(before)):
            last[taker] = (awaits, until)
    return {
        taker: {"awaits": awaits, "awaits_until": until, "others": tuple(sorted(others[taker]))}
        for taker, (awaits, until) in last.items()
    }


def _place(entry_id: int) -> tuple[bool, int]:
    return entry_id < 0, abs(entry_id)
