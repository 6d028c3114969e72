"""Withhold: take out of the outbox what a conflict says must not be sent, before anything is claimed.

Asked in the transaction that claims, so that there is no moment in which a withheld edit could go out. Nothing here
waits for anybody: a conflict whose lane is being sent, whose relation an application holds, or that has edits which
are not staged yet is left for the next round, which follows at once where there is something to send.

What is withheld stays in the mirror where a person is to decide (``hold``); where the CRM's value counts (``remote``)
the mirror takes it here, and the conflict is resolved. The entry says which conflict took it, and keeps its place: no
change of a facet can overtake another by this.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.changes import EDITABLE_COLUMNS, read_change
from syncd.domain.facets import NO, YES
from syncd.domain.ids import AccountId
from syncd.policy.merge import Owner
from syncd.store.engine import Connection
from syncd.store.outbox_address import wake_takers
from syncd.store.outbox_operate import SETTLE_WINDOW_S
from syncd.store.outbox_reassert import remember

_WAITING = text("""
    SELECT id, table_name, row_id, field, local, remote, owner, run_id FROM syncd.conflicts
    WHERE account_id = :account_id AND status = 'open' AND withheld_at IS NULL
    ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED
""")
_LANE = text("""
    SELECT id, claimed_by FROM syncd.lanes
    WHERE account_id = :account_id AND relation_id = :row_id FOR UPDATE SKIP LOCKED
""")
_HAS_LANE = text("SELECT EXISTS (SELECT FROM syncd.lanes WHERE account_id = :account_id AND relation_id = :row_id)")
_RELATION = text("SELECT id FROM crm.relations WHERE id = :row_id FOR NO KEY UPDATE SKIP LOCKED")
_CAPTURED = text("""
    SELECT EXISTS (SELECT FROM syncd.captures WHERE relation_id = :row_id AND facet = ANY (CAST(:facets AS text[])))
""")

# A profile edit loses the column alone; what has nothing left to say by that is given up. A re-assertion, too: it would
# say the older value over what the CRM's people wrote. One that says nothing yet waits for what is delivered later.
_STRIP = text("""
    UPDATE syncd.entries e
    SET payload = CASE e.operation
            WHEN 'update_profile' THEN jsonb_build_object('old', (e.payload -> 'old') - CAST(:field AS text),
                                                          'new', (e.payload -> 'new') - CAST(:field AS text))
            ELSE jsonb_set(e.payload, '{profile}', (e.payload -> 'profile') - CAST(:field AS text)) END
    WHERE e.lane_id = :lane_id AND e.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
      AND CASE e.operation WHEN 'update_profile' THEN jsonb_exists(e.payload -> 'new', :field)
                           WHEN 'create_relation' THEN jsonb_exists(e.payload -> 'profile', :field)
                           ELSE false END
    RETURNING e.id
""")
_GIVE_UP = text("""
    UPDATE syncd.entries e SET status = 'skipped', settled_at = now(), error = :why, prove_until = NULL, prove_at = NULL
    WHERE e.lane_id = :lane_id AND e.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
      AND CASE WHEN e.operation = 'update_profile'
                    THEN e.id = ANY (CAST(:stripped AS bigint[])) AND e.payload -> 'new' = '{}'
               WHEN e.operation = 'change_email' THEN CAST(:field AS text) = 'email'
               ELSE e.facet = :field END
    RETURNING e.id, e.operation, CAST(e.payload AS text) AS payload,
              e.is_uncertain OR e.reasserts IS NOT NULL AS may_land
""")
_WAKE = text("UPDATE syncd.lanes SET ready_at = clock_timestamp(), block_reason = NULL WHERE id = :lane_id")
_WITHHELD = text("""
    UPDATE syncd.conflicts
    SET withheld_at = now(), local = :local,
        status = CASE WHEN owner = 'remote' THEN 'resolved' ELSE status END,
        resolved_at = CASE WHEN owner = 'remote' THEN now() ELSE resolved_at END,
        decided = CASE WHEN owner = 'remote' THEN 'remote' ELSE decided END,
        decided_by = CASE WHEN owner = 'remote' THEN 'owner' ELSE decided_by END
    WHERE id = :id
""")
_ORIGIN = text("SELECT set_config('syncd.origin', :origin, true)")
_HISTORY = text("""
    INSERT INTO syncd.changes (account_id, table_name, row_id, link_id, kind, origin, run_id, before, after)
    VALUES (:account_id, :table_name, :row_id, :link_id, :kind, :origin, :run_id, CAST(:before AS jsonb),
            CAST(:after AS jsonb))
""")
_LINKS = {"relation_tags": "tag_id", "group_members": "group_id"}


async def withhold(connection: Connection, account_id: AccountId, *, settle_window_s: float = SETTLE_WINDOW_S) -> int:
    """Withhold what the account's conflicts say must not be sent; return how many of them that settled."""
    waiting = (await connection.execute(_WAITING, {"account_id": account_id})).all()
    done = 0
    for conflict in waiting:
        done += await withhold_one(connection, account_id, conflict, settle_window_s=settle_window_s)
    return done


async def withhold_one(
    connection: Connection, account_id: AccountId, conflict: Any, *, settle_window_s: float = SETTLE_WINDOW_S
) -> bool:
    """Withhold one conflict's edits; return False when somebody is in the way. The caller has locked its row.

    What is given up while it may have been applied is remembered as a skip is (``outbox_operate.skip_entry``); so is a
    re-assertion, which stands for something that may land.
    """
    whose = {"account_id": account_id, "row_id": conflict.row_id}
    lane = (await connection.execute(_LANE, whose)).one_or_none()
    is_locked = lane is None and (await connection.execute(_HAS_LANE, whose)).scalar_one()
    facets = {"row_id": conflict.row_id, "facets": facets_of(conflict.field)}
    if is_locked or (lane is not None and lane.claimed_by is not None):
        return False
    if (await connection.execute(_CAPTURED, facets)).scalar_one():
        return False
    if (await connection.execute(_RELATION, {"row_id": conflict.row_id})).scalar_one_or_none() is None:
        return False
    local = await value_here(connection, conflict)
    if conflict.owner == Owner.REMOTE.value:
        await set_here(connection, account_id, conflict, conflict.remote, origin="remote")
    if lane is not None:
        why = f"it waits for a person: conflict {conflict.id}"
        if conflict.owner == Owner.REMOTE.value:
            why = f"the CRM's value counts: conflict {conflict.id}"
        await _give_up(connection, lane.id, conflict.field, why, settle_window_s)
        await connection.execute(_WAKE, {"lane_id": lane.id})
    await connection.execute(_WITHHELD, {"id": conflict.id, "local": local})
    return True


async def _give_up(connection: Connection, lane_id: int, field: str, why: str, settle_window_s: float) -> None:
    strip = {"lane_id": lane_id, "field": field}
    stripped = list((await connection.execute(_STRIP, strip)).scalars())
    given_up = (await connection.execute(_GIVE_UP, {**strip, "stripped": stripped, "why": why})).all()
    for entry in given_up:
        change, _ = read_change(entry.operation, entry.payload)
        if entry.may_land and change is not None:
            await remember(connection, lane_id, change, entry.id, settle_window_s)
    await wake_takers(connection, [entry.id for entry in given_up if entry.operation == "change_email"])


async def value_here(connection: Connection, conflict: Any) -> str | None:
    """Return what the mirror holds of a conflict's field now."""
    if conflict.table_name == "relations":
        reading = text(f"SELECT {_column(conflict)} FROM crm.relations WHERE id = :row_id")
        value = (await connection.execute(reading, {"row_id": conflict.row_id})).scalar_one()
        return None if value is None else str(value)
    table, other = conflict.table_name, _LINKS[conflict.table_name]
    finding = text(f"SELECT EXISTS (SELECT FROM crm.{table} WHERE relation_id = :row_id AND {other} = :link_id)")
    both = {"row_id": conflict.row_id, "link_id": int(conflict.field.partition(":")[2])}
    return YES if (await connection.execute(finding, both)).scalar_one() else NO


def _column(conflict: Any) -> str:
    name = str(conflict.field)
    assert name in EDITABLE_COLUMNS, f"{name} is no column that both sides may move"
    return name


def facets_of(name: str) -> list[str]:
    """Return the facets whose changes may move a field."""
    if name == "email":
        return ["identity"]
    return ["profile", "identity"] if name in EDITABLE_COLUMNS else [name]


async def set_here(
    connection: Connection, account_id: AccountId, conflict: Any, value: str | None, *, origin: str
) -> None:
    """Let the mirror's field take a value without its being captured, and remember it in the history."""
    before = str((await connection.exec_driver_sql("SELECT current_setting('syncd.origin', true)")).scalar_one() or "")
    await connection.execute(_ORIGIN, {"origin": "remote"})
    told = {"account_id": account_id, "table_name": conflict.table_name, "row_id": conflict.row_id}
    told |= {"origin": origin, "run_id": conflict.run_id, "link_id": None, "before": None, "after": None}
    if conflict.table_name == "relations":
        await _set_column(connection, conflict, value, told)
    else:
        await _set_link(connection, conflict, value == YES, told)
    await connection.execute(_ORIGIN, {"origin": before})


async def _set_column(connection: Connection, conflict: Any, value: str | None, told: dict[str, object]) -> None:
    name, old = _column(conflict), await value_here(connection, conflict)
    if old == value:
        return
    setting = text(f"UPDATE crm.relations SET {name} = :value, changed_at = now() WHERE id = :id")
    await connection.execute(setting, {"id": conflict.row_id, "value": value})
    values = {"before": _json({name: old}), "after": _json({name: value})}
    await connection.execute(_HISTORY, {**told, **values, "kind": "update"})


async def _set_link(connection: Connection, conflict: Any, is_there: bool, told: dict[str, object]) -> None:
    table, other = conflict.table_name, _LINKS[conflict.table_name]
    link_id = int(conflict.field.partition(":")[2])
    both = {"row_id": conflict.row_id, "link_id": link_id}
    if is_there:
        sql = f"INSERT INTO crm.{table} (relation_id, {other}) VALUES (:row_id, :link_id) ON CONFLICT DO NOTHING"
    else:
        sql = f"DELETE FROM crm.{table} WHERE relation_id = :row_id AND {other} = :link_id"
    if (await connection.execute(text(sql), both)).rowcount:
        await connection.execute(_HISTORY, {**told, "link_id": link_id, "kind": "insert" if is_there else "delete"})


def _json(values: dict[str, str | None]) -> str:
    return msgspec.json.encode(values).decode()
