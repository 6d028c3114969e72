"""Claim exactly what was planned, or say what has moved. Nothing is changed unless the lane is taken.

One transaction, as every claim: lock the lane, read its entries after the lock, compare them and the relation with the
plan, and only then raise the epoch, set the lease and write the intent. The fold is given the plan's own time, so that
a back-off that has ended since adds no call that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import CursorResult, text

from syncd.domain.ids import AccountId
from syncd.policy.fold import Entry, Plan, fold
from syncd.policy.passing import part
from syncd.store.engine import Connection
from syncd.store.outbox_claim import ClaimedLane, Terms, look_about, read_entries, read_relations, take
from syncd.store.outbox_doubt import doubt
from syncd.store.outbox_landing import NOTHING, expect, expected
from syncd.store.outbox_overtaken import leave_out_overtaken

_WHOLE = 1_000_000_000

# Entries that are there, and the states of those that are not undelivered any more: what has moved, or None.
Compare: TypeAlias = Callable[[Sequence[Entry], Mapping[int, str]], str | None]


@dataclass(frozen=True, slots=True)
class Sought:
    """What a lane must be to be taken. ``upto`` is the last sequence number that was planned, ``reach`` the last that
    this claim folds; ``facets`` are those of the calls that are still to be sent; ``admits`` says of a fold what in it
    was not planned, or None."""

    relation_id: int | None
    remote_id: str | None
    email: str | None
    upto: int
    reach: int
    made_at: datetime
    facets: frozenset[str]
    compare: Compare
    admits: Callable[[Plan], str | None]


@dataclass(frozen=True, slots=True)
class Moved:
    """The lane is not as it was planned: one clause. ``is_taken_over``: it was ours, and what we settle is dropped."""

    reason: str
    is_taken_over: bool = False


@dataclass(frozen=True, slots=True)
class Locked:
    """Somebody writes to the lane at this moment; look again."""


# An account's own lane has no relation; "IS NOT DISTINCT FROM" would use no index for any of them.
_OF_RELATION = "account_id = :account_id AND relation_id = :relation_id"
_OF_ACCOUNT = "account_id = :account_id AND relation_id IS NULL"

_LOCK = """
    SELECT id, relation_id, epoch, tail_seq, sending_upto, claimed_by IS NOT NULL AND ready_at > now() AS is_leased,
           profile_lands_until, address_lands_until,
           now() AS now, CAST(ctid AS text) AS place
    FROM syncd.lanes WHERE {whose} FOR UPDATE SKIP LOCKED
"""

_IS_THERE = "SELECT EXISTS (SELECT FROM syncd.lanes WHERE {whose})"

_CAPTURED = "SELECT DISTINCT facet FROM syncd.captures WHERE {whose}"

_FATES = text("SELECT seq, status FROM syncd.entries WHERE lane_id = :lane_id AND seq <= :upto")


async def claim_planned(
    connection: Connection, account_id: AccountId, terms: Terms, sought: Sought
) -> ClaimedLane | Moved | Locked:
    """Take a lane if it is as it was planned."""
    lane = (await _ask(connection, _LOCK, account_id, sought)).one_or_none()
    if lane is None:
        is_there = (await _ask(connection, _IS_THERE, account_id, sought)).scalar_one()
        return Locked() if is_there else Moved("nothing of it is in the outbox")
    if lane.is_leased:
        return Moved("a drainer is sending it at this moment")
    entries = await read_entries(connection, {lane.id: 0}, _WHOLE)
    late = await doubt(connection, [lane], entries, terms.is_repeat_safe, terms.lands_s)
    await leave_out_overtaken(connection, entries)
    own = changes_alone(entries.get(lane.id, ()))
    moved = await _moved(connection, account_id, lane, own, sought)
    if isinstance(moved, Moved):
        return moved
    whole = entries.get(lane.id, [])
    within = part(whole, sum(entry.seq <= sought.reach for entry in whole))
    # As of when the plan was made: nothing that waited then is sent now, and what waits since keeps it from being sent.
    landing = expected(lane, late.get(lane.id, NOTHING), sought.made_at)
    plan = fold(changes_alone(within), terms.is_repeat_safe, sought.made_at, landing)
    reason = sought.admits(plan)
    if reason is not None:
        return Moved(reason)
    claimed = ClaimedLane(
        lane_id=lane.id,
        relation_id=lane.relation_id,
        epoch=lane.epoch + 1,
        seen_seq=sought.reach,
        entries=within,
        plan=plan,
        now=lane.now,
        remote_id=moved.remote_id,
        email=moved.email,
    )
    (claimed,) = await look_about(connection, account_id, [claimed])
    taken = await take(connection, [claimed], {lane.id: lane.place}, terms)
    await expect(connection, late)
    return taken[0] if taken else Locked()


def changes_alone(entries: Iterable[Entry]) -> list[Entry]:
    """Leave out what only says a delivered value once more: a plan is about changes, and drains see to the rest."""
    return [entry for entry in entries if not entry.is_reassertion]


@dataclass(frozen=True, slots=True)
class _Relation:
    remote_id: str | None
    email: str | None


async def _moved(
    connection: Connection, account_id: AccountId, lane: Any, entries: Sequence[Entry], sought: Sought
) -> Moved | _Relation:
    """Compare the planned entries, the relation, and what came later; return the relation when all is as planned.

    The entries come first: a delivered create is why its relation has a remote id.
    """
    relation = _Relation(None, None)
    if sought.relation_id is not None:
        found = (await read_relations(connection, [sought.relation_id])).get(sought.relation_id)
        if found is None:
            return Moved("the relation is not there any more")
        relation = _Relation(*found)
    planned = [entry for entry in entries if entry.seq <= sought.upto]
    if sought.compare(planned, {}) is not None:
        rows = await connection.execute(_FATES, {"lane_id": lane.id, "upto": sought.upto})
        reason = sought.compare(planned, {row.seq: row.status for row in rows})
        return Moved(reason or "its entries are others now")
    if relation.remote_id != sought.remote_id:
        return Moved("the relation has another remote id now")
    if relation.email != sought.email:
        return Moved("the relation has another e-mail address now")
    later = {entry.facet for entry in entries if entry.seq > sought.upto}
    later.update((await _ask(connection, _CAPTURED, account_id, sought)).scalars())
    again = sorted(later & sought.facets)
    return Moved(f"{again[0]} was changed again after the plan was made") if again else relation


async def _ask(connection: Connection, statement: str, account_id: AccountId, sought: Sought) -> CursorResult[Any]:
    binds: dict[str, object] = {"account_id": account_id}
    if sought.relation_id is None:
        return await connection.execute(text(statement.format(whose=_OF_ACCOUNT)), binds)
    binds["relation_id"] = sought.relation_id
    return await connection.execute(text(statement.format(whose=_OF_RELATION)), binds)
