"""Schema ``syncd``: the learned shape of the CRM's answers, and the records that could not be read."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, PrimaryKeyConstraint, Table, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY

from syncd.policy.shape import Drift
from syncd.store.tables.columns import Instant, identity, metadata, one_of, reference

shapes = Table(
    "shapes",
    metadata,
    reference("account_id", "crm.accounts.id"),
    Column("stream", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("is_usual", Boolean),
    Column("types", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("drift", Text),
    Column("record", Text),
    Column("noticed_at", Instant),
    Column("accepted_at", Instant),
    one_of("drift", tuple(Drift), name="shapes_drift_check"),
    PrimaryKeyConstraint("account_id", "stream", "key"),
    schema="syncd",
)

unread = Table(
    "unread",
    metadata,
    identity(),
    reference("account_id", "crm.accounts.id"),
    Column("stream", Text, nullable=False),
    Column("parent_id", BigInteger, nullable=False, server_default=text("0")),
    Column("remote_id", Text),
    Column("raw", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_seen_at", Instant, nullable=False, server_default=func.now()),
    Column("last_seen_at", Instant, nullable=False, server_default=func.now()),
    Index("unread_digest_key", "account_id", "stream", "parent_id", "digest", unique=True),
    schema="syncd",
)
