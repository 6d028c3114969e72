"""Reassert: entries that say a facet's last value once more, after a call whose first try may still land.

``append`` runs in the transaction that settles the doubtful call, under its lane's lock and epoch: either both are
written or neither. There is at most one waiting reassertion per facet; another doubt about the facet renews its wait.

``remember`` runs where a person gives a call up that may still land. That value is never said again; what is delivered
behind it inside the wait is.

``bring_up`` runs in the claim, once the wait is over: what was delivered since is laid over what the entry says, and
the entry is written so, for its payload is what was sent. If something of that cannot be read, it can say nothing.
Reading it from the deliveries themselves, and not from what somebody remembered to update, costs nothing while no
reassertion is due. One about a call that was given up says what was delivered since and nothing else: if that is
nothing, it has become moot and is settled there and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.domain.changes import LocalChange, encode_change, facet_of, operation_of, read_change
from syncd.policy.fold import Entry
from syncd.policy.reassertion import after_given_up, brought_up
from syncd.store.engine import Connection
from syncd.store.outbox_landing import Late, expect
from syncd.store.outbox_results import LaneSettlement, Reassertion

_GIVEN = """
    unnest(CAST(:lane_ids AS bigint[]), CAST(:operations AS text[]), CAST(:facets AS text[]),
           CAST(:payloads AS text[]), CAST(:reasserts AS bigint[])) AS g (lane_id, operation, facet, payload, reasserts)
"""

# Columns of profile edits add up: the entry that waits may speak of others.
_RENEW = text(
    f"""
    UPDATE syncd.entries e
    SET next_attempt_at = now() + make_interval(secs => :window_s), operation = g.operation,
        payload = CASE WHEN e.facet = 'profile'
                       THEN jsonb_build_object('old', (g.payload -> 'old') || (e.payload -> 'old'),
                                               'new', (e.payload -> 'new') || (g.payload -> 'new'))
                       ELSE g.payload END
    FROM (SELECT lane_id, operation, facet, CAST(payload AS jsonb) AS payload FROM {_GIVEN}) AS g
    WHERE e.lane_id = g.lane_id AND e.facet = g.facet AND e.status = 'pending' AND e.reasserts IS NOT NULL
    RETURNING e.lane_id, e.facet
    """
)

_APPEND = text(
    f"""
    WITH given AS MATERIALIZED (
        SELECT g.*, row_number() OVER (PARTITION BY lane_id ORDER BY reasserts, facet) AS nth,
               count(*) OVER (PARTITION BY lane_id) AS added
        FROM {_GIVEN}
    ), grown AS (
        UPDATE syncd.lanes l SET tail_seq = l.tail_seq + n.added
        FROM (SELECT DISTINCT lane_id, added FROM given) AS n
        WHERE l.id = n.lane_id
        RETURNING l.id, l.account_id, l.relation_id, l.tail_seq
    )
    INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, next_attempt_at,
                               reasserts, reason, xact, captured_at)
    SELECT l.id, l.tail_seq - g.added + g.nth, l.account_id, l.relation_id, g.operation, g.facet,
           CAST(g.payload AS jsonb), now() + make_interval(secs => :window_s), g.reasserts,
           'said once more: a first try of entry ' || g.reasserts || ' may still land', pg_current_xact_id(), now()
    FROM given g JOIN grown l ON l.id = g.lane_id
    ORDER BY l.id, g.nth
    """
)


def was_said_again(entry: str) -> str:
    """Return the condition for the row of syncd.entries that the query calls ``entry``: it was delivered and shown
    otherwise, and a reassertion, which says what was delivered last, has settled it (``policy.fold``)."""
    return f"""({entry}.status = 'superseded' AND EXISTS (
        SELECT FROM syncd.entries again WHERE again.id = {entry}.superseded_by AND again.reasserts IS NOT NULL))"""


# Superseded profile edits were part of the call that superseded them; of anything else the last one alone was sent.
_SINCE = text(
    f"""
    SELECT r.id, coalesce(d.status = 'skipped', false) AS is_given_up, e.operation, CAST(e.payload AS text) AS payload
    FROM unnest(CAST(:ids AS bigint[])) AS i (id)
    JOIN syncd.entries r ON r.id = i.id
    LEFT JOIN syncd.entries d ON d.id = r.reasserts
    LEFT JOIN syncd.entries e
      ON e.lane_id = r.lane_id AND e.facet = r.facet AND e.seq > coalesce(d.seq, r.seq) AND e.reasserts IS NULL
     AND (e.status IN ('verified', 'accepted', 'diverged') OR e.status = 'superseded' AND e.facet = 'profile'
          OR {was_said_again("e")})
    ORDER BY r.id, e.seq
    """
)

# A profile edit that was superseded counts as said (``_SINCE``): this one says nothing.
_MOOT = text(
    """
    UPDATE syncd.entries
    SET status = 'superseded', settled_at = now(), next_attempt_at = NULL,
        payload = CASE WHEN facet = 'profile' THEN '{"old": {}, "new": {}}' ELSE payload END
    WHERE id = ANY (CAST(:ids AS bigint[]))
    """
)

_SPEAK = text(
    """
    UPDATE syncd.entries e SET operation = g.operation, payload = CAST(g.payload AS jsonb)
    FROM unnest(CAST(:ids AS bigint[]), CAST(:operations AS text[]), CAST(:payloads AS text[]))
        AS g (id, operation, payload)
    WHERE e.id = g.id
    """
)


async def append(connection: Connection, lanes: Iterable[LaneSettlement]) -> None:
    """Append the reassertions of settled lanes, whose locks and epochs the caller holds."""
    wanted = {(s.lane_id, facet_of(r.change)): r for s in lanes for r in s.reassertions}
    if wanted:
        await _append(connection, wanted)


async def remember(connection: Connection, lane_id: int, given_up: LocalChange, root: int, window_s: float) -> None:
    """Let what is delivered in the next ``window_s`` behind a call that was given up in doubt be said once more.

    ``root`` is that call's entry, of the lane whose lock the caller holds. The lane expects the call for as long.
    """
    await expect(connection, {lane_id: Late.of(given_up, window_s)})
    said = after_given_up(given_up)
    if said is not None and window_s > 0:
        await _append(connection, {(lane_id, facet_of(said)): Reassertion(said, root, window_s)})


async def _append(connection: Connection, wanted: Mapping[tuple[int, str], Reassertion]) -> None:
    window_s = max(one.window_s for one in wanted.values())
    rows = (await connection.execute(_RENEW, {**_arrays(wanted), "window_s": window_s})).all()
    renewed = {(row.lane_id, row.facet) for row in rows}
    fresh = {key: one for key, one in wanted.items() if key not in renewed}
    if fresh:
        await connection.execute(_APPEND, {**_arrays(fresh), "window_s": window_s})


async def bring_up(connection: Connection, entries: Mapping[int, list[Entry]], now: datetime) -> None:
    """Let the due reassertions among claimed entries (by lane) say what their facets were delivered last."""
    due = {entry.id: entry.change for entry in _due(entries, now) if entry.change is not None}
    if not due:
        return
    later: dict[int, list[LocalChange]] = {entry_id: [] for entry_id in due}
    given_up, faults = set[int](), dict[int, str]()
    for row in await connection.execute(_SINCE, {"ids": list(due)}):
        if row.is_given_up:
            given_up.add(row.id)
        if row.operation is not None:
            change, fault = read_change(row.operation, row.payload)
            if change is None:
                faults[row.id] = f"what was delivered since cannot be said once more: {fault}"
            else:
                later[row.id].append(change)
    moot = {entry_id for entry_id in given_up if not later[entry_id] and entry_id not in faults}
    if moot:
        await connection.execute(_MOOT, {"ids": list(moot)})
    current = {
        entry_id: brought_up(later[entry_id][0] if entry_id in given_up else change, later[entry_id])
        for entry_id, change in due.items()
        if entry_id not in moot and entry_id not in faults
    }
    moved = {entry_id: change for entry_id, change in current.items() if change != due[entry_id]}
    if moved:
        await connection.execute(_SPEAK, _spoken(moved))
    for lane in entries.values():
        lane[:] = [_broken(entry, faults[entry.id]) if entry.id in faults else entry for entry in lane]
        lane[:] = [
            _saying(entry, moved[entry.id]) if entry.id in moved else entry for entry in lane if entry.id not in moot
        ]


def _due(entries: Mapping[int, list[Entry]], now: datetime) -> Iterable[Entry]:
    for lane in entries.values():
        for entry in lane:
            is_waiting = entry.next_attempt_at is not None and entry.next_attempt_at > now
            if entry.reasserts is not None and entry.status == "pending" and not is_waiting:
                yield entry


def _broken(entry: Entry, fault: str) -> Entry:
    return msgspec.structs.replace(entry, change=None, fault=fault)


def _saying(entry: Entry, change: LocalChange) -> Entry:
    return msgspec.structs.replace(entry, operation=operation_of(change), change=change)


def _spoken(changes: Mapping[int, LocalChange]) -> dict[str, Sequence[object]]:
    return {
        "ids": list(changes),
        "operations": [operation_of(change) for change in changes.values()],
        "payloads": [_payload(change) for change in changes.values()],
    }


def _arrays(wanted: Mapping[tuple[int, str], Reassertion]) -> dict[str, object]:
    return {
        "lane_ids": [lane_id for lane_id, _ in wanted],
        "facets": [facet for _, facet in wanted],
        "operations": [operation_of(one.change) for one in wanted.values()],
        "payloads": [_payload(one.change) for one in wanted.values()],
        "reasserts": [one.reasserts for one in wanted.values()],
    }


def _payload(change: LocalChange) -> str:
    """Return a change as its entry stores it: the operation has a column of its own."""
    payload = msgspec.json.decode(encode_change(change))
    payload.pop("operation", None)
    return msgspec.json.encode(payload).decode()
