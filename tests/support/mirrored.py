"""The mirror's content: what the tables of ``crm`` say, without what two equal mirrors may differ in.

Two mirrors of one world differ in our own ids, in the times at which we looked, and in the raw JSON. Here a row is
named by the CRM's key for it, a reference by the key of what it refers to, an absence by whether it is noted. Every
other column of every table counts, so a column that is new is compared without being named here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Column, Table

from syncd.store import Connection, Store
from syncd.store.tables import metadata

Content: TypeAlias = dict[str, Counter[tuple[Any, ...]]]
Names: TypeAlias = dict[str, dict[int, Any]]

TABLES = tuple(table for table in metadata.sorted_tables if table.schema == "crm")
# Times at which syncd looked, wrote or will look again; what the CRM says of time is ``purchased_at``, ``event_at``.
_OURS = frozenset(
    {"first_seen_at", "last_seen_at", "changed_at", "detail_at", "detail_next_at", "detail_attempts", "fetched_at"}
)
_SAID = frozenset({"raw", "detail_raw", "detail_error"})
_KEYS: Mapping[str, tuple[str, ...]] = {
    "accounts": ("name",),
    "fields": ("code",),
    "invoices": ("number", "is_credit"),
    "relations": ("remote_id", "email"),
}

_ALL = " UNION ALL ".join(
    f"SELECT '{table.name}', (to_jsonb(t) - '{{{','.join(_OURS | _SAID)}}}'::text[])::text FROM crm.{table.name} t"
    for table in TABLES
)
_NAMED = [table.name for table in TABLES if "id" in table.c]


async def content(store: Store) -> Content:
    """Return the rows of each table, in no order."""
    async with store.begin() as connection:
        return await content_by(connection)


async def content_by(connection: Connection) -> Content:
    """Return the same, as one transaction sees it."""
    rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
    for name, row in await connection.exec_driver_sql(_ALL):
        rows[name].append(msgspec.json.decode(row))
    names: Names = {}
    for name in _NAMED:
        keys = _KEYS.get(name, ("remote_id",))
        names[name] = {row["id"]: tuple(row[key] for key in keys) for row in rows[name]}
    found: Content = {}
    for table in TABLES:
        kept = [column for column in table.c if _counts(column)]
        found[table.name] = Counter(
            tuple(_said(column, row[column.name], names) for column in kept) for row in rows[table.name]
        )
    return found


async def lines(store: Store) -> Counter[str]:
    """Return each row as one line with our ids in it: to compare a mirror with itself, which costs less."""
    async with store.begin() as connection:
        return Counter(f"{name} {row}" for name, row in await connection.exec_driver_sql(_ALL))


def columns(table: Table) -> tuple[str, ...]:
    """Name what is compared of a table, in the order of its rows here."""
    return tuple(column.name for column in table.c if _counts(column))


def difference(one: Content, other: Content) -> list[str]:
    """Say what the one has that the other lacks (-), and the other way round (+); nothing when they are equal."""
    found = []
    for table in TABLES:
        mine, theirs = one.get(table.name, Counter()), other.get(table.name, Counter())
        for sign, rows in (("-", mine - theirs), ("+", theirs - mine)):
            found += [f"{sign} {table.name} {_told(table, row)}" for row in rows.elements()]
    return found


def _counts(column: Column[Any]) -> bool:
    return column.name != "id" and column.name not in _OURS and column.name not in _SAID


def _said(column: Column[Any], value: Any, names: Names) -> Any:
    if column.name == "missing_since":
        return value is not None
    if isinstance(value, list):
        return tuple(value)
    for key in column.foreign_keys:
        return None if value is None else names[key.column.table.name][value]
    return value


def _told(table: Table, row: tuple[Any, ...]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in zip(columns(table), row, strict=True) if value is not None)
