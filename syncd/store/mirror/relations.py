"""Relations: compared by value, because an application edits them too.

A row that differs is locked first (rows that an application holds are left for the next run), then its undelivered
local changes are read, and only then the answer is merged into it: see ``policy.merge``. Waiting for a lock is never
an option, neither for us nor for the application.

The content hash and ``raw`` are of the last answer, also where a local value was kept: they are what the CRM said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET
from sqlalchemy import text

from syncd.domain.records import Relation, Row
from syncd.policy.diff import Difference, diff
from syncd.policy.merge import Conflict, Owner, Trail, merge, trails
from syncd.store.engine import Connection
from syncd.store.history import Change, found, record
from syncd.store.mirror import erased, proving
from syncd.store.mirror.conflicts import Noticed, agree, notice
from syncd.store.mirror.links import link_relations
from syncd.store.mirror.normal import columns_of, digest, last_of_each, raw_text, warnings_of
from syncd.store.mirror.respelling import respell
from syncd.store.mirror.scope import Scope, Written
from syncd.store.mirror.undelivered import held, undelivered

COLUMNS = ("email", "first_name", "suffix", "last_name", "gender", "funnel_state")
_SELECTED = "id, remote_id, content_hash, last_seen_at, missing_since, " + ", ".join(COLUMNS)

_KNOWN = text(f"""
    SELECT {_SELECTED} FROM crm.relations
    WHERE account_id = :account_id AND remote_id = ANY(CAST(:remote_ids AS text[]))
""")
# By the address that its create carries, too: an application may have changed it since.
_WAITING = text("""
    WITH unbound AS MATERIALIZED (
        SELECT r.id, lower(r.email) AS email,
               lower(coalesce((SELECT e.payload ->> 'email' FROM syncd.lanes l JOIN syncd.entries e ON e.lane_id = l.id
                               WHERE l.account_id = r.account_id AND l.relation_id = r.id
                                 AND e.operation = 'create_relation'
                                 AND e.status IN ('pending', 'held', 'dead', 'parked', 'diverged') LIMIT 1),
                              (SELECT c.payload ->> 'email' FROM syncd.captures c
                               WHERE c.relation_id = r.id AND c.operation = 'create_relation' LIMIT 1))) AS created
        FROM crm.relations r WHERE r.account_id = :account_id AND r.remote_id IS NULL
    )
    SELECT r.id, i.remote_id
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
    JOIN unbound r ON lower(i.email) IN (r.email, r.created)
    ORDER BY lower(i.email) IS DISTINCT FROM r.created
""")
_LOCK = text(f"""
    SELECT {_SELECTED} FROM crm.relations WHERE id = ANY(CAST(:ids AS bigint[]))
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
""")
_ARRAYS = ", ".join(f"CAST(:{name} AS text[])" for name in COLUMNS)
_INSERT = text(f"""
    INSERT INTO crm.relations (account_id, remote_id, content_hash, raw, {", ".join(COLUMNS)})
    SELECT :account_id, i.remote_id, i.hash, CAST(i.raw AS jsonb), {", ".join("i." + name for name in COLUMNS)}
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:hashes AS bytea[]), CAST(:raws AS text[]), {_ARRAYS})
        AS i (remote_id, hash, raw, {", ".join(COLUMNS)})
    ON CONFLICT (account_id, remote_id) DO NOTHING
    RETURNING id
""")
_UPDATE = text(f"""
    UPDATE crm.relations r
    SET remote_id = i.remote_id, content_hash = i.hash, raw = CAST(i.raw AS jsonb),
        {", ".join(f"{name} = i.{name}" for name in COLUMNS)},
        changed_at = CASE WHEN i.is_changed THEN now() ELSE r.changed_at END, missing_since = NULL,
        last_seen_at = CASE WHEN CAST(:is_retold AS boolean) THEN r.last_seen_at ELSE now() END
    FROM unnest(CAST(:ids AS bigint[]), CAST(:changed AS boolean[]), CAST(:remote_ids AS text[]),
                CAST(:hashes AS bytea[]), CAST(:raws AS text[]), {_ARRAYS})
        AS i (id, is_changed, remote_id, hash, raw, {", ".join(COLUMNS)})
    WHERE r.id = i.id
""")
_TOUCH = text("""
    UPDATE crm.relations SET last_seen_at = now()
    WHERE id IN (SELECT id FROM crm.relations WHERE id = ANY(CAST(:ids AS bigint[])) FOR NO KEY UPDATE SKIP LOCKED)
""")

Old = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Merge:
    """One row to write: what it was, what the answer said, what it becomes."""

    old: Old
    row: Row[Relation]
    values: Mapping[str, object]
    difference: Difference
    conflicts: tuple[Conflict, ...]
    waiting: Mapping[str, Trail]


async def write(connection: Connection, scope: Scope, rows: Sequence[Row[Relation]]) -> Written:
    """Write what differs of the relations an answer showed. Erased persons are left out."""
    received = len(rows)
    rows = await erased.without_relations(connection, scope, rows)
    last, doubles = last_of_each(rows, lambda relation: relation.remote_id)
    known = {row.remote_id: row._asdict() for row in await connection.execute(_KNOWN, _keys(scope, last))}
    waiting = await _waiting(connection, scope, {name: row for name, row in last.items() if name not in known})
    shown = {known[name]["id"]: row.record for name, row in last.items() if name in known}
    shown |= {waiting[name]: last[name].record for name in waiting}
    doubts = await proving.by_relations(connection, scope, shown)
    new = [row for name, row in last.items() if name not in known and name not in waiting]
    waiting_for_a_person = await held(connection, scope, "relations", list(shown))
    differing = {
        known[name]["id"]: row
        for name, row in last.items()
        if name in known and (known[name]["id"] in waiting_for_a_person or _differs(known[name], row))
    }
    adopted = {waiting[name]: last[name] for name in waiting}
    inserted = await _insert(connection, scope, new)
    merged, deferred = await _merge_rows(connection, scope, differing | adopted, waiting_for_a_person)
    updated = await _update(connection, scope, merged)
    clashes = await _notice(connection, scope, merged)
    await _touch(connection, scope, [row for name, row in known.items() if row["id"] not in differing])
    if scope.is_strange:
        await respell(
            connection, "relations", {known[name]["id"]: row.raw for name, row in last.items() if name in known}
        )
    unchanged = len(last) - inserted - updated - deferred
    warnings = doubles + warnings_of(rows) + doubts + clashes
    return Written(received, inserted, updated, unchanged, deferred=deferred, warnings=warnings)


async def _waiting(connection: Connection, scope: Scope, rows: Mapping[str, Row[Relation]]) -> dict[str, int]:
    """Return, by remote id, the local row without one that has the same address; the first claim to a row wins."""
    named = {name: row.record.email for name, row in rows.items() if isinstance(row.record.email, str)}
    if not named:
        return {}
    values = {"account_id": scope.account_id, "remote_ids": list(named), "emails": list(named.values())}
    claims: dict[int, str] = {}
    for row in await connection.execute(_WAITING, values):
        claims.setdefault(row.id, row.remote_id)
    return {remote_id: row_id for row_id, remote_id in claims.items()}


def _differs(old: Old, row: Row[Relation]) -> bool:
    said = {name: getattr(row.record, name) for name in COLUMNS}
    if old["missing_since"] is not None or old["content_hash"] is None or diff(old, said):
        return True
    # An answer that shows a delivered edit differs in nothing, but what was kept of the CRM's word is older: renewed,
    # so that nobody who reads it again brings the value before the edit back.
    return UNSET not in said.values() and old["content_hash"] != digest(row.record)


async def _insert(connection: Connection, scope: Scope, rows: Sequence[Row[Relation]]) -> int:
    if not rows:
        return 0
    values = {"account_id": scope.account_id, **_arrays([row.record for row in rows], rows)}
    ids = list((await connection.execute(_INSERT, values)).scalars())
    await record(connection, scope, "relations", [Change(row_id, "insert") for row_id in ids])
    await link_relations(connection, ids, scope.run_id)
    return len(ids)


async def _merge_rows(
    connection: Connection,
    scope: Scope,
    differing: Mapping[int, Row[Relation]],
    waiting: Mapping[int, Mapping[str, Trail]],
) -> tuple[list[_Merge], int]:
    """Lock the differing rows, read what protects them, merge. Return the rows to write and how many are held."""
    if not differing:
        return [], 0
    locked = [row._asdict() for row in await connection.execute(_LOCK, {"ids": list(differing)})]
    ids = [row["id"] for row in locked]
    edits = await undelivered(connection, scope, ids)
    merged = [
        _merged(old, differing[old["id"]], trails(edits.get(old["id"], ())), waiting.get(old["id"], {}))
        for old in locked
    ]
    return merged, len(differing) - len(locked)


def _merged(old: Old, row: Row[Relation], moved: Mapping[str, Trail], waiting: Mapping[str, Trail]) -> _Merge:
    said = {name: getattr(row.record, name) for name in COLUMNS}
    outcome = merge(old, said, {**moved, **waiting})
    values = {**{name: old[name] for name in COLUMNS}, **outcome.values, "remote_id": row.record.remote_id}
    return _Merge(old, row, values, diff(old, values), outcome.conflicts, waiting)


async def _update(connection: Connection, scope: Scope, merged: Sequence[_Merge]) -> int:
    """Write the merged rows that become different; return how many changed."""
    moved = [one for one in merged if _is_news(one)]
    if not moved:
        return 0
    values = {
        "ids": [one.old["id"] for one in moved],
        "changed": [bool(one.difference) for one in moved],
        "remote_ids": [one.row.record.remote_id for one in moved],
        "hashes": [digest(one.row.record) for one in moved],
        "raws": [raw_text(one.row.raw) for one in moved],
        **{name: [one.values[name] for one in moved] for name in COLUMNS},
        "is_retold": scope.is_retold,
    }
    await connection.execute(_UPDATE, values)
    await record(connection, scope, "relations", [change for one in moved for change in _changes(one)])
    relinked = [one.old["id"] for one in moved if {"email", "remote_id"} & set(one.difference.after)]
    await link_relations(connection, relinked, scope.run_id)
    return sum(1 for one in moved if one.difference)


async def _notice(connection: Connection, scope: Scope, merged: Sequence[_Merge]) -> tuple[str, ...]:
    """Write down the fields that both sides moved, and those of which they say the same again."""
    both = [(one.old["id"], value) for one in merged for value in _both(one)]
    await agree(connection, scope, "relations", [pair for pair in both if pair[1].is_settled])
    found = [Noticed(row_id, clash, Owner.HOLD) for row_id, clash in both if not clash.is_settled]
    found += [
        Noticed(one.old["id"], clash, scope.owners.of(clash.field))
        for one in merged
        for clash in one.conflicts
        if clash.field not in one.waiting
    ]
    return await notice(connection, scope, "relations", found)


def _both(one: _Merge) -> list[Conflict]:
    """Return what both sides say by now of the fields that wait, where the answer says something of them."""
    said = {name: getattr(one.row.record, name) for name in one.waiting if name in COLUMNS}
    return [
        Conflict(name, one.waiting[name].base, one.old[name], value, one.waiting[name].made_at)
        for name, value in said.items()
        if value is not UNSET
    ]


def _is_news(one: _Merge) -> bool:
    is_same_answer = one.old["content_hash"] == digest(one.row.record)
    return bool(one.difference) or one.old["missing_since"] is not None or not is_same_answer


def _changes(one: _Merge) -> list[Change]:
    changes = [found(one.old["id"], one.old["missing_since"])] if one.old["missing_since"] is not None else []
    if one.difference:
        changes.append(Change(one.old["id"], "update", one.difference.before, one.difference.after))
    return changes


async def _touch(connection: Connection, scope: Scope, unchanged: Sequence[Old]) -> None:
    stale = [row["id"] for row in unchanged if row["last_seen_at"] < scope.touch_before]
    if stale:
        await connection.execute(_TOUCH, {"ids": stale})


def _keys(scope: Scope, last: Mapping[str, Row[Relation]]) -> dict[str, object]:
    return {"account_id": scope.account_id, "remote_ids": list(last)}


def _arrays(records: Sequence[Relation], rows: Sequence[Row[Relation]]) -> dict[str, object]:
    return {
        "remote_ids": [relation.remote_id for relation in records],
        "hashes": [digest(relation) for relation in records],
        "raws": [raw_text(row.raw) for row in rows],
        **columns_of(records, *COLUMNS),
    }
