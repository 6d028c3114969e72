"""Catalogues: the small collections that are always read whole. Tags, fields, groups and lists are written alike.

They number in the hundreds, so all known rows are read and compared by value. A row that an answer lacks is only
noted; ``missing_since`` is set when a second answer, apart in time, lacks it too (``policy.absence``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.records import FreeField, Group, MailingList, Row, Tag
from syncd.policy.absence import Absence, judge
from syncd.policy.diff import diff
from syncd.store.engine import Connection
from syncd.store.history import Change, found, missing, record
from syncd.store.mirror.normal import digest, last_of_each, raw_text, warnings_of
from syncd.store.mirror.respelling import respell
from syncd.store.mirror.scope import Gone, Scope, Written
from syncd.store.readings import absences, forget_absence, note_absence

_NOTHING: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
_LINK_LISTS = text("""
    WITH known AS (
        SELECT l.id, l.group_id AS before, g.id AS after
        FROM crm.lists l JOIN crm.groups g ON g.account_id = l.account_id AND g.remote_id = l.group_remote_id
        WHERE l.account_id = :account_id AND l.group_id IS DISTINCT FROM g.id
    ), linked AS (
        UPDATE crm.lists l SET group_id = known.after FROM known WHERE l.id = known.id
        RETURNING l.id, known.before, known.after
    )
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, run_id, before, after)
    SELECT CAST(:account_id AS bigint), 'lists', id, 'update', 'remote', CAST(:run_id AS bigint),
           jsonb_build_object('group_id', before), jsonb_build_object('group_id', after)
    FROM linked
""")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One such table: its columns with their SQL types, and how a record fills them."""

    table: str
    columns: Mapping[str, str]
    values: Callable[[Any], dict[str, Any]]


def _tag(tag: Tag) -> dict[str, Any]:
    return {"name": tag.name}


def _field(field: FreeField) -> dict[str, Any]:
    return {
        "code": field.code,
        "name": field.name,
        "type": field.type,
        "options": list(field.options),
        "is_writable": field.is_writable,
    }


def _group(group: Group) -> dict[str, Any]:
    return {"title": group.title}


def _list(one: MailingList) -> dict[str, Any]:
    return {"name": one.name, "category": one.category, "code": one.code, "group_remote_id": one.group_remote_id}


CATALOGUES: Mapping[str, Catalogue] = {
    "Tag": Catalogue("tags", {"name": "text"}, _tag),
    "FreeField": Catalogue(
        "fields",
        {"code": "text", "name": "text", "type": "text", "options": "text[]", "is_writable": "boolean"},
        _field,
    ),
    "Group": Catalogue("groups", {"title": "text"}, _group),
    "MailingList": Catalogue(
        "lists", {"name": "text", "category": "text", "code": "text", "group_remote_id": "text"}, _list
    ),
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What the mirror holds of a catalogue: rows by remote id. A row without ``raw`` was named, never shown."""

    rows: Mapping[str, Mapping[str, Any]]

    def lacking(self, shown: set[str]) -> Gone:
        """Return which known rows an answer lacks."""
        known = [name for name, row in self.rows.items() if row["content_hash"] and row["missing_since"] is None]
        return Gone(len(known), tuple(name for name in known if name not in shown))


async def contents(connection: Connection, scope: Scope, kind: Catalogue) -> Contents:
    """Read what is known of a catalogue."""
    selected = text(f"""
        SELECT id, remote_id, content_hash, last_seen_at, missing_since, {", ".join(kind.columns)}
        FROM crm.{kind.table} WHERE account_id = :account_id AND remote_id IS NOT NULL
    """)
    found = await connection.execute(selected, {"account_id": scope.account_id})
    return Contents({row.remote_id: row._asdict() for row in found})


async def write(
    connection: Connection, scope: Scope, kind: Catalogue, known: Contents, rows: Sequence[Row[Any]]
) -> Written:
    """Write what differs of a whole answer."""
    last, doubles = last_of_each(rows, lambda one: one.remote_id)
    new = [row for name, row in last.items() if name not in known.rows]
    changed = [row for name, row in last.items() if name in known.rows and _differs(known.rows[name], kind, row)]
    await _insert(connection, scope, kind, new)
    await _update(connection, scope, kind, known, changed)
    seen = [known.rows[name] for name in last if name in known.rows]
    if scope.is_strange:
        raws = {known.rows[name]["id"]: row.raw for name, row in last.items() if name in known.rows}
        await respell(connection, kind.table, raws)
    if not scope.is_retold:
        await forget_absence(connection, scope, kind.table, [row["id"] for row in seen])
    await _touch(connection, scope, kind, seen)
    if kind.table in ("lists", "groups"):
        await connection.execute(_LINK_LISTS, {"account_id": scope.account_id, "run_id": scope.run_id})
    unchanged = len(last) - len(new) - len(changed)
    return Written(len(rows), len(new), len(changed), unchanged, warnings=doubles + warnings_of(last.values()))


async def mark_absent(
    connection: Connection, scope: Scope, kind: Catalogue, known: Contents, keys: Sequence[str]
) -> int:
    """Note the absence of these rows; mark those missing whose absence is confirmed. Return how many became missing."""
    ids = [known.rows[key]["id"] for key in keys]
    since = await absences(connection, scope, kind.table, ids)
    judged = {row_id: judge(since.get(row_id), scope.now, scope.absence_gap_s) for row_id in ids}
    await note_absence(
        connection, scope, kind.table, [row for row, verdict in judged.items() if verdict is Absence.NOTED]
    )
    confirmed = [row for row, verdict in judged.items() if verdict is Absence.CONFIRMED]
    if confirmed:
        marking = text(f"UPDATE crm.{kind.table} SET missing_since = :now WHERE id = ANY(CAST(:ids AS bigint[]))")
        await connection.execute(marking, {"ids": confirmed, "now": scope.now})
        await record(connection, scope, kind.table, [missing(row_id, scope.now) for row_id in confirmed])
    return len(confirmed)


def _differs(old: Mapping[str, Any], kind: Catalogue, row: Row[Any]) -> bool:
    is_same = old["missing_since"] is None and old["content_hash"] == digest(row.record)
    return not is_same or bool(diff(old, _said(kind, row, old)))


def _said(kind: Catalogue, row: Row[Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a row says; of one with warnings what is empty is taken from what is known."""
    values = kind.values(row.record)
    if old is None or not row.warnings:
        return values
    return {name: old[name] if value is None else value for name, value in values.items()}


async def _insert(connection: Connection, scope: Scope, kind: Catalogue, rows: Sequence[Row[Any]]) -> None:
    if not rows:
        return
    names = ", ".join(kind.columns)
    inserting = text(f"""
        INSERT INTO crm.{kind.table} (account_id, remote_id, content_hash, raw, {names})
        SELECT :account_id, i.remote_id, i.hash, CAST(i.raw AS jsonb), {_casts(kind)} FROM {_given(kind)}
        ON CONFLICT (account_id, remote_id) DO NOTHING
        RETURNING id
    """)
    ids = (await connection.execute(inserting, _arrays(scope, kind, rows))).scalars()
    await record(connection, scope, kind.table, [Change(row_id, "insert") for row_id in ids])


async def _update(
    connection: Connection, scope: Scope, kind: Catalogue, known: Contents, rows: Sequence[Row[Any]]
) -> None:
    if not rows:
        return
    updating = text(f"""
        UPDATE crm.{kind.table} t
        SET ({", ".join(kind.columns)}) = ROW({_casts(kind)}), content_hash = i.hash, raw = CAST(i.raw AS jsonb),
            last_seen_at = CASE WHEN CAST(:is_retold AS boolean) THEN t.last_seen_at ELSE now() END,
            changed_at = now(), missing_since = NULL
        FROM {_given(kind)}
        WHERE t.account_id = :account_id AND t.remote_id = i.remote_id
    """)
    await connection.execute(updating, {**_arrays(scope, kind, rows, known.rows), "is_retold": scope.is_retold})
    changes = [change for row in rows for change in _changes(known.rows[row.record.remote_id], kind, row)]
    await record(connection, scope, kind.table, changes)


def _changes(old: Mapping[str, Any], kind: Catalogue, row: Row[Any]) -> list[Change]:
    changes = [found(old["id"], old["missing_since"])] if old["missing_since"] is not None else []
    difference = diff(old, _said(kind, row, old))
    if difference:
        changes.append(Change(old["id"], "update", difference.before, difference.after))
    return changes


async def _touch(connection: Connection, scope: Scope, kind: Catalogue, seen: Sequence[Mapping[str, Any]]) -> None:
    stale = [row["id"] for row in seen if row["last_seen_at"] < scope.touch_before]
    if stale:
        touching = text(f"UPDATE crm.{kind.table} SET last_seen_at = now() WHERE id = ANY(CAST(:ids AS bigint[]))")
        await connection.execute(touching, {"ids": stale})


def _given(kind: Catalogue) -> str:
    """The rows as unnested arrays. Arrays of arrays cannot be unnested: an array column travels as JSON text."""
    arrays = ", ".join(
        f"CAST(:{name} AS {'text' if '[' in type_ else type_}[])" for name, type_ in kind.columns.items()
    )
    names = ", ".join(kind.columns)
    return (
        "unnest(CAST(:remote_ids AS text[]), CAST(:hashes AS bytea[]), CAST(:raws AS text[]), "
        f"{arrays}) AS i (remote_id, hash, raw, {names})"
    )


def _casts(kind: Catalogue) -> str:
    return ", ".join(
        f"ARRAY(SELECT jsonb_array_elements_text(CAST(i.{name} AS jsonb)))" if "[" in type_ else f"i.{name}"
        for name, type_ in kind.columns.items()
    )


def _arrays(
    scope: Scope, kind: Catalogue, rows: Sequence[Row[Any]], known: Mapping[str, Mapping[str, Any]] = _NOTHING
) -> dict[str, object]:
    values = [_said(kind, row, known.get(row.record.remote_id)) for row in rows]
    return {
        "account_id": scope.account_id,
        "remote_ids": [row.record.remote_id for row in rows],
        "hashes": [digest(row.record) for row in rows],
        "raws": [raw_text(row.raw) for row in rows],
        **{name: [_sent(one[name], type_) for one in values] for name, type_ in kind.columns.items()},
    }


def _sent(value: object, type_: str) -> object:
    return msgspec.json.encode(value).decode() if "[" in type_ else value
