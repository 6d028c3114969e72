"""Bind: give a relation the remote id that its create brought, in the transaction that settles the create.

The row may be in an application's hands: then the lane is deferred, because a settle that waits would hold up every
other lane of its batch. Another row of the mirror may hold that remote id already, because a pull saw the new
relation first: the two are one, and the twin is merged (``store.twins``). If the twin has changes of its own that are
not delivered, merging would lose their order: the create waits, with the reason on its lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.domain.ids import AccountId
from syncd.policy.states import EntryStatus
from syncd.store.engine import Connection
from syncd.store.outbox_results import EntrySettlement, LaneSettlement
from syncd.store.twins import TwinFate, merge_twin

# How long a create waits for its twin's own changes to be delivered.
BLOCKED_S = 15.0

_LOCK_LANES = text(
    """
    SELECT l.id, l.epoch
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:epochs AS bigint[])) AS g (lane_id, epoch)
    JOIN syncd.lanes l ON l.id = g.lane_id
    WHERE l.epoch = g.epoch AND l.claimed_by = :worker
    ORDER BY l.relation_id FOR UPDATE OF l
    """
)

_LOCK_RELATIONS = text(
    "SELECT id FROM crm.relations WHERE id = ANY (CAST(:ids AS bigint[])) ORDER BY id FOR UPDATE SKIP LOCKED"
)

_TWINS = text(
    """
    SELECT b.id, t.id AS twin_id
    FROM unnest(CAST(:ids AS bigint[]), CAST(:remote_ids AS text[])) AS b (id, remote_id)
    JOIN crm.relations t ON t.account_id = :account_id AND t.remote_id = b.remote_id AND t.id <> b.id
    """
)

_BIND = text(
    """
    WITH bound AS (
        UPDATE crm.relations r SET remote_id = b.remote_id
        FROM unnest(CAST(:ids AS bigint[]), CAST(:remote_ids AS text[]), CAST(:entry_ids AS bigint[]))
            AS b (id, remote_id, entry_id)
        WHERE r.id = b.id AND r.remote_id IS NULL
        RETURNING r.account_id, r.id, r.remote_id, b.entry_id
    )
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, entry_id, before, after)
    SELECT account_id, 'relations', id, 'update', 'remote', entry_id, '{"remote_id": null}',
           jsonb_build_object('remote_id', remote_id)
    FROM bound
    """
)

# A pull that is writing the same remote id makes the statement wait for its commit; not for long.
_PATIENCE = text("SELECT set_config('lock_timeout', '500ms', true)")
_NO_LIMIT = text("SELECT set_config('lock_timeout', :before, true)")
_LIMIT_BEFORE = text("SELECT current_setting('lock_timeout')")

_PASSING = frozenset({"23505", "55P03", "40P01"})  # unique violation, lock timeout, deadlock


@dataclass(frozen=True, slots=True)
class Bound:
    """Which lanes cannot be settled as they stand, and why."""

    fenced: frozenset[int] = frozenset()
    deferred: frozenset[int] = frozenset()
    blocked: Mapping[int, str] = field(default_factory=dict)

    def holds_back(self, lane_id: int) -> bool:
        return lane_id in self.fenced or lane_id in self.deferred

    def applied(self, settlement: LaneSettlement) -> LaneSettlement:
        """Return the settlement as it can be written: a blocked create waits instead of being delivered."""
        reason = self.blocked.get(settlement.lane_id)
        return settlement if reason is None else _waiting(settlement, reason)


async def bind(
    connection: Connection, account_id: AccountId, worker: str, settlements: Sequence[LaneSettlement]
) -> Bound:
    """Bind all remote ids of a batch whose lanes are still ours."""
    wanted = [s for s in settlements if s.bind_remote_id is not None and s.relation_id is not None]
    if not wanted:
        return Bound()
    # All of the batch, in one order: locking these first and the others later could meet a stager in a circle.
    alive = await _lock_lanes(connection, worker, settlements)
    ours = [s for s in wanted if (s.lane_id, s.epoch) in alive]
    free = await _lock_relations(connection, ours)
    fenced = frozenset(s.lane_id for s in wanted if (s.lane_id, s.epoch) not in alive)
    deferred = {s.lane_id for s in ours if s.relation_id not in free}
    blocked: dict[int, str] = {}
    before = str((await connection.execute(_LIMIT_BEFORE)).scalar_one())
    await connection.execute(_PATIENCE)
    await _bind_all(connection, account_id, [s for s in ours if s.relation_id in free], deferred, blocked)
    await connection.execute(_NO_LIMIT, {"before": before})
    return Bound(fenced, frozenset(deferred), blocked)


async def _lock_lanes(
    connection: Connection, worker: str, batch: Sequence[LaneSettlement]
) -> frozenset[tuple[int, int]]:
    binds = {"worker": worker, "lane_ids": [s.lane_id for s in batch], "epochs": [s.epoch for s in batch]}
    return frozenset((lane_id, epoch) for lane_id, epoch in (await connection.execute(_LOCK_LANES, binds)).all())


async def _lock_relations(connection: Connection, ours: Sequence[LaneSettlement]) -> frozenset[int]:
    return frozenset((await connection.execute(_LOCK_RELATIONS, {"ids": [s.relation_id for s in ours]})).scalars())


async def _bind_all(
    connection: Connection,
    account_id: AccountId,
    ours: Sequence[LaneSettlement],
    deferred: set[int],
    blocked: dict[int, str],
) -> None:
    """Bind the plain ones together; one by one what has a twin, or all of them when together did not work."""
    twins = await _twins(connection, account_id, ours)
    plain = [s for s in ours if s.relation_id not in twins]
    rest = [s for s in ours if s.relation_id in twins]
    if plain and not await _tried(connection, plain):
        rest = [*plain, *rest]
    for settlement in rest:
        fate = await _bind_one(connection, account_id, settlement)
        if fate is TwinFate.BUSY:
            deferred.add(settlement.lane_id)
        elif fate is TwinFate.UNDELIVERED:
            blocked[settlement.lane_id] = (
                "the CRM's relation is mirrored by another row too, which has changes that are not delivered; "
                "the rows are merged when those are"
            )


async def _twins(
    connection: Connection, account_id: AccountId, ours: Sequence[LaneSettlement]
) -> dict[int | None, int]:
    rows = await connection.execute(_TWINS, {"account_id": account_id, **_pairs(ours)})
    return {row.id: row.twin_id for row in rows}


async def _tried(connection: Connection, lanes: Sequence[LaneSettlement]) -> bool:
    """Bind inside a savepoint; return False when somebody else is in the way."""
    try:
        async with connection.begin_nested():
            await connection.execute(_BIND, {**_pairs(lanes), "entry_ids": [_creator(s) for s in lanes]})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _PASSING:
            raise
        return False
    return True


async def _bind_one(connection: Connection, account_id: AccountId, settlement: LaneSettlement) -> TwinFate:
    twin = (await _twins(connection, account_id, [settlement])).get(settlement.relation_id)
    fate = TwinFate.NONE
    if twin is not None and settlement.relation_id is not None:
        fate = await merge_twin(connection, keep=settlement.relation_id, drop=twin)
    if fate in (TwinFate.BUSY, TwinFate.UNDELIVERED):
        return fate
    return fate if await _tried(connection, [settlement]) else TwinFate.BUSY


def _creator(settlement: LaneSettlement) -> int | None:
    """Return the entry whose create brought the remote id."""
    return settlement.history[0][0] if settlement.history else None


def _pairs(lanes: Sequence[LaneSettlement]) -> dict[str, object]:
    return {"ids": [s.relation_id for s in lanes], "remote_ids": [s.bind_remote_id for s in lanes]}


def _waiting(settlement: LaneSettlement, reason: str) -> LaneSettlement:
    """The create was delivered but cannot be bound: it is asked again later, reading back first. What it superseded
    stays as it is, a refused create as well: its address was never the relation's."""
    delivered = [
        EntrySettlement(seq, EntryStatus.PENDING.value, False, BLOCKED_S, True, reason)
        for seq, _ in settlement.delivered
    ]
    entries = [*delivered, *(e for e in settlement.entries if e.status != EntryStatus.SUPERSEDED.value)]
    seqs = [seq for seq, _ in settlement.delivered] + [e.seq for e in settlement.entries]
    return msgspec.structs.replace(
        settlement,
        acked_seq=min(settlement.acked_seq, min(seqs) - 1),
        is_more=False,
        after_s=BLOCKED_S,
        is_failed=True,
        is_delivered=False,
        block_reason=reason,
        bind_remote_id=None,
        delivered=[],
        entries=entries,
        history=[],
        reassertions=[],
        awaiting=[],
        read_back=[],
        incidents=[],
        at_rest=[],
        contests=[],
        moved=[],
    )
