"""Schema ``syncd``: what is fetched beside the rows, and what answers lacked of links."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, PrimaryKeyConstraint, Table, Text, text

from syncd.store.tables.columns import Instant, metadata, reference

invoice_fetches = Table(
    "invoice_fetches",
    metadata,
    reference("invoice_id", "crm.invoices.id", ondelete="CASCADE"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", Instant),
    Column("error", Text),
    Column("sha256", LargeBinary),
    Column("size_bytes", BigInteger),
    Column("content_type", Text),
    PrimaryKeyConstraint("invoice_id"),
    schema="syncd",
)

absent_standings = Table(
    "absent_standings",
    metadata,
    Column("relation_id", BigInteger, nullable=False),
    Column("list_id", BigInteger, nullable=False),
    Column("absent_since", Instant, nullable=False),
    PrimaryKeyConstraint("relation_id", "list_id"),
    schema="syncd",
)
