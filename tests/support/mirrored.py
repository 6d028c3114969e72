"""The mirror's content: what the tables of ``crm`` say, without what two equal mirrors may differ in.

Two mirrors of one world differ in our own ids, in the times at which we looked, and in the raw JSON. Here a row is
named by the CRM's key for it, a reference by the key of what it refers to, an absence by whether it is noted. Every
other column of every table counts, so a column that is new is compared without being named here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Column, Table

from syncd.store import Connection, Store
from syncd.store.tables import metadata

Key: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = dict[tuple[str, Key], tuple[Any, ...]]

TABLES = tuple(table for table in metadata.sorted_tables if table.schema == "crm")
# Times at which syncd looked, wrote or will look again (what the CRM says of time is ``purchased_at``, ``event_at``),
# its count of tries, and its digest of a row.
_OURS = frozenset(
    {"first_seen_at", "last_seen_at", "changed_at", "detail_at", "detail_next_at", "detail_attempts", "fetched_at"}
    | {"content_hash"}
)
_SAID = frozenset({"raw", "detail_raw", "detail_error"})
_KEYS: Mapping[str, tuple[str, ...]] = {
    "accounts": ("name",),
    "fields": ("code",),
    "invoices": ("number", "is_credit"),
    "relations": ("remote_id", "email"),
}
_LEFT_OUT = ",".join(sorted(_OURS | _SAID))
_ALL = " UNION ALL ".join(
    f"SELECT '{table.name}', (to_jsonb(t) - '{{{_LEFT_OUT}}}'::text[])::text FROM crm.{table.name} t"
    for table in TABLES
)


@dataclass(frozen=True, slots=True)
class Content:
    """``rows`` by table and key; ``names`` are the keys of the rows of each table by our ids."""

    rows: Rows
    names: Mapping[str, Mapping[int, Key]]


async def content(store: Store) -> Content:
    """Return what the mirror says now."""
    async with store.begin() as connection:
        return await content_by(connection)


async def content_by(connection: Connection) -> Content:
    """Return the same, as one transaction sees it."""
    said: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
    for name, row in await connection.exec_driver_sql(_ALL):
        said[name].append(msgspec.json.decode(row))
    names: dict[str, dict[int, Key]] = {}
    rows: Rows = {}
    for table in TABLES:
        if "id" in table.c:
            keys = _KEYS.get(table.name, ("remote_id",))
            names[table.name] = {row["id"]: tuple(row[key] for key in keys) for row in said[table.name]}
        kept = [column for column in table.c if _counts(column)]
        for row in said[table.name]:
            rows[table.name, _key(table, row, names)] = tuple(_value(each, row[each.name], names) for each in kept)
    return Content(rows, names)


async def lines(store: Store) -> Counter[str]:
    """Return each row as one line with our ids in it: to compare a mirror with itself, which costs less."""
    async with store.begin() as connection:
        return Counter(f"{name} {row}" for name, row in await connection.exec_driver_sql(_ALL))


def difference(one: Content, other: Content) -> list[str]:
    """Say what the one has that the other lacks (-), and the other way round (+); nothing when they are equal."""
    found = []
    for sign, mine, theirs in (("-", one.rows, other.rows), ("+", other.rows, one.rows)):
        found += [f"{sign} {_told(key[0], row)}" for key, row in mine.items() if theirs.get(key) != row]
    return found


def blanked(one: Content) -> Content:
    """Return the content with every blank as null: whether nothing is spelled "", "-" or null says nothing."""
    return Content({key: tuple(_unblanked(each) for each in row) for key, row in one.rows.items()}, one.names)


def _unblanked(value: Any) -> Any:
    return None if value in ("", "-") else value


def _counts(column: Column[Any]) -> bool:
    return column.name != "id" and column.name not in _OURS and column.name not in _SAID


def _key(table: Table, row: Mapping[str, Any], names: Mapping[str, Mapping[int, Key]]) -> Key:
    if "id" in table.c:
        return names[table.name][row["id"]]
    return tuple(_value(column, row[column.name], names) for column in table.primary_key)


def _value(column: Column[Any], value: Any, names: Mapping[str, Mapping[int, Key]]) -> Any:
    if column.name == "missing_since":
        return value is not None
    if isinstance(value, list):
        return tuple(value)
    for key in column.foreign_keys:
        return None if value is None else names[key.column.table.name][value]
    return value


def _told(name: str, row: tuple[Any, ...]) -> str:
    (table,) = (table for table in TABLES if table.name == name)
    columns = [column.name for column in table.c if _counts(column)]
    said = (f"{column}={value!r}" for column, value in zip(columns, row, strict=True) if value is not None)
    return f"{name} {', '.join(said)}"
