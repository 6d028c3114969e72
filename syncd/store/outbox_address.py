"""Address: what takes an address waits until the relation that had it before has given it up in the CRM.

The CRM finds a relation by its e-mail address. Locally one relation may leave an address and another may take it a
moment later; these are two lanes, and each is in order by itself alone. Were the second sent first, the CRM would find
the first relation under the address and write the one's data over the other's. So a create, or a change to an address,
waits for every older change away from it that is not delivered, also for one that waits for a person. Once that is
skipped nothing is waited for: whoever skips must see to it that the CRM has the address with nobody else.

Only older ones are waited for. Two lanes can still wait for each other where a refused change is to be superseded by a
later one of its lane; both are told by ``syncd plan``, and skipping the refused one ends it.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import text

from syncd.policy.fold import IDENTITY, Entry
from syncd.policy.states import EntryStatus
from syncd.store.engine import Connection

_TAKES = "lower(coalesce(w.payload ->> 'new', w.payload ->> 'email'))"
# What only says a delivered address once more has left the old one already. Waiting for it, two lanes could wait for
# each other for ever, because it goes out with the newest change of its own lane.
_LEAVES = (
    "operation = 'change_email' AND status IN ('pending', 'held', 'dead', 'parked', 'diverged') AND reasserts IS NULL"
)

# Fenced by OFFSET 0: or their order would be served by walking back through all entries.
_LEAVERS = f"""
    (SELECT e.id, e.lane_id, e.relation_id FROM syncd.entries e
     WHERE {_LEAVES} AND e.account_id = w.account_id AND lower(e.payload ->> 'old') = {_TAKES} OFFSET 0)
"""

_LEFT_LAST = text(
    f"""
    SELECT w.id, older.id AS awaits
    FROM syncd.entries w
    CROSS JOIN LATERAL (
        SELECT l.id FROM {_LEAVERS} AS l WHERE l.id < w.id AND l.lane_id <> w.lane_id
        ORDER BY l.id DESC LIMIT 1
    ) AS older
    WHERE w.id = ANY (CAST(:ids AS bigint[]))
    """
)

# What is captured only stands behind all that is staged. Such changes are gathered once.
_LEFT_LAST_OF_CAPTURES = text(
    f"""
    WITH leaving AS MATERIALIZED (
        SELECT id, account_id, relation_id, lower(payload ->> 'old') AS address
        FROM syncd.captures WHERE operation = 'change_email'
    )
    SELECT -w.id AS id, coalesce(captured.id, staged.id) AS awaits
    FROM unnest(CAST(:ids AS bigint[])) AS asked (id) JOIN syncd.captures w ON w.id = -asked.id
    LEFT JOIN LATERAL (
        SELECT -c.id AS id FROM leaving c
        WHERE c.account_id = w.account_id AND c.address = {_TAKES} AND c.id < w.id AND c.relation_id <> w.relation_id
        ORDER BY c.id DESC LIMIT 1
    ) AS captured ON true
    LEFT JOIN LATERAL (
        SELECT l.id FROM {_LEAVERS} AS l WHERE l.relation_id <> w.relation_id ORDER BY l.id DESC LIMIT 1
    ) AS staged ON true
    WHERE coalesce(captured.id, staged.id) IS NOT NULL
    """
)


async def note_addresses(connection: Connection, lanes: Collection[list[Entry]], *, are_captured: bool = False) -> None:
    """Note in each entry that takes an address for which entry of another lane it waits. Few entries do.

    ``are_captured``: these are not staged yet, and have the negative numbers of their captures.
    """
    ids = [entry.id for trail in lanes for entry in trail if _may_take(entry)]
    if not ids:
        return
    statement = _LEFT_LAST_OF_CAPTURES if are_captured else _LEFT_LAST
    awaits = {row.id: row.awaits for row in await connection.execute(statement, {"ids": ids})}
    if awaits:
        for trail in lanes:
            trail[:] = [
                msgspec.structs.replace(entry, awaits=awaits[entry.id]) if entry.id in awaits else entry
                for entry in trail
            ]


def _may_take(entry: Entry) -> bool:
    return entry.facet == IDENTITY and entry.status == EntryStatus.PENDING and not entry.is_reassertion
