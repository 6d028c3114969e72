"""Schema ``syncd``: the questions that pulls ask before they do more than they may."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

from syncd.policy.states import RunHoldStatus
from syncd.store.tables.columns import Instant, identity, metadata, one_of, reference

run_holds = Table(
    "run_holds",
    metadata,
    identity(),
    reference("account_id", "crm.accounts.id"),
    Column("stream", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'open'")),
    Column("run_id", BigInteger, nullable=False),
    Column("known", BigInteger, nullable=False),
    Column("rewritten", BigInteger, nullable=False),
    Column("missing", BigInteger, nullable=False),
    Column("examples", JSONB, nullable=False, server_default=text("'[]'")),
    Column("occurrences", Integer, nullable=False, server_default=text("1")),
    Column("opened_at", Instant, nullable=False, server_default=func.now()),
    Column("last_seen_at", Instant, nullable=False, server_default=func.now()),
    Column("decided_at", Instant),
    Column("expires_at", Instant),
    Column("used_run_id", BigInteger),
    one_of("status", tuple(RunHoldStatus), name="run_holds_status_check"),
    Index(
        "run_holds_current_key",
        "account_id",
        "stream",
        unique=True,
        postgresql_where=text("status IN ('open', 'approved', 'rejected')"),
    ),
    schema="syncd",
)
