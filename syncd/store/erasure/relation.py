"""The relation itself, in one transaction: its outbox, its history, what hangs on it, and last the row.

The stage lock keeps the stager from making entries of captures meanwhile; the lane's lock keeps workers from it, and a
lane that a worker holds is not touched: its call is under way. The relation's lock keeps applications from hanging
anything on it; the locks of its entries keep proofs from saying anything more of them. Everything else is asked for
without waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from syncd.domain.errors import UserError
from syncd.store.engine import Connection, Store
from syncd.store.erasure.ledger import count, take_turn
from syncd.store.erasure.person import Bearer
from syncd.store.erasure.rows import Goal, tell
from syncd.store.erasure.waiting import Busy, impatient
from syncd.store.outbox_address import wake_takers

_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('syncd.stage', 0))")
_LANE = text("""
    SELECT id, claimed_by IS NOT NULL AND ready_at > clock_timestamp() AS is_in_hand FROM syncd.lanes
    WHERE account_id = :account_id AND relation_id = :id FOR UPDATE NOWAIT
""")
_HOLD = text("SELECT id FROM crm.relations WHERE id = :id FOR UPDATE")
_CHILDREN = ("relation_tags", "relation_fields", "group_members", "list_subscriptions")
_LEFT = text("""
    SELECT EXISTS (SELECT FROM crm.orders WHERE relation_id = :id)
        OR EXISTS (SELECT FROM crm.invoices WHERE relation_id = :id)
""")
# Locked: whoever concludes something of one without the lane's lock (a read-back, a pull) writes an incident of it.
_ENTRIES = text("""
    WITH e AS MATERIALIZED (SELECT id, status FROM syncd.entries WHERE lane_id = :lane_id FOR UPDATE NOWAIT)
    SELECT array_agg(e.id) AS ids,
           count(*) FILTER (WHERE e.status IN ('pending', 'held', 'dead', 'parked', 'diverged'))
               + (SELECT count(*) FROM syncd.captures WHERE relation_id = :id) AS undelivered
    FROM e
""")
# By table, in this order: what names an entry before the entry, what hangs on the relation before the relation.
STEPS: Mapping[str, str] = {
    "syncd.incidents": """
        DELETE FROM syncd.incidents
        WHERE subject IN (SELECT 'entry:' || id FROM unnest(CAST(:entries AS bigint[])) AS e (id))
    """,
    "syncd.decisions": "DELETE FROM syncd.decisions WHERE entry_id = ANY(CAST(:entries AS bigint[]))",
    "syncd.attempts": "DELETE FROM syncd.attempts WHERE entry_id = ANY(CAST(:entries AS bigint[]))",
    "syncd.entries": "DELETE FROM syncd.entries WHERE id = ANY(CAST(:entries AS bigint[]))",
    "syncd.captures": "DELETE FROM syncd.captures WHERE relation_id = :id",
    "syncd.lanes": "DELETE FROM syncd.lanes WHERE id = :lane_id",
    "syncd.conflicts": """
        DELETE FROM syncd.conflicts WHERE row_id = :id AND table_name IN
            ('relations', 'relation_tags', 'relation_fields', 'group_members', 'list_subscriptions')
    """,
    "syncd.changes": """
        DELETE FROM syncd.changes WHERE row_id = :id AND table_name IN
            ('relations', 'relation_tags', 'relation_fields', 'group_members', 'list_subscriptions')
    """,
    "syncd.readings": """
        DELETE FROM syncd.readings
        WHERE account_id = :account_id AND row_id = :id AND stream LIKE 'relation\\_%'
    """,
    "syncd.absent_standings": "DELETE FROM syncd.absent_standings WHERE relation_id = :id",
    **{f"crm.{table}": f"DELETE FROM crm.{table} WHERE relation_id = :id" for table in _CHILDREN},
    "crm.relations": "DELETE FROM crm.relations WHERE id = :id",
}


async def erase_relation(store: Store, goal: Goal, bearer: Bearer, *, may_drop: bool) -> bool:
    """Remove a relation with all that hangs on it; False when orders or invoices came to hang on it meanwhile.

    Raises Busy while a change of it is being sent or somebody holds its rows, and UserError when it has changes that
    are not delivered and ``may_drop`` is not given.
    """
    async with impatient(store) as connection:
        before = await take_turn(connection, goal.erasure_id)
        await connection.execute(_ALONE)
        values: dict[str, Any] = {"id": bearer.relation_id, "account_id": bearer.account_id, "lane_id": None}
        lane = (await connection.execute(_LANE, values)).one_or_none()
        if lane is not None and lane.is_in_hand:
            raise Busy("a change of this person is being sent to the CRM at this moment")
        if (await connection.execute(_HOLD, values)).scalar_one_or_none() is None:
            return True
        await _hold_children(connection, values)
        if (await connection.execute(_LEFT, values)).scalar_one():
            return False
        values["lane_id"] = lane.id if lane is not None else None
        outbox = (await connection.execute(_ENTRIES, values)).one()
        if outbox.undelivered and not may_drop:
            raise UserError(refusal(outbox.undelivered))
        values["entries"] = list(outbox.ids or ())
        await wake_takers(connection, values["entries"])
        gone = {table: (await connection.execute(text(step), values)).rowcount for table, step in STEPS.items()}
        await tell(connection, "relations", "delete", [(bearer.account_id, bearer.relation_id, None)])
        await count(connection, goal.erasure_id, before, gone)
    return True


def refusal(undelivered: int) -> str:
    """Say why a person with undelivered changes is not erased just so."""
    return (
        f"{undelivered} local changes of this person are not delivered to the CRM; deliver them first (syncd drain), "
        "or give them up with --drop-undelivered"
    )


async def _hold_children(connection: Connection, values: Mapping[str, object]) -> None:
    for table in _CHILDREN:
        await connection.execute(
            text(f"SELECT relation_id FROM crm.{table} WHERE relation_id = :id FOR UPDATE NOWAIT"), values
        )
