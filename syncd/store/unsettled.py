"""Unsettled: the relations whose orders may still change without any sign, and which are due to be asked for next.

An order is settled when it is paid and none of its subscriptions runs. Unpaid orders that are very old are given up:
nobody pays them any more. A subscription that has ended is watched a little longer, because an end can be moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection
from syncd.store.followup import Due

ENDED_DAYS = 7  # how long a subscription that has ended is still asked for

_UNSETTLED = """
    SELECT o.relation_id FROM crm.orders o
    WHERE o.account_id = :account_id AND o.is_paid IS NOT TRUE AND o.missing_since IS NULL
      AND (o.purchased_at >= :unpaid_since OR o.purchased_at IS NULL)
    UNION
    SELECT o.relation_id FROM crm.order_lines l JOIN crm.orders o ON o.id = l.order_id
    WHERE o.account_id = :account_id AND l.subscription_id IS NOT NULL AND o.missing_since IS NULL
      AND (l.subscription_ends_on IS NULL OR l.subscription_ends_on >= CAST(:ended_since AS date))
"""
_RELATIONS = f"""
    SELECT n.id, n.remote_id AS key, r.read_at FROM ({_UNSETTLED}) AS u
    JOIN crm.relations n ON n.id = u.relation_id AND n.remote_id IS NOT NULL AND n.missing_since IS NULL
    LEFT JOIN syncd.readings r ON r.account_id = n.account_id AND r.stream = :stream AND r.row_id = n.id
"""
_DUE = text(f"""{_RELATIONS}
    ORDER BY r.read_at NULLS FIRST,
             (SELECT max(o.purchased_at) FROM crm.orders o WHERE o.relation_id = n.id) DESC NULLS LAST, n.id
    LIMIT :budget
""")
_COUNT = text(f"SELECT count(*) FROM ({_RELATIONS}) AS due")


@dataclass(frozen=True, slots=True)
class Since:
    """From when on something may still change: unpaid orders by their purchase, subscriptions by their end."""

    unpaid: datetime
    ended: datetime


def since(now: datetime, unpaid_days: int) -> Since:
    """Return the limits that hold at ``now``."""
    return Since(now - timedelta(days=unpaid_days), now - timedelta(days=ENDED_DAYS))


async def due(
    connection: Connection, account_id: AccountId, stream: str, since: Since, budget: int | None
) -> tuple[Due, ...]:
    """Return the relations to ask for, those read longest ago first, of those never
    read the most recently active, at most ``budget`` (None: all)."""
    rows = await connection.execute(_DUE, {**_values(account_id, stream, since), "budget": budget})
    return tuple(Due(row.id, row.key) for row in rows)


async def count(connection: Connection, account_id: AccountId, stream: str, since: Since) -> int:
    """Count the relations with something unsettled."""
    return int((await connection.execute(_COUNT, _values(account_id, stream, since))).scalar_one())


def _values(account_id: AccountId, stream: str, since: Since) -> dict[str, object]:
    return {"account_id": account_id, "stream": stream, "unpaid_since": since.unpaid, "ended_since": since.ended}
