"""What the history and the auditor keep beside the changes themselves."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, ForeignKey, PrimaryKeyConstraint, Table, Text, func

from syncd.store.tables.columns import XID8, Instant, metadata, reference

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
    reference("account_id", "crm.accounts.id"),
    Column("kind", Text, nullable=False),
    Column("audited_on", Date, nullable=False),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("asked", "equal", "late", "wrong", "waiting", "vanished", "unread")
    ),
    Column("last_at", Instant, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("account_id", "kind", "audited_on"),
    schema="syncd",
)
