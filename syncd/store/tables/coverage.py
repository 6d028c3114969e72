"""Schema ``syncd``: what coverage learns from the past."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Date, Double, Integer, PrimaryKeyConstraint, Table, Text

from syncd.store.tables.columns import Instant, metadata, reference

lateness = Table(
    "lateness",
    metadata,
    reference("account_id", "crm.accounts.id"),
    Column("stream", Text, nullable=False),
    Column("month", Date, nullable=False),
    Column("bucket", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    CheckConstraint("bucket >= 0", name="lateness_bucket_check"),
    PrimaryKeyConstraint("account_id", "stream", "month", "bucket"),
    schema="syncd",
)

rungs = Table(
    "rungs",
    metadata,
    reference("account_id", "crm.accounts.id"),
    Column("stream", Text, nullable=False),
    Column("reach_s", Double, nullable=False),
    Column("read_at", Instant),
    Column("tried_at", Instant),
    PrimaryKeyConstraint("account_id", "stream", "reach_s"),
    schema="syncd",
)
