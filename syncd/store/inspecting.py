"""Inspecting: what an audit must know of the mirror before and after the pull that it watches writes an answer.

All of it is read in the transaction of that pull. What the pull changed is read from the history that it wrote itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from syncd.domain.records import Order, OrderLine
from syncd.store.engine import Connection
from syncd.store.mirror.ambiguous_tags import ambiguous_names
from syncd.store.mirror.order_statements import LINE, OWN
from syncd.store.mirror.orders import hash_of
from syncd.store.mirror.relations import COLUMNS
from syncd.store.mirror.scope import Scope

_CHANGED = text("""
    SELECT row_id, link_id, kind FROM syncd.changes
    WHERE xact = pg_current_xact_id() AND table_name = :table AND origin = 'remote'
""")
_RELATIONS = text(f"""
    SELECT id, content_hash, {", ".join(COLUMNS)} FROM crm.relations WHERE id = ANY(CAST(:ids AS bigint[]))
""")
_TAGS = text("""
    SELECT l.relation_id, t.name FROM crm.relation_tags l JOIN crm.tags t ON t.id = l.tag_id
    WHERE l.relation_id = ANY(CAST(:ids AS bigint[])) AND l.missing_since IS NULL
""")
_STANDINGS = text("""
    SELECT s.relation_id, l.remote_id, s.status, s.event_at
    FROM crm.list_subscriptions s JOIN crm.lists l ON l.id = s.list_id
    WHERE s.relation_id = ANY(CAST(:ids AS bigint[])) AND s.missing_since IS NULL
""")
_DOUBTFUL = text("""
    SELECT DISTINCT relation_id FROM syncd.absent_standings WHERE relation_id = ANY(CAST(:ids AS bigint[]))
""")
# What the history said of a link before this transaction; null where it never spoke of it.
_LINKS = text("""
    SELECT i.row_id, i.link_id,
           (SELECT c.kind FROM syncd.changes c
            WHERE c.table_name = :table AND c.row_id = i.row_id AND c.link_id = i.link_id AND c.origin <> 'local'
              AND c.xact <> pg_current_xact_id()
            ORDER BY c.changed_at DESC, c.id DESC LIMIT 1) AS kind,
           EXISTS (SELECT FROM syncd.history_horizons WHERE account_id = :account_id) AS is_cut
    FROM unnest(CAST(:row_ids AS bigint[]), CAST(:link_ids AS bigint[])) AS i (row_id, link_id)
""")
_ORDERS = text(f"""
    SELECT o.id, o.remote_id, o.relation_id, o.content_hash, {", ".join("o." + name for name in OWN)},
           ARRAY(SELECT ROW({", ".join("l." + name for name in LINE)})
                 FROM crm.order_lines l WHERE l.order_id = o.id ORDER BY l.position) AS lines
    FROM crm.orders o WHERE o.relation_id = ANY(CAST(:ids AS bigint[])) AND o.missing_since IS NULL
""")
_DISTRUST = text("""
    UPDATE crm.orders SET content_hash = decode(repeat('00', 16), 'hex') || substring(content_hash FROM 17)
    WHERE id = ANY(CAST(:ids AS bigint[]))
""")
_COUNT = text("""
    SELECT count(*) FROM crm.orders WHERE relation_id = ANY(CAST(:ids AS bigint[])) AND missing_since IS NULL
""")
_SAID = text("SELECT detail_raw = CAST(CAST(:raw AS text) AS jsonb) FROM crm.invoices WHERE id = :id")
_OPEN = text("""
    SELECT DISTINCT row_id FROM syncd.conflicts
    WHERE table_name = :table AND status = 'open' AND row_id = ANY(CAST(:ids AS bigint[]))
""")


@dataclass(frozen=True, slots=True)
class Changed:
    """What this transaction changed in one table."""

    row_id: int
    link_id: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class HeldOrder:
    """An order of the mirror. ``said`` is the digest of what the CRM last said of it, as far as both endpoints say it;
    ``is_true`` tells whether its columns and lines are still that."""

    id: int
    remote_id: str
    relation_id: int
    said: bytes
    is_true: bool


async def changed_now(connection: Connection, table: str) -> tuple[Changed, ...]:
    """Return what this transaction has changed in a table so far."""
    rows = await connection.execute(_CHANGED, {"table": table})
    return tuple(Changed(row.row_id, row.link_id, row.kind) for row in rows)


async def relation_rows(connection: Connection, ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
    """Return the columns that the CRM speaks of, and the digest of its last answer, by id."""
    return {row.id: row._asdict() for row in await connection.execute(_RELATIONS, {"ids": list(ids)})}


async def tag_names(connection: Connection, ids: Sequence[int]) -> Mapping[int, frozenset[str]]:
    """Return the folded names of the tags that each relation has."""
    found: dict[int, set[str]] = {row_id: set() for row_id in ids}
    for row in await connection.execute(_TAGS, {"ids": list(ids)}):
        found[row.relation_id].add(row.name.strip().casefold())
    return {row_id: frozenset(names) for row_id, names in found.items()}


async def ambiguous_tag_names(connection: Connection, scope: Scope) -> frozenset[str]:
    """Return the folded names that several tags bear: of those nobody knows which one a relation has."""
    return frozenset(name.strip().casefold() for name in await ambiguous_names(connection, scope.account_id))


async def list_standings(
    connection: Connection, ids: Sequence[int]
) -> Mapping[int, Mapping[str, tuple[str, datetime | None]]]:
    """Return the standing of each relation on each list, by the list's remote id."""
    found: dict[int, dict[str, tuple[str, datetime | None]]] = {row_id: {} for row_id in ids}
    for row in await connection.execute(_STANDINGS, {"ids": list(ids)}):
        found[row.relation_id][row.remote_id] = (row.status, row.event_at)
    return found


async def doubtful_standings(connection: Connection, ids: Sequence[int]) -> frozenset[int]:
    """Return the relations of which an answer lacked a standing, and not for long enough to be believed."""
    return frozenset((await connection.execute(_DOUBTFUL, {"ids": list(ids)})).scalars())


async def invented_links(
    connection: Connection, scope: Scope, table: str, changed: Iterable[Changed]
) -> frozenset[int]:
    """Return the relations of which the mirror held, or lacked, a link against its own history.

    A link that came although the history says it was there had been lost here; one that went although the history never
    saw it come had been invented here. Where the history is not whole, its silence says nothing.
    """
    kinds = {(one.row_id, one.link_id): one.kind for one in changed if one.kind in ("insert", "missing")}
    if not kinds:
        return frozenset()
    values = {"table": table, "account_id": scope.account_id}
    pairs = {"row_ids": [row for row, _ in kinds], "link_ids": [link for _, link in kinds]}
    wrong = set()
    for row in await connection.execute(_LINKS, {**values, **pairs}):
        was_there = row.kind in ("insert", "found")
        if kinds[row.row_id, row.link_id] == "insert" and was_there:
            wrong.add(row.row_id)
        if kinds[row.row_id, row.link_id] == "missing" and not was_there and not (row.kind is None and row.is_cut):
            wrong.add(row.row_id)
    return frozenset(wrong)


async def orders_of(connection: Connection, relation_ids: Sequence[int]) -> tuple[HeldOrder, ...]:
    """Return the orders that the mirror holds of these relations."""
    rows = await connection.execute(_ORDERS, {"ids": list(relation_ids)})
    return tuple(_held(row) for row in rows)


async def distrust(connection: Connection, orders: Iterable[HeldOrder]) -> None:
    """Let orders whose columns are not what the CRM said be compared by value: the pull then mends them."""
    ids = [order.id for order in orders if not order.is_true]
    if ids:
        await connection.execute(_DISTRUST, {"ids": ids})


async def count_orders(connection: Connection, relation_ids: Collection[int]) -> int:
    """Count the orders that the mirror holds of these relations."""
    return int((await connection.execute(_COUNT, {"ids": list(relation_ids)})).scalar_one())


async def is_detail_said(connection: Connection, invoice_id: int, raw: bytes) -> bool | None:
    """Tell whether the CRM said just this of an invoice's detail before; None when the invoice is gone."""
    row = (await connection.execute(_SAID, {"id": invoice_id, "raw": raw.decode()})).one_or_none()
    return None if row is None else bool(row[0])


async def in_conflict(connection: Connection, table: str, ids: Sequence[int]) -> frozenset[int]:
    """Return the rows that have an open conflict."""
    return frozenset((await connection.execute(_OPEN, {"table": table, "ids": list(ids)})).scalars())


def _held(row: Any) -> HeldOrder:
    lines = tuple(OrderLine(*line) for line in row.lines)
    order = Order(row.remote_id, row.invoice_number, row.purchased_at, row.is_paid, lines)
    said = bytes(row.content_hash or b"")[:16]
    return HeldOrder(row.id, row.remote_id, row.relation_id, said, hash_of(order)[:16] == said)
