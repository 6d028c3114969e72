"""Claim: take ready lanes, fold what they hold, and write down what is about to be sent.

One transaction: lock lanes that are due (whoever holds one is skipped, never waited for), read their entries *after*
the lock and with a snapshot of its own, fold, raise the epoch, set the lease and record the intent. Reading entries
in the locking statement would be wrong: it may return a lane as another worker just left it beside entries as they
were before, and deliver them twice.

A lane whose last claim left its intent behind was dropped in mid-sending: what may have been sent is marked before
anybody sends again (``outbox_doubt``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.changes import ChangeEmail, CreateRelation, read_change
from syncd.domain.ids import AccountId
from syncd.policy.fold import Entry, Plan, RepeatSafe, fold, watermark
from syncd.policy.lowwater import WHOLE, Mark
from syncd.policy.rounds import WIDER
from syncd.store import outbox_reassert
from syncd.store.engine import Connection
from syncd.store.outbox_address import find_others, note_addresses, tell_of_moves
from syncd.store.outbox_doubt import doubt, marked
from syncd.store.outbox_landing import NOTHING, Late, expect, expected
from syncd.store.outbox_overtaken import leave_out_overtaken
from syncd.store.outbox_standing import stood
from syncd.store.refusal import was_refused


class ClaimedLane(msgspec.Struct, frozen=True):
    """One lane under our lease. ``seen_seq`` is the tail that ``entries`` reach; the relation is as read with them.

    ``now`` is the database's time of the claim: back-offs and ages are measured by it. ``stood_at`` is set where a list
    call is to be read back before which the relation may have stood so already (``outbox_standing``). ``others`` are
    not this relation, though the CRM may have them under an address by which it is to be found (``outbox_address``).
    """

    lane_id: int
    relation_id: int | None
    epoch: int
    seen_seq: int
    entries: tuple[Entry, ...]
    plan: Plan
    now: datetime
    remote_id: str | None = None
    email: str | None = None
    stood_at: datetime | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """``lanes`` are ours to send; ``looked`` counts all that were due, those with nothing to send now included."""

    lanes: tuple[ClaimedLane, ...]
    looked: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Who claims and for how long; ``window`` is the most entries of one lane that one claim reads.

    ``start`` is where to read from (``policy.lowwater``). What a dropped claim may have sent may land for ``lands_s``.
    """

    worker: str
    lease_s: float
    window: int
    is_repeat_safe: RepeatSafe
    start: Mark = WHOLE
    lands_s: float = 0.0


# The statement's time, not the transaction's: what was staged a moment ago in this transaction is due. The lane itself
# must say the same time: it may have been taken since the one that was found. It is looked up from its newest version
# down (BETWEEN and an order, where "=" would do): as long as anybody's transaction stays open its index leads to all
# its versions, the oldest first, and all but the newest are dead.
_DUE = text(
    """
    SELECT l.*, statement_timestamp() AS now
    FROM (SELECT lane_id, ready_at FROM syncd.ready
          WHERE account_id = :account_id AND ready_at >= :ready_at AND ready_at <= statement_timestamp()
          ORDER BY ready_at OFFSET 0) AS r
    CROSS JOIN LATERAL (
        SELECT id, relation_id, epoch, tail_seq, acked_seq, sending_upto, profile_lands_until, address_lands_until,
               CAST(ctid AS text) AS place
        FROM syncd.lanes
        WHERE id BETWEEN r.lane_id AND r.lane_id AND ready_at = r.ready_at
        ORDER BY id DESC LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS l
    LIMIT :most
    """
)

# A lane's cursor (0: its start) divides what it left behind from what is still to come: each half is read by an
# index in which little is that was delivered in between (``migrations/sql/outbox_005.sql``).
_ENTRIES = text(
    f"""
    SELECT l.id AS lane_id, e.id, e.seq, e.operation, e.facet, e.status, e.attempts, e.next_attempt_at, e.is_uncertain,
           e.captured_at, CAST(e.payload AS text) AS payload,
           {was_refused("e")} AS is_refused, e.reasserts
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:acked AS bigint[])) AS l (id, acked_seq)
    CROSS JOIN LATERAL (
        (SELECT * FROM syncd.entries
         WHERE lane_id = l.id AND seq <= l.acked_seq
           AND (status IN ('dead', 'parked', 'diverged') OR (is_reopened AND status IN ('pending', 'held')))
         ORDER BY seq LIMIT :window)
        UNION ALL
        (SELECT * FROM syncd.entries
         WHERE lane_id = l.id AND seq > l.acked_seq AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')
         ORDER BY seq LIMIT :window)
        ORDER BY seq LIMIT :window
    ) AS e
    """
)

_RELATIONS = text("SELECT id, remote_id, email FROM crm.relations WHERE id = ANY (CAST(:ids AS bigint[]))")

_TAKE = text(
    """
    UPDATE syncd.lanes l
    SET epoch = l.epoch + 1, ready_at = now() + make_interval(secs => :lease_s), claimed_by = :worker,
        sending_upto = c.sending_upto
    FROM unnest(CAST(CAST(:places AS text[]) AS tid[]), CAST(:lane_ids AS bigint[]), CAST(:intents AS bigint[]))
        AS c (place, id, sending_upto)
    WHERE l.ctid = c.place AND l.id = c.id
    RETURNING l.id
    """
)

# A lane that is taken over from somebody must not look as if that one had settled it: its epoch goes up.
_LEAVE = text(
    """
    UPDATE syncd.lanes l
    SET ready_at = CASE WHEN c.ready_at < clock_timestamp() THEN clock_timestamp() ELSE c.ready_at END,
        acked_seq = GREATEST(l.acked_seq, c.acked_seq), sending_upto = NULL, claimed_by = NULL,
        epoch = l.epoch + CASE WHEN l.claimed_by IS NULL THEN 0 ELSE 1 END
    FROM unnest(CAST(CAST(:places AS text[]) AS tid[]), CAST(:lane_ids AS bigint[]), CAST(:ready AS timestamptz[]),
                CAST(:acked AS bigint[])) AS c (place, id, ready_at, acked_seq)
    WHERE l.ctid = c.place AND l.id = c.id
    """
)


async def claim(connection: Connection, account_id: AccountId, terms: Terms, *, most: int) -> Claim:
    """Take up to ``most`` due lanes of an account, each with its plan.

    The transaction has been planned by index (``by_index``): ``stage`` comes first in it and does that without a
    statement of its own; who claims without staging asks for it.
    """
    due = (
        await connection.execute(_DUE, {"account_id": account_id, "ready_at": terms.start.ready_at, "most": most})
    ).all()
    if not due:
        return Claim((), 0)
    now: datetime = due[0].now
    entries = await read_entries(connection, {lane.id: lane.acked_seq for lane in due}, terms.window)
    late = await _doubt(connection, due, entries, terms)
    await _note(connection, entries, now, terms.window)
    plans = {lane.id: _plan(lane, entries.get(lane.id, ()), terms, late) for lane in due}
    windows = await _widen(connection, due, entries, plans, terms, late)
    relations = await read_relations(connection, (lane.relation_id for lane in due))
    lanes = tuple(_claimed(lane, entries.get(lane.id, []), plans[lane.id], windows, relations) for lane in due)
    places = {lane.id: lane.place for lane in due}
    found = await look_about(connection, account_id, [lane for lane in lanes if not lane.plan.is_idle])
    taken = await take(connection, found, places, terms)
    await _leave(connection, [lane for lane in lanes if lane.plan.is_idle], places)
    await expect(connection, late)  # last: it moves the lanes from their places
    return Claim(taken, len(lanes))


async def read_entries(connection: Connection, cursors: Mapping[int, int], window: int) -> dict[int, list[Entry]]:
    """Return the first ``window`` undelivered entries of each lane that has any, in order.

    ``cursors`` says of each lane what it has passed (``acked_seq``) if it is locked; 0 finds all as well.
    """
    asked = {"lane_ids": list(cursors), "acked": list(cursors.values()), "window": window}
    rows = await connection.execute(_ENTRIES, asked)
    entries: dict[int, list[Entry]] = {}
    lane_id = None
    for (
        lane,
        id_,
        seq,
        operation,
        facet,
        status,
        attempts,
        next_at,
        uncertain,
        captured_at,
        payload,
        refused,
        reasserts,
    ) in rows.all():
        if lane != lane_id:
            lane_id = lane
            trail = entries.setdefault(lane, [])
        change, fault = read_change(operation, payload)
        trail.append(
            Entry(
                id_,
                seq,
                operation,
                facet,
                status,
                attempts,
                next_at,
                uncertain,
                captured_at,
                change,
                fault,
                refused,
                reasserts,
            )
        )
    await note_addresses(connection, entries.values())
    return entries


async def _doubt(
    connection: Connection, due: Sequence[Any], entries: dict[int, list[Entry]], terms: Terms
) -> dict[int, Late]:
    """Mark what dropped claims may have sent, as far as their intents reach: one that had widened its window may have
    sent what stands beyond this one, and its intent is overwritten here."""
    reached, window = dict(entries), terms.window
    while short := [lane for lane in due if _is_short(lane, reached.get(lane.id, ()), window)]:
        window *= WIDER
        reached |= await read_entries(connection, {lane.id: lane.acked_seq for lane in short}, window)
    late = await doubt(connection, due, reached, terms.is_repeat_safe, terms.lands_s)
    for lane_id, read in entries.items():
        if reached[lane_id] is not read:
            read[:] = marked(read, (entry for entry in reached[lane_id] if entry.is_uncertain))
    return late


async def _note(connection: Connection, entries: dict[int, list[Entry]], now: datetime, window: int) -> None:
    """Note in entries, once their doubt is written down, what else counts for their plan and does not stand in them."""
    await outbox_reassert.bring_up(connection, entries, now)
    await leave_out_overtaken(connection, entries)
    await tell_of_moves(connection, entries, window)


def _is_short(lane: Any, read: Sequence[Entry], window: int) -> bool:
    return len(read) >= window and read[-1].seq < (lane.sending_upto or 0)


def _plan(lane: Any, entries: Sequence[Entry], terms: Terms, late: Mapping[int, Late]) -> Plan:
    return fold(entries, terms.is_repeat_safe, lane.now, expected(lane, late.get(lane.id, NOTHING), lane.now))


async def _widen(
    connection: Connection,
    due: Sequence[Any],
    entries: dict[int, list[Entry]],
    plans: dict[int, Plan],
    terms: Terms,
    late: Mapping[int, Late],
) -> dict[int, bool]:
    """Read further where a window held nothing to send; return which lanes go on beyond what was read.

    A lane that waits as a whole is not read further: it may be long, and every change of it wakes it. What is found is
    cut to one window again, or the lane would keep its worker for as long as it is long.
    """
    window, now, lanes = terms.window, due[0].now, {lane.id: lane for lane in due}
    cut = {lane_id for lane_id, read in entries.items() if len(read) >= terms.window}
    narrow = _to_widen(cut, plans)
    while narrow:
        window *= WIDER
        cursors = {lane.id: lane.acked_seq for lane in due if lane.id in narrow}
        wider = await read_entries(connection, cursors, window)
        await _note(connection, wider, now, window)
        for lane_id, read in wider.items():
            entries[lane_id], plans[lane_id] = read, _plan(lanes[lane_id], read, terms, late)
            if len(read) < window:
                cut.discard(lane_id)
            if len(plans[lane_id].steps) > terms.window:
                last = plans[lane_id].steps[terms.window - 1].carrier.seq
                entries[lane_id] = [entry for entry in read if entry.seq <= last]
                plans[lane_id] = _plan(lanes[lane_id], entries[lane_id], terms, late)
                cut.add(lane_id)
        narrow = _to_widen([lane_id for lane_id in narrow if lane_id in cut], plans)
    return {lane.id: lane.id in cut for lane in due}


def _to_widen(lane_ids: Iterable[int], plans: dict[int, Plan]) -> list[int]:
    return [lane_id for lane_id in lane_ids if plans[lane_id].is_idle and not plans[lane_id].is_barred]


async def read_relations(connection: Connection, ids: Iterable[int | None]) -> dict[int, tuple[str | None, str | None]]:
    """Return remote id and e-mail address of each relation that is there."""
    wanted = [id_ for id_ in ids if id_ is not None]
    if not wanted:
        return {}
    rows = await connection.execute(_RELATIONS, {"ids": wanted})
    return {id_: (remote_id, email) for id_, remote_id, email in rows.all()}


def _claimed(
    lane: Any,
    entries: list[Entry],
    plan: Plan,
    cut: dict[int, bool],
    relations: dict[int, tuple[str | None, str | None]],
) -> ClaimedLane:
    remote_id, email = relations.get(lane.relation_id, (None, None))
    seen_seq = entries[-1].seq if cut[lane.id] else lane.tail_seq
    return ClaimedLane(
        lane.id, lane.relation_id, lane.epoch + 1, seen_seq, tuple(entries), plan, lane.now, remote_id, email
    )


async def look_about(
    connection: Connection, account_id: AccountId, lanes: Sequence[ClaimedLane]
) -> tuple[ClaimedLane, ...]:
    """Add what was known before a call in doubt was begun, and who else may have the address by which a relation is to
    be found; few lanes are about to need either."""
    doubtful_ids = {
        lane.lane_id: lane.plan.steps[0].carrier.id
        for lane in lanes
        if lane.plan.steps and lane.plan.steps[0].is_once and lane.plan.steps[0].carrier.is_uncertain
    }
    found = await stood(connection, list(doubtful_ids.values()))
    sought = {lane.lane_id: addresses for lane in lanes if (addresses := _sought_by(lane))}
    others = await find_others(connection, account_id, sought)
    if not (found or others):
        return tuple(lanes)
    replace = msgspec.structs.replace
    return tuple(
        replace(lane, stood_at=found.get(doubtful_ids.get(lane.lane_id, 0)), others=tuple(others.get(lane.lane_id, ())))
        for lane in lanes
    )


def _sought_by(lane: ClaimedLane) -> list[str]:
    """Return the addresses by which a relation without a remote id is looked for; a create looks for nobody."""
    first = lane.plan.steps[0].change if lane.plan.steps else None
    if lane.remote_id is not None or first is None or isinstance(first, CreateRelation):
        return []
    old = first.old if isinstance(first, ChangeEmail) else None
    return [address.lower() for address in (lane.email, old) if address]


async def take(
    connection: Connection, lanes: Sequence[ClaimedLane], places: Mapping[int, str], terms: Terms
) -> tuple[ClaimedLane, ...]:
    """Make locked lanes ours: epoch up, lease set, intent written; return them.

    ``places`` says where each was locked: it stays there for as long as this transaction does not write it, and need
    not be looked up again. A lane that is not there is not taken, and must not be sent.
    """
    if not lanes:
        return ()
    binds = {
        "places": [places[lane.lane_id] for lane in lanes],
        "lane_ids": [lane.lane_id for lane in lanes],
        "intents": [lane.plan.sending_upto for lane in lanes],
        "lease_s": terms.lease_s,
        "worker": terms.worker,
    }
    ours = frozenset((await connection.execute(_TAKE, binds)).scalars())
    return tuple(lane for lane in lanes if lane.lane_id in ours)


async def _leave(connection: Connection, lanes: Sequence[ClaimedLane], places: Mapping[int, str]) -> None:
    """Put lanes with nothing to send to sleep: until a back-off ends, or until something wakes them."""
    if lanes:
        await connection.execute(
            _LEAVE,
            {
                "places": [places[lane.lane_id] for lane in lanes],
                "lane_ids": [lane.lane_id for lane in lanes],
                "ready": [lane.plan.next_at for lane in lanes],
                "acked": [watermark(lane.entries, frozenset(), lane.seen_seq) for lane in lanes],
            },
        )
