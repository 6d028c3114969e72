"""The tables of both schemas as SQLAlchemy Core objects: what statements are built from.

The migrations create the database; these objects only describe it. ``tests/migrations`` compares the two, down to the
text of constraints and indexes, so neither can drift.
"""

from syncd.store.tables.columns import metadata
from syncd.store.tables.coverage import lateness, rungs
from syncd.store.tables.erasure import erasure_keys, erasures, suppressions
from syncd.store.tables.history import audits, history_horizons
from syncd.store.tables.ledger import (
    account_states,
    attempts,
    captures,
    changes,
    conflicts,
    coverage,
    decisions,
    entries,
    holds,
    incidents,
    lane_keys,
    lanes,
    readings,
    ready,
    runs,
)
from syncd.store.tables.mirror import (
    accounts,
    fields,
    group_members,
    groups,
    invoice_files,
    invoice_lines,
    invoices,
    list_subscriptions,
    lists,
    order_lines,
    orders,
    relation_fields,
    relation_tags,
    relations,
    tags,
)
from syncd.store.tables.run_holds import run_holds
from syncd.store.tables.shapes import shapes, unread
from syncd.store.tables.streams import absent_standings, invoice_fetches

__all__ = [
    "absent_standings",
    "account_states",
    "accounts",
    "attempts",
    "audits",
    "captures",
    "changes",
    "conflicts",
    "coverage",
    "decisions",
    "entries",
    "erasure_keys",
    "erasures",
    "fields",
    "group_members",
    "groups",
    "history_horizons",
    "holds",
    "incidents",
    "invoice_fetches",
    "invoice_files",
    "invoice_lines",
    "invoices",
    "lane_keys",
    "lanes",
    "lateness",
    "list_subscriptions",
    "lists",
    "metadata",
    "order_lines",
    "orders",
    "readings",
    "ready",
    "relation_fields",
    "relation_tags",
    "relations",
    "run_holds",
    "rungs",
    "runs",
    "shapes",
    "suppressions",
    "tags",
    "unread",
]
