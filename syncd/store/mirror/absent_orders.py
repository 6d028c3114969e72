"""Absent orders: those that an answer with all orders of their relation lacks.

A short answer looks no different, so one absence says nothing yet; an order that two answers, apart in time, lacked is
missing, and nobody asks for it any more until it shows again. A window never decides this: its edges are too coarse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import text

from syncd.policy.absence import Absence, judge
from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope, Written
from syncd.store.mirror.touched import mark_missing
from syncd.store.readings import absences, forget_absence, note_absence

_STREAM = "orders"
_LACKING = text("""
    SELECT id FROM crm.orders
    WHERE account_id = :account_id AND relation_id = ANY(CAST(:relation_ids AS bigint[])) AND missing_since IS NULL
      AND first_seen_at < :asked_at AND NOT remote_id = ANY(CAST(:shown AS text[]))
""")
_NOTED = text("""
    SELECT row_id FROM syncd.readings
    WHERE account_id = :account_id AND stream = :stream AND absent_since IS NOT NULL
""")


async def judge_lacking(
    connection: Connection, scope: Scope, relation_ids: Sequence[int], shown: Sequence[str]
) -> Written:
    """Note the known orders of these relations that are not among the ``shown`` remote ids; mark those missing that a
    second answer lacks."""
    values = {"account_id": scope.account_id, "relation_ids": list(relation_ids), "asked_at": scope.asked_at}
    ids = list((await connection.execute(_LACKING, {**values, "shown": list(shown)})).scalars())
    since = await absences(connection, scope, _STREAM, ids)
    judged = {row_id: judge(since.get(row_id), scope.now, scope.absence_gap_s) for row_id in ids}
    await note_absence(connection, scope, _STREAM, [row for row, verdict in judged.items() if verdict is Absence.NOTED])
    confirmed = [row for row, verdict in judged.items() if verdict is Absence.CONFIRMED]
    gone = await mark_missing(connection, scope, _STREAM, confirmed) if confirmed else 0
    await forget_absence(connection, scope, _STREAM, confirmed)
    doubtful = len(ids) - len(confirmed)
    told = f"{doubtful} known orders are not shown any more; a later answer has to say so again"
    return Written(missing=gone, warnings=(told,) if doubtful else ())


async def forget_shown(connection: Connection, scope: Scope, ids: Iterable[int]) -> None:
    """Take back the noted absences of orders that were shown. There are few of them, however many are shown."""
    found = await connection.execute(_NOTED, {"account_id": scope.account_id, "stream": _STREAM})
    if noted := set(found.scalars()):
        await forget_absence(connection, scope, _STREAM, list(noted.intersection(ids)))
