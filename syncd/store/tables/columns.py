"""What the tables share: their registry, names of keys, column types and the columns that recur.

Keys are named by convention (``runs_pkey``, ``runs_account_id_fkey``), exactly as ``migrations/sql`` spells them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Identity, LargeBinary, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "fk": "%(table_name)s_%(column_0_name)s_fkey"},
)
Instant = TIMESTAMP(timezone=True)


class XID8(UserDefinedType[int]):
    """A 64-bit transaction id, as an int."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


ischema_names["xid8"] = XID8  # else reflection warns of a type that it does not know


def identity(*, is_key: bool = True) -> Column[int]:
    """Our own number of a row; its primary key unless the table says otherwise."""
    return Column("id", BigInteger, Identity(always=False), primary_key=is_key, nullable=False)


def reference(name: str, target: str, *, ondelete: str | None = None, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, ForeignKey(target, ondelete=ondelete), nullable=nullable)


def seen() -> tuple[Column[Any], ...]:
    """When the CRM first and last showed the row."""
    return (
        Column("first_seen_at", Instant, nullable=False, server_default=func.now()),
        Column("last_seen_at", Instant, nullable=False, server_default=func.now()),
    )


def mirrored() -> tuple[Column[Any], ...]:
    """The columns of every mirrored row except ``missing_since``, which a row must declare for itself."""
    return (
        Column("raw", JSONB),
        Column("content_hash", LargeBinary),
        *seen(),
        Column("changed_at", Instant, nullable=False, server_default=func.now()),
    )


def one_of(column: str, values: Sequence[str], *, name: str) -> CheckConstraint:
    """A CHECK that ``column`` holds one of ``values``; pass the members of a state machine as they are declared."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)
