"""Address: what takes an address waits until the relation that had it before has given it up in the CRM.

The CRM finds a relation by its e-mail address. Locally one relation may leave an address and another may take it a
moment later; these are two lanes, and each is in order by itself alone. Were the second sent first, the CRM would find
the first relation under the address and write the one's data over the other's. So a create, or a change to an address,
waits for every older change away from it that is not delivered, also for one that waits for a person: skipping that
says that the CRM shall keep it as it is.

Only older ones are waited for, so two relations never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import text

from syncd.policy.fold import IDENTITY, Entry
from syncd.policy.states import EntryStatus
from syncd.store.engine import Connection

_TAKES = "lower(coalesce(w.payload ->> 'new', w.payload ->> 'email'))"
_LEAVES = "operation = 'change_email' AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')"

_LEFT_LAST = text(
    f"""
    SELECT w.id, older.id AS awaits
    FROM syncd.entries w
    CROSS JOIN LATERAL (
        SELECT e.id FROM (SELECT * FROM syncd.entries WHERE {_LEAVES}) AS e
        WHERE e.account_id = w.account_id AND lower(e.payload ->> 'old') = {_TAKES}
          AND e.id < w.id AND e.lane_id <> w.lane_id
        ORDER BY e.id DESC LIMIT 1
    ) AS older
    WHERE w.id = ANY (CAST(:ids AS bigint[]))
    """
)

# What is captured only stands behind all that is staged.
_LEFT_LAST_OF_CAPTURES = text(
    f"""
    SELECT w.id, coalesce(captured.id, staged.id) AS awaits
    FROM syncd.captures w
    LEFT JOIN LATERAL (
        SELECT -c.id AS id FROM syncd.captures c
        WHERE c.operation = 'change_email' AND c.account_id = w.account_id
          AND lower(c.payload ->> 'old') = {_TAKES} AND c.id < w.id AND c.relation_id <> w.relation_id
        ORDER BY c.id DESC LIMIT 1
    ) AS captured ON true
    LEFT JOIN LATERAL (
        SELECT e.id FROM (SELECT * FROM syncd.entries WHERE {_LEAVES}) AS e
        WHERE e.account_id = w.account_id AND lower(e.payload ->> 'old') = {_TAKES} AND e.relation_id <> w.relation_id
        ORDER BY e.id DESC LIMIT 1
    ) AS staged ON true
    WHERE w.id = ANY (CAST(:ids AS bigint[])) AND coalesce(captured.id, staged.id) IS NOT NULL
    """
)


async def note_addresses(connection: Connection, lanes: Iterable[list[Entry]]) -> None:
    """Note in each entry that takes an address for which entry of another lane it waits. Few entries do."""
    takers = [
        (entry, trail, place)
        for trail in lanes
        for place, entry in enumerate(trail)
        if entry.facet == IDENTITY and entry.status == EntryStatus.PENDING and not entry.is_reassertion
    ]
    for statement, sign in ((_LEFT_LAST, 1), (_LEFT_LAST_OF_CAPTURES, -1)):
        ids = [entry.id * sign for entry, _, _ in takers if entry.id * sign > 0]
        if not ids:
            continue
        awaits = {row.id * sign: row.awaits for row in await connection.execute(statement, {"ids": ids})}
        for entry, trail, place in takers:
            if entry.id in awaits:
                trail[place] = msgspec.structs.replace(entry, awaits=awaits[entry.id])
