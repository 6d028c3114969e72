"""Late links: orders and invoices that name a relation which the mirror did not know yet, or not alone.

An invoice of the list names its relation by address only. It is linked when exactly one relation has that address,
whatever its letter case; two would be a guess, so neither is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from syncd.domain.ids import RunId
from syncd.store.engine import Connection

_LINK = text("""
    WITH orders AS (
        UPDATE crm.orders o SET relation_id = r.id
        FROM crm.relations r
        WHERE r.id = ANY(CAST(:ids AS bigint[])) AND o.account_id = r.account_id AND o.relation_id IS NULL
          AND o.relation_remote_id = r.remote_id
        RETURNING o.account_id, 'orders' AS table_name, o.id, o.relation_id
    ), invoices AS (
        UPDATE crm.invoices i SET relation_id = r.id
        FROM crm.relations r
        WHERE r.id = ANY(CAST(:ids AS bigint[])) AND i.account_id = r.account_id AND i.relation_id IS NULL
          AND lower(i.relation_email) = lower(r.email)
          AND (i.relation_remote_id IS NULL OR i.relation_remote_id = r.remote_id)
          AND NOT EXISTS (SELECT FROM crm.relations twin
                          WHERE twin.account_id = r.account_id AND lower(twin.email) = lower(r.email)
                            AND twin.id <> r.id)
        RETURNING i.account_id, 'invoices', i.id, i.relation_id
    )
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, run_id, before, after)
    SELECT account_id, table_name, id, 'update', 'remote', CAST(:run_id AS bigint),
           '{"relation_id": null}', jsonb_build_object('relation_id', relation_id)
    FROM (SELECT * FROM orders UNION ALL SELECT * FROM invoices) AS linked
""")


async def link_relations(connection: Connection, ids: Sequence[int], run_id: RunId) -> None:
    """Link what waited for these relations, after they appeared or got an id or another address."""
    if not ids:
        return
    await connection.execute(_LINK, {"ids": list(ids), "run_id": run_id})
