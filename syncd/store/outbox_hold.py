"""Holds: put entries behind a person's decision, and carry that decision out.

A held entry keeps its place in its lane: what comes later in its facet waits behind it, and an identity change that is
held stops its lane, so that neither holding nor releasing can put two changes of one facet in another order.

**Decide** takes the stage lock, so that no stager is adding to the hold at that moment: what is staged after it follows
the decision by itself. The verdict, who gave it and why are written first; the entries follow in batches of lanes, each
lane whole. A crash in between leaves a decided hold with held entries: ``carry_out`` goes on from there, called again
by the same command or by the daemon, and never asks again.

A lane that a worker holds is fenced when something in it becomes sendable, exactly as ``outbox_operate`` does it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from sqlalchemy import text

from syncd.domain.errors import UserError
from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.policy.states import HoldStatus
from syncd.store.decisions import Decision, record
from syncd.store.engine import Connection, Store
from syncd.store.incidents import close_incidents, open_incidents
from syncd.store.outbox_address import wake_takers
from syncd.store.outbox_summary import count_members

_FIND = text("SELECT id FROM syncd.holds WHERE account_id = :account_id AND status = 'open'")
_OPEN = text("INSERT INTO syncd.holds (account_id, reason) VALUES (:account_id, :reason) RETURNING id")
_ADD = text("UPDATE syncd.holds SET xacts = xacts || CAST(CAST(:xacts AS text[]) AS xid8[]) WHERE id = :hold_id")

# In the order in which settle locks them. Whoever holds a lane now is claiming or settling it: its entries are in hand.
_LOCK = text(
    """
    SELECT l.id FROM syncd.lanes l
    WHERE l.id IN (SELECT e.lane_id FROM syncd.entries e WHERE e.id = ANY (CAST(:ids AS bigint[])))
    ORDER BY l.relation_id FOR UPDATE SKIP LOCKED
    """
)

# Of an entry that may be held: nothing of it was tried, and no hold has asked about it.
MAY_BE_HELD = """
    e.status = 'pending' AND e.attempts = 0 AND NOT e.is_uncertain AND e.hold_id IS NULL AND e.reasserts IS NULL
"""

# Joined, not "= ANY (array)": that compares every entry with every lane. What a worker has in hand is not held, also
# where its call has not begun (a negative intent): it could begin at any moment.
_HOLD = text(
    f"""
    UPDATE syncd.entries e SET status = 'held', hold_id = :hold_id
    FROM unnest(CAST(:ids AS bigint[])) AS g (id), unnest(CAST(:lane_ids AS bigint[])) AS m (id), syncd.lanes l
    WHERE e.id = g.id AND l.id = e.lane_id AND m.id = l.id
      AND {MAY_BE_HELD}
      AND (l.sending_upto IS NULL OR e.seq > abs(l.sending_upto))
    """
)

# Under the lanes' locks nothing can become pending unseen, so asking whether an entry exists is safe here.
_SLEEP = text(
    """
    UPDATE syncd.lanes l SET ready_at = NULL
    WHERE l.id = ANY (CAST(:lane_ids AS bigint[])) AND l.claimed_by IS NULL
      AND NOT EXISTS (SELECT FROM syncd.entries e WHERE e.lane_id = l.id AND e.status = 'pending')
    """
)

_PASS = text(
    """
    UPDATE syncd.entries SET hold_id = :hold_id
    WHERE id = ANY (CAST(:ids AS bigint[])) AND status = 'pending' AND hold_id IS NULL
    """
)

_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('syncd.stage', 0))")
_READ = text(
    "SELECT id, account_id, status, cardinality(xacts) AS transactions FROM syncd.holds WHERE id = :hold_id FOR UPDATE"
)
_READ_STATUS = text("SELECT status, reason FROM syncd.holds WHERE id = :hold_id")
_DECIDE = text("UPDATE syncd.holds SET status = :status, decided_at = now() WHERE id = :hold_id")

_UNFINISHED = text(
    """
    SELECT id FROM syncd.holds WHERE account_id = :account_id AND status <> 'open' AND finished_at IS NULL ORDER BY id
    """
)
_FINISH = text("UPDATE syncd.holds SET finished_at = now() WHERE id = :hold_id AND finished_at IS NULL")

_WAITING = text(
    "SELECT DISTINCT lane_id FROM syncd.entries WHERE hold_id = :hold_id AND status = 'held' ORDER BY lane_id"
)
_LOCK_LANES = text(
    "SELECT id FROM syncd.lanes WHERE id = ANY (CAST(:lane_ids AS bigint[])) ORDER BY relation_id FOR UPDATE"
)
# Lane by lane, whatever the planner believes: a burst is larger than its statistics are new. The hold's own index would
# be read whole for each lane; the coalesce keeps the planner from it.
_HELD = text(
    """
    SELECT h.id, h.lane_id, h.facet
    FROM unnest(CAST(:lane_ids AS bigint[])) AS g (id)
    CROSS JOIN LATERAL (
        SELECT e.id, e.lane_id, e.facet FROM syncd.entries e
        WHERE e.lane_id = g.id AND e.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
          AND e.status = 'held' AND coalesce(e.hold_id, 0) = :hold_id OFFSET 0
    ) AS h
    """
)
_APPROVE = text(
    "UPDATE syncd.entries SET status = 'pending', next_attempt_at = NULL WHERE id = ANY (CAST(:ids AS bigint[]))"
)
_REJECT = text(
    """
    UPDATE syncd.entries
    SET status = 'skipped', settled_at = now(), error = 'rejected together with its mass change'
    WHERE id = ANY (CAST(:ids AS bigint[]))
    """
)
# Woken is a lane in which a pending entry was released or stood behind what was held; a worker on it is fenced, because
# its end would put the lane to sleep. Every other lane is left alone, with its cursor where it belongs.
_WAKE = text(
    """
    WITH moved AS (
        SELECT * FROM unnest(CAST(:moved_lanes AS bigint[]), CAST(:facets AS text[])) AS m (lane_id, facet)
    ), lanes AS (
        SELECT g.id, w.first_seq, w.is_due
        FROM unnest(CAST(:lane_ids AS bigint[])) AS g (id)
        CROSS JOIN LATERAL (
            SELECT min(e.seq) AS first_seq,
                   coalesce(bool_or(e.status = 'pending' AND (
                       (e.lane_id, e.facet) IN (SELECT lane_id, facet FROM moved)
                       OR e.lane_id IN (SELECT lane_id FROM moved WHERE facet = 'identity'))), false) AS is_due
            FROM syncd.entries e
            WHERE e.lane_id = g.id AND e.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
              AND e.status IN ('pending', 'held')
        ) AS w
    )
    UPDATE syncd.lanes l
    SET epoch = l.epoch + CASE WHEN w.is_due AND l.claimed_by IS NOT NULL THEN 1 ELSE 0 END,
        ready_at = CASE WHEN w.is_due AND l.claimed_by IS NULL THEN clock_timestamp() ELSE l.ready_at END,
        acked_seq = GREATEST(l.acked_seq, coalesce(w.first_seq - 1, l.tail_seq))
    FROM lanes w WHERE l.id = w.id
    """
)


async def find_open(connection: Connection, account_id: AccountId) -> int | None:
    """Return the account's open hold."""
    found = await connection.execute(_FIND, {"account_id": account_id})
    return found.scalar_one_or_none()


async def open_hold(connection: Connection, account_id: AccountId, reason: str) -> int:
    """Open a hold. Call under the stage lock, when the account has none."""
    return int((await connection.execute(_OPEN, {"account_id": account_id, "reason": reason})).scalar_one())


async def add_transactions(connection: Connection, hold_id: int, xacts: Sequence[str]) -> None:
    """Make transactions part of a hold, with all that is still to be staged of them."""
    await connection.execute(_ADD, {"hold_id": hold_id, "xacts": list(xacts)})


async def hold_entries(connection: Connection, hold_id: int, ids: Sequence[int]) -> None:
    """Hold those of some entries that are not sent, not in a worker's hands and not released before."""
    lane_ids = (await connection.execute(_LOCK, {"ids": list(ids)})).scalars().all()
    await connection.execute(_HOLD, {"hold_id": hold_id, "ids": list(ids), "lane_ids": lane_ids})
    await connection.execute(_SLEEP, {"lane_ids": lane_ids})


async def pass_entries(connection: Connection, hold_id: int, ids: Sequence[int]) -> None:
    """Write down that entries are sent because an approved hold goes on."""
    await connection.execute(_PASS, {"hold_id": hold_id, "ids": list(ids)})


async def tell_of(connection: Connection, account_id: AccountId, hold_id: int) -> tuple[Incident, ...]:
    """Open or renew the incident of a hold; return it if it is news."""
    reason = (await connection.execute(_READ_STATUS, {"hold_id": hold_id})).one().reason
    members = await count_members(connection, hold_id)
    what = ", ".join(f"{operation} {changes}" for operation, changes in members.operations.items())
    incident = Incident(
        IncidentKind.MASS_CHANGE,
        subject_of(hold_id),
        f"{reason} (so far {what}, about {members.relations}); nothing of it is sent before syncd outbox approve"
        f" {hold_id}",
        {"hold": hold_id, "relations": members.relations, "operations": members.operations},
    )
    return await open_incidents(connection, account_id, [incident])


def subject_of(hold_id: int) -> str:
    """Return what the incident of a hold is about."""
    return f"hold:{hold_id}"


async def decide(
    connection: Connection,
    hold_id: int,
    status: HoldStatus,
    actor: str,
    reason: str | None = None,
    *,
    transactions: int | None = None,
) -> bool:
    """Approve or reject an open hold; return False if the same was decided before, so that it need only be finished.

    The entries follow by ``carry_out``. ``transactions`` is how many whole ones the person was shown. Raises UserError
    when there is no such hold, when the other thing was decided, or when another transaction joined unseen.
    """
    await connection.execute(_ALONE)
    hold = (await connection.execute(_READ, {"hold_id": hold_id})).one_or_none()
    if hold is None:
        raise UserError(f"there is no hold {hold_id}; `syncd outbox holds` shows what there is")
    if hold.status == status.value:
        return False
    if hold.status != HoldStatus.OPEN.value:
        raise UserError(f"hold {hold_id} is {hold.status} already")
    if transactions is not None and transactions != hold.transactions:
        raise UserError(f"hold {hold_id} has grown by another large transaction since it was shown; look again")
    account_id = AccountId(hold.account_id)
    await connection.execute(_DECIDE, {"hold_id": hold_id, "status": status.value})
    verb = "approve" if status is HoldStatus.APPROVED else "reject"
    await record(connection, Decision(account_id, verb, actor, reason, hold_id=hold_id))
    await close_incidents(connection, account_id, IncidentKind.MASS_CHANGE, [subject_of(hold_id)])
    return True


async def unfinished(connection: Connection, account_id: AccountId) -> tuple[int, ...]:
    """Return the decided holds of an account whose entries have not all followed yet."""
    return tuple((await connection.execute(_UNFINISHED, {"account_id": account_id})).scalars())


async def carry_out(store: Store, hold_id: int, *, most: int = 1000) -> AsyncGenerator[int, None]:
    """Release or skip what a decided hold holds; yields how many entries followed after each batch of lanes.

    Each batch is a transaction of its own; whoever is stopped in between, or stops, is followed by a later call.
    """
    async with store.begin() as connection:
        status = (await connection.execute(_READ_STATUS, {"hold_id": hold_id})).one().status
        lane_ids = (await connection.execute(_WAITING, {"hold_id": hold_id})).scalars().all()
    if status == HoldStatus.OPEN.value:
        raise UserError(f"hold {hold_id} is not decided")
    for first in range(0, len(lane_ids), most):
        async with store.begin() as connection:
            moved = await _follow(connection, hold_id, HoldStatus(status), lane_ids[first : first + most])
        yield moved
    async with store.begin() as connection:
        await connection.execute(_FINISH, {"hold_id": hold_id})


async def _follow(connection: Connection, hold_id: int, status: HoldStatus, lane_ids: Sequence[int]) -> int:
    await connection.execute(_LOCK_LANES, {"lane_ids": lane_ids})
    held = (await connection.execute(_HELD, {"hold_id": hold_id, "lane_ids": lane_ids})).all()
    verdict = _APPROVE if status is HoldStatus.APPROVED else _REJECT
    await connection.execute(verdict, {"ids": [entry.id for entry in held]})
    facets = {"moved_lanes": [entry.lane_id for entry in held], "facets": [entry.facet for entry in held]}
    await connection.execute(_WAKE, {"lane_ids": lane_ids, **facets})
    if status is HoldStatus.REJECTED:
        await wake_takers(connection, [entry.id for entry in held])
    return len(held)
