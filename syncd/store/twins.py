"""Twins: two rows of the mirror that turn out to be one relation of the CRM.

An application inserted a relation; before its create was delivered and bound, a pull saw the new relation (or it had
been there all along, under the same address) and mirrored it as a row of its own. The application's row is kept,
because its id is in the application's hands; the pulled row's children move to it and the pulled row goes.

Captures that an application committed against the pulled row while we waited for its locks move too: no local change
is lost. If the stager was faster and made a lane of them, the merge is undone and tried again later. History moves, so
that one row tells the whole story.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.store.engine import Connection


class _Staged(Exception):
    """The stager gave the pulled row a lane while we were merging."""


class TwinFate(StrEnum):
    """What came of a merge. ``BUSY``: somebody holds the twin. ``UNDELIVERED``: it has changes of its own."""

    NONE = "none"
    MERGED = "merged"
    BUSY = "busy"
    UNDELIVERED = "undelivered"


# Link tables whose key holds the relation: rows that the kept relation has already stay as they are.
LINKS = {
    "crm.relation_tags": ("tag_id", "first_seen_at, last_seen_at, missing_since"),
    "crm.relation_fields": ("field_id", "value, first_seen_at, last_seen_at"),
    "crm.group_members": ("group_id", "first_seen_at, last_seen_at, missing_since"),
    "crm.list_subscriptions": ("list_id", "status, event_at, first_seen_at, last_seen_at, missing_since"),
}
POINTERS = ("crm.orders", "crm.invoices")

_LOCK = text("SELECT id FROM crm.relations WHERE id = :drop FOR UPDATE SKIP LOCKED")
_LANE = text("SELECT id FROM syncd.lanes WHERE relation_id = :drop")
_LOCK_LANE = text("SELECT id, claimed_by FROM syncd.lanes WHERE id = :lane_id FOR UPDATE SKIP LOCKED")
_UNDELIVERED = text(
    """
    SELECT EXISTS (SELECT 1 FROM syncd.entries
                   WHERE lane_id = :lane_id AND status IN ('pending', 'held', 'dead', 'parked', 'diverged'))
    """
)
# What may still land was sent for the pulled row, and finds by the address that both have.
_LATE = text(
    """
    UPDATE syncd.lanes kept
    SET profile_lands_until = GREATEST(kept.profile_lands_until, dropped.profile_lands_until),
        address_lands_until = GREATEST(kept.address_lands_until, dropped.address_lands_until)
    FROM syncd.lanes dropped WHERE dropped.id = :lane_id AND kept.relation_id = :keep
    """
)
_DROP_ENTRIES = text("DELETE FROM syncd.entries WHERE lane_id = :lane_id")
_DROP_LANE = text("DELETE FROM syncd.lanes WHERE id = :lane_id")
_NOTES = text("DELETE FROM syncd.absent_standings WHERE relation_id = :drop")
_CAPTURES = text("UPDATE syncd.captures SET relation_id = :keep WHERE relation_id = :drop")
_HISTORY = text(
    """
    UPDATE syncd.changes SET row_id = :keep
    WHERE row_id = :drop AND table_name IN
        ('relations', 'relation_tags', 'relation_fields', 'group_members', 'list_subscriptions')
    """
)
# One row may be open for a field; the kept row's own goes on.
_ONE_CONFLICT = text(
    """
    UPDATE syncd.conflicts c SET status = 'resolved', resolved_at = now(), decided = 'agreed', decided_by = 'agreement'
    WHERE c.row_id = :drop AND c.status = 'open'
      AND EXISTS (SELECT FROM syncd.conflicts own
                  WHERE own.row_id = :keep AND own.status = 'open' AND own.account_id = c.account_id
                    AND own.table_name = c.table_name AND own.field = c.field)
    """
)
_CONFLICTS = text(
    """
    UPDATE syncd.conflicts SET row_id = :keep
    WHERE row_id = :drop AND table_name IN ('relations', 'relation_tags', 'relation_fields', 'group_members')
    """
)
_DROP = text(
    "DELETE FROM crm.relations WHERE id = :drop RETURNING funnel_state, CAST(raw AS text) AS raw, first_seen_at"
)
_INHERIT = text(
    """
    WITH before AS (
        SELECT account_id, id, funnel_state, missing_since FROM crm.relations WHERE id = :keep
    ), inherited AS (
        UPDATE crm.relations
        SET funnel_state = coalesce(:funnel_state, funnel_state), raw = CAST(:raw AS jsonb), content_hash = NULL,
            detail_at = NULL, missing_since = NULL, first_seen_at = LEAST(first_seen_at, :first_seen_at)
        WHERE id = :keep
        RETURNING id, funnel_state, missing_since
    )
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, before, after)
    SELECT b.account_id, 'relations', b.id, 'update', 'remote',
           jsonb_build_object('funnel_state', b.funnel_state, 'missing_since', b.missing_since),
           jsonb_build_object('funnel_state', i.funnel_state, 'missing_since', i.missing_since)
    FROM before b JOIN inherited i ON i.id = b.id
    WHERE (b.funnel_state, b.missing_since) IS DISTINCT FROM (i.funnel_state, i.missing_since)
    """
)


async def merge_twin(connection: Connection, *, keep: int, drop: int) -> TwinFate:
    """Merge the row ``drop`` into ``keep``, whose row the caller has locked. Nothing is changed unless MERGED."""
    if (await connection.execute(_LOCK, {"drop": drop})).scalar_one_or_none() is None:
        return TwinFate.BUSY
    lane_id = (await connection.execute(_LANE, {"drop": drop})).scalar_one_or_none()
    if lane_id is not None:
        fate = await _lane_fate(connection, lane_id)
        if fate is not TwinFate.MERGED:
            return fate
    try:
        async with connection.begin_nested():
            await _move(connection, keep, drop, lane_id)
    except _Staged:
        return TwinFate.BUSY
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in ("55P03", "40P01"):
            raise
        return TwinFate.BUSY
    return TwinFate.MERGED


async def _lane_fate(connection: Connection, lane_id: int) -> TwinFate:
    lane = (await connection.execute(_LOCK_LANE, {"lane_id": lane_id})).one_or_none()
    if lane is None:
        return TwinFate.BUSY
    waits = (await connection.execute(_UNDELIVERED, {"lane_id": lane_id})).scalar_one()
    return TwinFate.UNDELIVERED if waits or lane.claimed_by is not None else TwinFate.MERGED


async def _move(connection: Connection, keep: int, drop: int, lane_id: int | None) -> None:
    both = {"keep": keep, "drop": drop}
    for statement in _moves():
        await connection.execute(text(statement), both)
    if lane_id is not None:
        await connection.execute(_LATE, {"lane_id": lane_id, "keep": keep})
        await connection.execute(_DROP_ENTRIES, {"lane_id": lane_id})
        await connection.execute(_DROP_LANE, {"lane_id": lane_id})
    await connection.execute(_NOTES, {"drop": drop})
    await connection.execute(_HISTORY, both)
    await connection.execute(_ONE_CONFLICT, both)
    await connection.execute(_CONFLICTS, both)
    # Last, with a fresh snapshot: what an application captured while the statements above waited for it.
    await connection.execute(_CAPTURES, both)
    if (await connection.execute(_LANE, {"drop": drop})).scalar_one_or_none() is not None:
        raise _Staged
    dropped = (await connection.execute(_DROP, {"drop": drop})).one()
    await connection.execute(_INHERIT, {"keep": keep, **dropped._mapping})


def _moves() -> list[str]:
    statements = []
    for table, (key, columns) in LINKS.items():
        statements.append(
            f"INSERT INTO {table} (relation_id, {key}, {columns}) SELECT :keep, {key}, {columns} FROM {table} "
            "WHERE relation_id = :drop ON CONFLICT DO NOTHING"
        )
        statements.append(f"DELETE FROM {table} WHERE relation_id = :drop")
    statements.extend(f"UPDATE {table} SET relation_id = :keep WHERE relation_id = :drop" for table in POINTERS)
    return statements
