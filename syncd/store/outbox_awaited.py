"""Awaited: delivered changes that a read of the CRM may verify, found by what the read is about.

An entry awaits proof while ``prove_until`` is set: it was accepted, or it diverged (a later read may show it after
all), or it was parked (a read may show that it had been applied). Reads are pulls, which prove for free, and the
drainer's own read-backs of what ``prove_at`` names. What was asked for before a delivery settled proves nothing of it.
What a read proves is ``outbox_proof``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.changes import LocalChange, read_change
from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

_MOST = 5000


class Reading(msgspec.Struct, frozen=True):
    """A read of the CRM: by which run (None: the drainer's own), asked for when by the database's clock."""

    account_id: AccountId
    asked_at: datetime
    grace_s: float
    run_id: int | None = None


class Awaited(msgspec.Struct, frozen=True):
    """An entry that awaits proof. ``remote_id`` and ``email`` are its relation's, where the caller asked for them."""

    id: int
    lane_id: int
    seq: int
    relation_id: int | None
    operation: str
    facet: str
    status: str
    change: LocalChange
    captured_at: datetime
    settled_at: datetime
    is_again: bool
    remote_id: str | None = None
    email: str | None = None

    @property
    def delivered_at(self) -> datetime | None:
        """When it was delivered; None when nobody knows whether it was."""
        return None if self.status == "parked" else self.settled_at


_COLUMNS = """
    e.id, e.lane_id, e.seq, e.relation_id, e.operation, e.facet, e.status, CAST(e.payload AS text) AS payload,
    e.captured_at, e.settled_at, e.reasserts IS NOT NULL AS is_again
"""
# Gathered before they are sorted: in the order of the lanes the planner would read every entry there ever was.
_AWAITING = f"""
    WITH unproven AS MATERIALIZED (
        SELECT {_COLUMNS} FROM syncd.entries e
        WHERE e.prove_until IS NOT NULL AND e.account_id = :account_id AND e.settled_at < :asked_at
          AND e.status IN ('accepted', 'parked', 'diverged') AND {{which}}
    )
    SELECT * FROM unproven ORDER BY lane_id, seq LIMIT {_MOST}
"""
_SOME_RELATIONS = "e.relation_id = ANY (CAST(:ids AS bigint[]))"
_SOME_OPERATIONS = "e.operation = ANY (CAST(:operations AS text[]))"
_OF_RELATIONS = text(_AWAITING.format(which=f"{_SOME_RELATIONS} AND {_SOME_OPERATIONS}"))
_OF_FACET = text(_AWAITING.format(which="e.facet = :facet"))
_OF_OPERATIONS = text(_AWAITING.format(which=_SOME_OPERATIONS))

_TAKE = text(
    f"""
    WITH due AS (
        SELECT lane_id, seq FROM syncd.entries
        WHERE account_id = :account_id AND prove_at <= now() AND status = 'accepted'
        ORDER BY prove_at LIMIT :most FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE syncd.entries e SET prove_at = now() + make_interval(secs => :lease_s)
        FROM due WHERE e.lane_id = due.lane_id AND e.seq = due.seq
        RETURNING {_COLUMNS}
    )
    SELECT taken.*, r.remote_id, r.email, clock_timestamp() AS now
    FROM taken LEFT JOIN crm.relations r ON r.id = taken.relation_id
    ORDER BY taken.id
    """
)

# Ever more rarely: as long again as it has been delivered.
_POSTPONE = text(
    """
    UPDATE syncd.entries
    SET prove_at = CASE WHEN prove_until > now()
                        THEN now() + GREATEST(make_interval(secs => :after_s), now() - settled_at) END
    WHERE id = ANY (CAST(:ids AS bigint[]))
    """
)
_LEAVE = text("UPDATE syncd.entries SET prove_at = NULL WHERE id = ANY (CAST(:ids AS bigint[]))")
_EXPIRE = text(
    f"""
    UPDATE syncd.entries e SET prove_until = NULL, prove_at = NULL
    FROM (SELECT lane_id, seq FROM syncd.entries WHERE prove_until < now()
          ORDER BY relation_id LIMIT {_MOST} FOR UPDATE SKIP LOCKED) AS old
    WHERE e.lane_id = old.lane_id AND e.seq = old.seq
    """
)


async def of_relations(connection: Connection, reading: Reading, ids: Sequence[int], *operations: str) -> list[Awaited]:
    """Return what awaits proof of these relations (by local id), of these operations."""
    if not ids:
        return []
    values = {"ids": list(ids), "operations": list(operations)}
    return _awaited(await connection.execute(_OF_RELATIONS, {**_asked(reading), **values}))


async def of_facet(connection: Connection, reading: Reading, facet: str) -> list[Awaited]:
    """Return what awaits proof of one facet, of whichever relation."""
    return _awaited(await connection.execute(_OF_FACET, {**_asked(reading), "facet": facet}))


async def of_operations(connection: Connection, reading: Reading, *operations: str) -> list[Awaited]:
    """Return what awaits proof of these operations, of whichever relation."""
    return _awaited(await connection.execute(_OF_OPERATIONS, {**_asked(reading), "operations": list(operations)}))


async def take(
    connection: Connection, account_id: AccountId, *, most: int, lease_s: float
) -> tuple[list[Awaited], datetime | None]:
    """Take entries that are due to be read back; nobody else takes them for ``lease_s``. Return them with the
    database's time, before which anything that is asked for now was delivered."""
    values = {"account_id": account_id, "most": most, "lease_s": lease_s}
    rows = (await connection.execute(_TAKE, values)).all()
    return _awaited(rows), rows[0].now if rows else None


async def postpone(connection: Connection, ids: Sequence[int], after_s: float) -> None:
    """Read entries back again in a while, after ``after_s`` at least."""
    if ids:
        await connection.execute(_POSTPONE, {"ids": list(ids), "after_s": after_s})


async def leave(connection: Connection, ids: Sequence[int]) -> None:
    """Read entries back no more; pulls may still prove them."""
    if ids:
        await connection.execute(_LEAVE, {"ids": list(ids)})


async def expire(connection: Connection) -> int:
    """Stop waiting for proof that did not come in time, some at a time; return how many."""
    return (await connection.execute(_EXPIRE)).rowcount


def _asked(reading: Reading) -> dict[str, object]:
    return {"account_id": reading.account_id, "asked_at": reading.asked_at}


def _awaited(rows: Any) -> list[Awaited]:
    return [
        Awaited(
            row.id,
            row.lane_id,
            row.seq,
            row.relation_id,
            row.operation,
            row.facet,
            row.status,
            change,
            row.captured_at,
            row.settled_at,
            row.is_again,
            getattr(row, "remote_id", None),
            getattr(row, "email", None),
        )
        for row in rows
        if (change := decoded(row)) is not None
    ]


def decoded(row: Any) -> LocalChange | None:
    """Decode a row's change; one that this version cannot read awaits a version that can."""
    return read_change(row.operation, row.payload)[0]
