"""Touched: what the transaction under way has done to rows that were known, told by the history it has written.

A value that was empty cannot be rewritten: an update that only fills does not count, nor does an insert. Nor does what
only takes back an edit that was given up here: see ``given_up``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import text

from syncd.domain.doubts import Doubt, DoubtKind
from syncd.domain.ids import AccountId
from syncd.store.engine import Connection
from syncd.store.followup import Due
from syncd.store.history import missing, record
from syncd.store.mirror.given_up import is_edit_taken_back, is_link_left
from syncd.store.mirror.scope import Gone, Scope

# The links that an application edits, and what they are links to.
_KINDS = {"relation_tags": "tag", "group_members": "group"}


def _is_link_taken_back(table: str, kind: str) -> str:
    # A link that is gone has left in its last change when it was seen; one that is only marked has it still.
    seen_at = f"""COALESCE(CAST(c.before ->> 'last_seen_at' AS timestamptz), (
                SELECT h.last_seen_at FROM crm.{table} h WHERE h.relation_id = c.row_id AND h.{kind}_id = c.link_id))"""
    return f"WHEN table_name = '{table}' THEN {is_link_left('c.row_id', kind, 'c.link_id', seen_at)}"


_TOUCHED = text(f"""
    WITH touched AS MATERIALIZED (
        SELECT table_name, row_id, link_id, kind, before, after FROM syncd.changes
        WHERE xact = pg_current_xact_id() AND run_id = :run_id
          AND (kind IN ('missing', 'delete') OR kind = 'update' AND jsonb_strip_nulls(before) <> '{{}}')
    ), mine AS MATERIALIZED (
        SELECT table_name, row_id, kind, before FROM touched c
        WHERE NOT CASE WHEN table_name = 'relations' AND kind = 'update' THEN {is_edit_taken_back("c")}
                       {" ".join(_is_link_taken_back(table, kind) for table, kind in _KINDS.items())}
                       ELSE false END
    )
    SELECT count(*) FILTER (WHERE kind = 'update') AS rewritten, count(*) FILTER (WHERE kind <> 'update') AS missing,
           CAST(COALESCE((SELECT jsonb_agg(jsonb_build_object(
                   'table', e.table_name, 'row', e.row_id, 'change', e.kind,
                   'columns', ARRAY(SELECT jsonb_object_keys(e.before) ORDER BY 1)))
               FROM (SELECT * FROM mine LIMIT 5) AS e), '[]') AS text) AS examples
    FROM mine
""")
_LEFT = text(f"""
    SELECT h.relation_id FROM crm.group_members h
    WHERE h.group_id = :group_id AND h.relation_id = ANY(CAST(:ids AS bigint[]))
      AND {is_link_left("h.relation_id", "group", "h.group_id", "h.last_seen_at")}
""")
_MISSING = """
    UPDATE crm.{} SET missing_since = :now WHERE id = ANY(CAST(:ids AS bigint[])) AND missing_since IS NULL
    RETURNING id
"""
_KNOWN = {
    "group_members": """
        SELECT (SELECT count(*) FROM crm.relations WHERE account_id = :account_id AND content_hash IS NOT NULL)
             + (SELECT count(*) FROM crm.group_members WHERE group_id = ANY(CAST(:ids AS bigint[])))
    """,
    "invoice_relations": "SELECT count(*) FROM crm.invoices WHERE account_id = :account_id",
    "relation_details": "SELECT cardinality(CAST(:ids AS bigint[])) + 0 * :account_id",
    "relation_tags": """
        SELECT count(*) + 0 * :account_id FROM crm.relation_tags WHERE relation_id = ANY(CAST(:ids AS bigint[]))
    """,
    "relation_subscriptions": """
        SELECT count(*) + 0 * :account_id FROM crm.list_subscriptions WHERE relation_id = ANY(CAST(:ids AS bigint[]))
    """,
    "relation_orders": """
        SELECT count(*) FROM crm.orders WHERE account_id = :account_id AND relation_id = ANY(CAST(:ids AS bigint[]))
    """,
}
_HOLDERS = {
    "group_members": ("group_members", "group_id"),
    "relation_tags": ("relation_tags", "relation_id"),
    "relation_subscriptions": ("list_subscriptions", "relation_id"),
    "relation_orders": ("orders", "relation_id"),
}


async def touched(connection: Connection, scope: Scope) -> Doubt:
    """Return what this transaction would do to known rows; how many are known is for the caller to say."""
    row = (await connection.execute(_TOUCHED, {"account_id": scope.account_id, "run_id": scope.run_id})).one()
    examples = tuple(msgspec.json.decode(row.examples, type=list[dict[str, object]]))
    return Doubt(DoubtKind.REWRITE, 0, row.rewritten, row.missing, examples)


async def not_left(connection: Connection, scope: Scope, gone: Gone, group_id: int) -> Gone:
    """Return what a group's answer lacks without the members that only given-up edits had made."""
    values = {"account_id": scope.account_id, "group_id": group_id, "ids": list(gone.ids)}
    left = set((await connection.execute(_LEFT, values)).scalars())
    ids = tuple(relation_id for relation_id in gone.ids if relation_id not in left)
    return Gone(gone.known - len(left), tuple(map(str, ids)), ids)


async def known_of(connection: Connection, account_id: AccountId, stream: str, parents: Sequence[int]) -> int:
    """Count the rows that a sweep of these parents is about."""
    values = {"account_id": account_id, "ids": list(parents)}
    return int((await connection.execute(text(_KNOWN[stream]), values)).scalar_one())


async def holders(
    connection: Connection, account_id: AccountId, stream: str, parents: Sequence[int]
) -> tuple[int, int]:
    """Return how many of these parents are known to hold something that a sweep's answer shows, and how much."""
    if stream not in _HOLDERS or not parents:
        return 0, 0
    table, owner = _HOLDERS[stream]
    counting = text(f"""
        SELECT count(DISTINCT {owner}) AS parents, count(*) AS held FROM crm.{table} h
        WHERE {owner} = ANY(CAST(:ids AS bigint[])) AND missing_since IS NULL{_was_shown(stream)}
    """)
    row = (await connection.execute(counting, {"account_id": account_id, "ids": list(parents)})).one()
    return row.parents, row.held


async def other_holder(connection: Connection, account_id: AccountId, stream: str, but: Sequence[int]) -> Due | None:
    """Return a parent, none of ``but``, that was lately shown to hold something: it can testify that others do not."""
    table, owner = _HOLDERS[stream]
    parent = "groups" if stream == "group_members" else "relations"
    looking = text(f"""
        SELECT p.id, p.remote_id AS key FROM crm.{table} h JOIN crm.{parent} p ON p.id = h.{owner}
        WHERE p.account_id = :account_id AND p.remote_id IS NOT NULL AND p.missing_since IS NULL
          AND h.missing_since IS NULL AND NOT p.id = ANY(CAST(:but AS bigint[])){_was_shown(stream)}
        ORDER BY h.last_seen_at DESC, p.id LIMIT 1
    """)
    row = (await connection.execute(looking, {"account_id": account_id, "but": list(but)})).one_or_none()
    return None if row is None else Due(row.id, row.key)


def _was_shown(stream: str) -> str:
    """Return the condition that a pull, not a given-up edit, has brought what a parent holds."""
    table, _ = _HOLDERS[stream]
    kind = _KINDS.get(table)
    if kind is None:
        return ""
    return f" AND NOT {is_link_left('h.relation_id', kind, f'h.{kind}_id', 'h.last_seen_at')}"


async def mark_missing(connection: Connection, scope: Scope, table: str, ids: Sequence[int]) -> int:
    """Mark rows missing whose absence is confirmed, by a person or by a second answer; return how many."""
    values = {"ids": list(ids), "now": scope.now}
    marked = list((await connection.execute(text(_MISSING.format(table)), values)).scalars())
    await record(connection, scope, table, [missing(row_id, scope.now) for row_id in marked])
    return len(marked)
