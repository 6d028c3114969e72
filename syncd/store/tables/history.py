"""What the history and the auditor keep beside the changes themselves."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, func

from syncd.store.tables.columns import XID8, Instant, identity, metadata, reference

history_horizons = Table(
    "history_horizons",
    metadata,
    Column("account_id", BigInteger, ForeignKey("crm.accounts.id"), primary_key=True, autoincrement=False),
    Column("kept_since", Instant, nullable=False),
    Column("pruned_xact", XID8),
    Column("pruned_id", BigInteger),
    schema="syncd",
)

audits = Table(
    "audits",
    metadata,
    identity(),
    reference("account_id", "crm.accounts.id"),
    Column("kind", Text, nullable=False),
    Column("run_id", BigInteger),
    Column("asked", Integer, nullable=False),
    Column("equal", Integer, nullable=False),
    Column("late", Integer, nullable=False),
    Column("wrong", Integer, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("vanished", Integer, nullable=False),
    Column("unread", Integer, nullable=False),
    Column("audited_at", Instant, nullable=False, server_default=func.now()),
    Index("audits_kind_idx", "account_id", "kind", "audited_at"),
    schema="syncd",
)
