"""The tables of erasure: the salt, the receipts, and the hashes that no pull may match."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from syncd.policy.erasure import Invoices, Kind
from syncd.store.tables.columns import Instant, identity, metadata, one_of, reference

erasure_keys = Table(
    "erasure_keys",
    metadata,
    Column("id", SmallInteger, nullable=False, autoincrement=False, server_default=text("1")),
    Column(
        "salt",
        LargeBinary,
        nullable=False,
        server_default=text("uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())"),
    ),
    Column("proof", LargeBinary),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    Column("made_at", Instant, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="erasure_keys_only_check"),
    schema="syncd",
)

erasures = Table(
    "erasures",
    metadata,
    identity(),
    Column("hash", LargeBinary, nullable=False),
    reference("account_id", "crm.accounts.id", nullable=True),
    Column("invoices", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("by_hand", JSONB, nullable=False, server_default=text("'[]'")),
    Column("started_at", Instant, nullable=False, server_default=func.now()),
    Column("finished_at", Instant),
    Column("readmitted_at", Instant),
    Column("readmitted_by", Text),
    one_of("invoices", tuple(Invoices), name="erasures_invoices_check"),
    Index("erasures_hash_idx", "hash"),
    schema="syncd",
)

suppressions = Table(
    "suppressions",
    metadata,
    identity(),
    reference("erasure_id", "syncd.erasures.id"),
    reference("account_id", "crm.accounts.id", nullable=True),
    Column("kind", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    one_of("kind", tuple(Kind), name="suppressions_kind_check"),
    Index("suppressions_hash_idx", "hash"),
    schema="syncd",
)
