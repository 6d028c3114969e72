"""Guard, at staging: does what was just staged belong to a burst that a person must see before anything of it is sent?

Asked in the transaction that stages, under the stage lock and before anybody can see the new entries, so that there is
no moment in which a part of a burst could be claimed. What is counted is what is being staged, what still lies in
captures beyond the batch, and what was staged lately. ``policy.guard`` says what a burst is; here it is found:

* A transaction above the limit is seen whole when the first of its captures is staged, because a commit is seen whole
  and no capture of it lies below where the stage began (``policy.stagemark``).
  Its number is written on the hold, and from then on every capture that carries it follows that hold without being
  counted: held while it is open, pending once it is approved, skipped once it is rejected (``outbox_stage`` does it).
* Of other changes in a crowded stretch, those held are the ones not sent yet: pending, not uncertain, and not in the
  hands of a worker. What a worker has is few (no more than the limit was staged before), and stopping it would leave
  doubt behind.

What joins the open hold of an account: the rest of its transactions, another transaction above the limit, and changes
in a crowded stretch, for as long as one goes on. Everything else is sent as ever: what was captured before, what other
transactions do beside a large one, and what comes after the burst. An account has one open hold at most.

What a person has approved is not asked about again: its transactions pass, and a burst of many transactions passes for
as long as it goes on, that is while the crowded stretch holds something of what was approved. Then the next one is
held. Looking costs one bounded count, and only when more may have changed than the limit allows (``Sightings``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident
from syncd.policy.guard import Change, Guard, crowded, too_large
from syncd.store.engine import Connection
from syncd.store.outbox_hold import (
    MAY_BE_HELD,
    add_transactions,
    find_open,
    hold_entries,
    open_hold,
    pass_entries,
    tell_of,
)

# Transactions of a stager may begin in another order than they stage in, by moments.
SLACK = timedelta(seconds=5)
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


class Staged(msgspec.Struct, frozen=True):
    """What one stage moved for one account. ``judged`` of them belong to no hold yet; the ids are its entries."""

    account_id: AccountId
    moved: int
    judged: int
    first_at: datetime | None
    last_at: datetime | None
    first_id: int
    last_id: int
    guard: Guard | None


class _Seen(msgspec.Struct):
    guard: Guard
    limit: int
    relations: int
    since: datetime
    last_id: int


@dataclass(slots=True)
class Sightings:
    """What a stager remembers so as not to count at every stage: at most how many relations changed lately.

    An entry is at most one more relation, and entry numbers tell how many entries others staged meanwhile. It can only
    be too high: then it is counted anew. ``news`` are the incidents that were opened, for whoever tells people.
    """

    seen: dict[AccountId, _Seen] = field(default_factory=dict)
    news: list[Incident] = field(default_factory=list)

    def may_be_crowded(self, staged: Staged, since: datetime) -> bool:
        seen = self.seen.get(staged.account_id)
        if seen is None or seen.guard != staged.guard or since < seen.since:
            return True
        seen.relations += staged.judged + max(0, staged.first_id - 1 - seen.last_id)
        seen.last_id = max(seen.last_id, staged.last_id)
        return seen.relations > seen.limit

    def note(self, staged: Staged, guard: Guard, limit: int, relations: int, since: datetime) -> None:
        self.seen[staged.account_id] = _Seen(guard, limit, relations, since, staged.last_id)


# Whoever keeps it may say so anew at any time. Whoever does not must leave alone what another one keeps. Until when it
# is kept stands there as soon as anybody has set one, and be that none.
_SET = text(
    """
    UPDATE syncd.account_states
    SET limits = (limits - 'guard' - 'guard_kept_until')
                 || CASE WHEN CAST(:guard AS text) IS NULL THEN '{}'
                         ELSE jsonb_build_object('guard', CAST(CAST(:guard AS text) AS jsonb)) END
                 || jsonb_build_object('guard_kept_until',
                                       CASE WHEN :kept_s > 0 THEN extract(epoch FROM now()) + :kept_s ELSE 0 END)
    WHERE account_id = :account_id
      AND (:kept_s > 0
           OR (coalesce(CAST(limits ->> 'guard_kept_until' AS double precision), 0) < extract(epoch FROM now())
               AND (limits -> 'guard' IS DISTINCT FROM CAST(CAST(:guard AS text) AS jsonb)
                    OR NOT limits ? 'guard_kept_until')))
    """
)
_SET_FIRST = text(
    """
    UPDATE syncd.account_states SET limits = limits || jsonb_build_object('guard', CAST(CAST(:guard AS text) AS jsonb))
    WHERE account_id = :account_id AND NOT limits ?| ARRAY['guard', 'guard_kept_until']
    """
)
_GET = text("SELECT CAST(limits -> 'guard' AS text) FROM syncd.account_states WHERE account_id = :account_id")

# By doubling steps to an entry that was staged before: there is no index by time, and none is worth its cost here.
BOTTOM = text(
    """
    WITH RECURSIVE back (id, step, at) AS (
        SELECT CAST(:last_id AS bigint), CAST(512 AS bigint), now()
        UNION ALL
        SELECT b.id - b.step, b.step * 2,
               (SELECT e.staged_at FROM syncd.entries e WHERE e.id <= b.id - b.step ORDER BY e.id DESC LIMIT 1)
        FROM back b WHERE b.at > CAST(:since AS timestamptz)
    )
    SELECT min(id) FROM back
    """
)

# Re-asserted entries are our own; a transaction that a hold names was judged by itself.
EVENTS = """
    WITH known AS MATERIALIZED (
        SELECT DISTINCT member.xact FROM syncd.holds h CROSS JOIN LATERAL unnest(h.xacts) AS member (xact)
        WHERE h.account_id = :account_id AND (h.status = 'open' OR h.decided_at > now() - interval '1 day')
    ), events AS (
        SELECT e.id, e.relation_id, e.xact, e.captured_at AS at
        FROM syncd.entries e
        WHERE e.id > :bottom AND e.id <= :last_id AND e.account_id = :account_id AND e.captured_at > :since
          AND e.captured_at <= :until AND e.relation_id IS NOT NULL AND e.reasserts IS NULL
          AND NOT EXISTS (SELECT FROM known k WHERE k.xact = e.xact)
        UNION ALL
        SELECT NULL, c.relation_id, c.xact, c.captured_at
        FROM syncd.captures c
        WHERE NOT CAST(:is_all AS boolean) AND c.id >= :capture_id AND c.account_id = :account_id
          AND c.captured_at > :since AND c.captured_at <= :until AND c.relation_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM known k WHERE k.xact = c.xact)
    )
"""

_COUNT = text(EVENTS + "SELECT count(DISTINCT relation_id) FROM events")
_TRANSACTIONS = text(
    EVENTS
    + """SELECT CAST(xact AS text) AS xact, count(DISTINCT relation_id) AS relations
         FROM events GROUP BY events.xact HAVING count(DISTINCT relation_id) > :limit"""
)
_CHANGES = text(
    EVENTS
    + """SELECT id, relation_id, at FROM events
         WHERE xact <> ALL (CAST(CAST(:sent AS text[]) AS xid8[])) ORDER BY at, id"""
)

# What was sent before its guard was lowered is no reason to ask anybody.
_WAITING = text(
    f"SELECT EXISTS (SELECT FROM syncd.entries e WHERE e.id = ANY (CAST(:ids AS bigint[])) AND {MAY_BE_HELD})"
)
_WAITING_TRANSACTIONS = text(
    f"""
    SELECT x.xact FROM unnest(CAST(:xacts AS text[])) AS x (xact)
    WHERE EXISTS (SELECT FROM syncd.entries e
                  WHERE e.id > :bottom AND e.id <= :last_id AND e.account_id = :account_id
                    AND e.xact = CAST(x.xact AS xid8) AND {MAY_BE_HELD})
       OR EXISTS (SELECT FROM syncd.captures c WHERE c.account_id = :account_id AND c.xact = CAST(x.xact AS xid8))
    """
)

# A large transaction's changes of no relation (a new field) are part of it too.
_MEMBERS = text(
    """
    SELECT e.id FROM syncd.entries e JOIN syncd.holds h ON e.xact = ANY (h.xacts) AND h.account_id = e.account_id
    WHERE h.id = :hold_id AND e.id > :bottom AND e.id <= :last_id
    """
)

_RELATIONS = text(
    """
    SELECT count(*) FROM (
        SELECT FROM crm.relations WHERE account_id = :account_id AND missing_since IS NULL LIMIT :enough
    ) AS found
    """
)

APPROVED = text(
    """
    SELECT max(e.hold_id) FROM syncd.entries e JOIN syncd.holds h ON h.id = e.hold_id
    WHERE e.id = ANY (CAST(:ids AS bigint[])) AND h.status = 'approved'
    """
)


async def set_guard(
    connection: Connection, account_id: AccountId, guard: Guard | None, *, kept_s: float = 0.0
) -> Guard | None:
    """Set an account's guard, for whoever stages its changes (None: no guard); return the one that is in force.

    A daemon keeps the account's guard, and says so again before ``kept_s`` are over. What another process would set
    meanwhile does not count: it may have been started from a shell that knows nothing of the daemon's settings.
    """
    await connection.execute(_SET, {"account_id": account_id, "guard": _stored(guard), "kept_s": kept_s})
    return read_guard((await connection.execute(_GET, {"account_id": account_id})).scalar_one_or_none())


async def set_first_guard(connection: Connection, account_id: AccountId, guard: Guard | None) -> None:
    """Set an account's guard if nobody has set any: until it is drained itself, others stage what it captures."""
    if guard is not None:
        await connection.execute(_SET_FIRST, {"account_id": account_id, "guard": _stored(guard)})


def _stored(guard: Guard | None) -> str | None:
    return None if guard is None else msgspec.json.encode(guard).decode()


def read_guard(stored: str | None) -> Guard | None:
    """Read a guard as it is stored. One that a later version wrote in other words is taken as the default."""
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored, type=Guard)
    except msgspec.DecodeError:
        return Guard()


async def relations_of(connection: Connection, account_id: AccountId, guard: Guard) -> int:
    """Count an account's relations, no further than matters to its guard."""
    binds = {"account_id": account_id, "enough": guard.enough}
    return int((await connection.execute(_RELATIONS, binds)).scalar_one())


def transaction_words(relations: int) -> str:
    """Say why a transaction is held."""
    return f"{relations} relations changed in one transaction"


def crowd_words(limit: int, guard: Guard) -> str:
    """Say why a crowded stretch is held."""
    return f"more than {limit} relations changed within {guard.window_s:g} s"


async def guard_staged(
    connection: Connection, batch: Sequence[Staged], sightings: Sightings, *, unread: int | None
) -> None:
    """Hold what of a batch belongs to a burst. ``unread``: from which id on captures may hold more (None: none)."""
    for staged in batch:
        guard = staged.guard
        if guard is not None and staged.first_at is not None and staged.last_at is not None:
            since, until = staged.first_at - guard.window, staged.last_at + guard.window
            if sightings.may_be_crowded(staged, since) or unread is not None:
                # A tenth earlier: the next stage may begin with an edit that was made a moment before this one's.
                span = _Span(staged, guard, since - guard.window / 10, until, unread)
                await _judge(connection, span, sightings)


@dataclass(frozen=True, slots=True)
class _Span:
    """What is looked at: the edits made between two instants that may lie in one stretch with the batch's."""

    staged: Staged
    guard: Guard
    since: datetime
    until: datetime
    unread: int | None

    def binds(self, bottom: int) -> dict[str, object]:
        return {
            "account_id": self.staged.account_id,
            "last_id": self.staged.last_id,
            "bottom": bottom,
            "since": self.since,
            "until": self.until,
            "is_all": self.unread is None,
            "capture_id": self.unread or 0,
        }


async def _judge(connection: Connection, span: _Span, sightings: Sightings) -> None:
    account_id, guard = span.staged.account_id, span.guard
    before = {"last_id": span.staged.last_id, "since": span.since - SLACK}
    binds = span.binds((await connection.execute(BOTTOM, before)).scalar_one())
    limit, relations = guard.least, await _count(connection, binds)
    if relations > limit and guard.enough:
        limit = guard.limit(await relations_of(connection, account_id, guard))
    if relations > limit:
        sent = await _hold_transactions(connection, account_id, binds, limit, sightings)
        await _hold_crowded(connection, span, {**binds, "sent": sent}, limit, sightings)
        relations = await _count(connection, binds)
    sightings.note(span.staged, guard, limit, relations, span.since)


async def _count(connection: Connection, binds: dict[str, object]) -> int:
    """Count without a later end: what is remembered must cover all that the next look may be about."""
    return int((await connection.execute(_COUNT, {**binds, "until": _NEVER})).scalar_one())


async def _hold_transactions(
    connection: Connection, account_id: AccountId, binds: dict[str, object], limit: int, sightings: Sightings
) -> list[str]:
    """Hold what waits of transactions above the limit; return those of which nothing does."""
    rows = (await connection.execute(_TRANSACTIONS, {**binds, "limit": limit})).all()
    large = too_large({row.xact: row.relations for row in rows}, limit)
    waiting = {"account_id": account_id, "xacts": list(large), "bottom": binds["bottom"], "last_id": binds["last_id"]}
    xacts = (await connection.execute(_WAITING_TRANSACTIONS, waiting)).scalars().all() if large else ()
    sent = [xact for xact in large if xact not in xacts]
    if not xacts:
        return sent
    most = max(row.relations for row in rows if row.xact in xacts)
    hold_id = await find_open(connection, account_id)
    if hold_id is None:
        hold_id = await open_hold(connection, account_id, transaction_words(most))
    await add_transactions(connection, hold_id, xacts)
    members = {"hold_id": hold_id, "bottom": binds["bottom"], "last_id": binds["last_id"]}
    await hold_entries(connection, hold_id, (await connection.execute(_MEMBERS, members)).scalars().all())
    sightings.news.extend(await tell_of(connection, account_id, hold_id))
    return sent


async def _hold_crowded(
    connection: Connection, span: _Span, binds: dict[str, object], limit: int, sightings: Sightings
) -> None:
    """Hold what is crowded, or let it pass when it goes on from what was approved."""
    account_id, guard = span.staged.account_id, span.guard
    rows = (await connection.execute(_CHANGES, binds)).all()
    found = crowded([Change(row.id, row.relation_id, row.at) for row in rows], guard.window, limit)
    ids = [change.id for change in found if change.id is not None]
    if not ids:
        return
    hold_id = await find_open(connection, account_id)
    if hold_id is not None:
        await hold_entries(connection, hold_id, ids)
        return
    approved = (await connection.execute(APPROVED, {"ids": ids})).scalar_one()
    if approved is not None:
        await pass_entries(connection, approved, [id_ for id_ in ids if id_ >= span.staged.first_id])
        return
    if not (await connection.execute(_WAITING, {"ids": ids})).scalar_one():
        return
    hold_id = await open_hold(connection, account_id, crowd_words(limit, guard))
    await hold_entries(connection, hold_id, ids)
    sightings.news.extend(await tell_of(connection, account_id, hold_id))
