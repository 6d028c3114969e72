"""How large an account is, where that decides what its cadences cost and how stale its mirror may be."""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.staleness import Size
from syncd.store.engine import Connection
from syncd.store.unsettled import Since, count

_SIZES = text("""
    SELECT
        (SELECT count(*) FROM crm.relations n
         WHERE n.account_id = :account_id AND n.remote_id IS NOT NULL AND n.missing_since IS NULL) AS relations,
        (SELECT count(*) FROM crm.relations n
         WHERE n.account_id = :account_id AND n.remote_id IS NOT NULL AND n.missing_since IS NULL
           AND NOT EXISTS (SELECT FROM crm.group_members m
                           WHERE m.relation_id = n.id AND m.missing_since IS NULL)) AS ungrouped,
        (SELECT count(*) FROM crm.groups g
         WHERE g.account_id = :account_id AND g.remote_id IS NOT NULL AND g.missing_since IS NULL) AS groups,
        (SELECT count(*) FROM crm.invoices v
         WHERE v.account_id = :account_id AND NOT v.is_credit
           AND v.invoiced_on > CAST(now() - interval '30 days' AS date)) AS invoices
""")


async def read_size(connection: Connection, account_id: AccountId, since: Since) -> Size:
    """Return an account's size; new invoices are those dated in the last thirty days."""
    row = (await connection.execute(_SIZES, {"account_id": account_id})).one()
    unsettled = await count(connection, account_id, "relation_orders", since)
    return Size(row.relations, row.ungrouped, unsettled, row.groups, row.invoices / (30 * 24))
