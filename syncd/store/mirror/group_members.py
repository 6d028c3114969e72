"""Group members: an answer shows one group whole, with its relations. Relations first, then who belongs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from syncd.domain.records import Relation, Row
from syncd.store.engine import Connection
from syncd.store.mirror import proving, relations
from syncd.store.mirror.membership import GROUP_MEMBERS, Difference, Pair, apply, compare
from syncd.store.mirror.scope import Gone, Scope, Written

_IDS = text("""
    SELECT id FROM crm.relations WHERE account_id = :account_id AND remote_id = ANY(CAST(:remote_ids AS text[]))
""")


async def write_relations(
    connection: Connection, scope: Scope, group_id: int, rows: Sequence[Row[Relation]]
) -> tuple[Written, list[Pair]]:
    """Write a batch of members as relations; return also the links they stand for."""
    written = await relations.write(connection, scope, rows)
    values = {"account_id": scope.account_id, "remote_ids": [row.record.remote_id for row in rows]}
    found = (await connection.execute(_IDS, values)).scalars()
    return written, [(relation_id, group_id) for relation_id in found]


async def prove(
    connection: Connection, scope: Scope, group_id: int, shown: Sequence[Pair], *, is_whole: bool
) -> tuple[str, ...]:
    """Hold delivered changes of the group's membership against its answer; return warnings."""
    return await proving.by_members(connection, scope, group_id, (pair[0] for pair in shown), is_whole=is_whole)


async def difference(connection: Connection, scope: Scope, group_id: int, shown: Sequence[Pair]) -> Difference:
    """Compare a group's links with those its whole answer showed."""
    return await compare(connection, scope, GROUP_MEMBERS, [group_id], shown)


def lacking(found: Difference) -> Gone:
    """Return how many members the answer should have shown, and those it did not."""
    gone = [pair for pair in found.gone if found.rows[pair]["missing_since"] is None]
    ids = tuple(relation_id for relation_id, _ in gone)
    return Gone(found.known, tuple(map(str, ids)), ids)


async def write_links(connection: Connection, scope: Scope, found: Difference) -> Written:
    """Write who belongs to the group."""
    return await apply(connection, scope, GROUP_MEMBERS, found)
