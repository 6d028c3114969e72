"""List subscriptions: a relation's standing on each list. Applications cannot edit them, so the answer simply wins.

An answer whose latest event is older than the known one lacks what has happened: events do not go back. The standing
stays as it is, with a warning.

A list that a subscription names before the snapshot of lists has shown it is created by its remote id alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from syncd.domain.records import Row, Subscription
from syncd.policy.diff import diff
from syncd.store.engine import Connection
from syncd.store.history import Change, record
from syncd.store.mirror import proving
from syncd.store.mirror.scope import Scope, Written

_NAME_LISTS = text("""
    INSERT INTO crm.lists (account_id, remote_id)
    SELECT CAST(:account_id AS bigint), i.remote_id FROM unnest(CAST(:remote_ids AS text[])) AS i (remote_id)
    WHERE NOT EXISTS (SELECT FROM crm.lists l WHERE l.account_id = :account_id AND l.remote_id = i.remote_id)
    ON CONFLICT (account_id, remote_id) DO NOTHING
""")
_LISTS = text("""
    SELECT id, remote_id FROM crm.lists
    WHERE account_id = :account_id AND remote_id = ANY(CAST(:remote_ids AS text[]))
""")
_HELD = text("""
    SELECT relation_id, list_id, status, event_at, last_seen_at FROM crm.list_subscriptions
    WHERE relation_id = ANY(CAST(:ids AS bigint[]))
""")
_ROWS = """
    unnest(CAST(:relation_ids AS bigint[]), CAST(:list_ids AS bigint[]), CAST(:statuses AS text[]),
           CAST(:events AS timestamptz[])) AS i (relation_id, list_id, status, event_at)
"""
_UPSERT = text(f"""
    INSERT INTO crm.list_subscriptions (relation_id, list_id, status, event_at)
    SELECT i.relation_id, i.list_id, i.status, i.event_at FROM {_ROWS}
    ON CONFLICT (relation_id, list_id) DO UPDATE
    SET status = excluded.status, event_at = excluded.event_at, last_seen_at = now(), missing_since = NULL
""")

Key = tuple[int, int]


async def write(connection: Connection, scope: Scope, shown: Mapping[int, Sequence[Row[Subscription]]]) -> Written:
    """Write the standings of relations (by local id), each shown whole."""
    lists = await _lists(connection, scope, [row.record.list_remote_id for rows in shown.values() for row in rows])
    said: dict[Key, dict[str, object]] = {
        (relation_id, lists[row.record.list_remote_id]): {"status": row.record.status, "event_at": row.record.event_at}
        for relation_id, rows in shown.items()
        for row in rows
    }
    standings = {relation_id: [row.record for row in rows] for relation_id, rows in shown.items()}
    doubts = await proving.by_standings(connection, scope, standings)
    found = await connection.execute(_HELD, {"ids": list(shown)})
    held = {(row.relation_id, row.list_id): row._asdict() for row in found}
    older = [key for key in said if key in held and _goes_back(held[key], said[key])]
    received, said = len(said), {key: standing for key, standing in said.items() if key not in older}
    for key in _undated(shown, lists) & held.keys() & said.keys():
        said[key]["event_at"] = held[key]["event_at"]
    new = [key for key in said if key not in held]
    differences = {key: diff(held[key], said[key]) for key in said if key in held}
    changed = [key for key, difference in differences.items() if difference]
    stale = [key for key in said if key in held and held[key]["last_seen_at"] < scope.touch_before]
    await _upsert(connection, {key: said[key] for key in (*new, *changed, *stale)})
    changes = [Change(key[0], "insert", link_id=key[1]) for key in new]
    changes += [Change(k[0], "update", differences[k].before, differences[k].after, k[1]) for k in changed]
    await record(connection, scope, "list_subscriptions", changes)
    warnings = tuple(warning for rows in shown.values() for row in rows for warning in row.warnings)
    unchanged = received - len(new) - len(changed)
    return Written(received, len(new), len(changed), unchanged, warnings=warnings + doubts + _told(older))


def _undated(shown: Mapping[int, Sequence[Row[Subscription]]], lists: Mapping[str, int]) -> set[Key]:
    """Return the standings whose date could not be read: what is known of it stays."""
    return {
        (relation_id, lists[row.record.list_remote_id])
        for relation_id, rows in shown.items()
        for row in rows
        if row.warnings and row.record.event_at is None
    }


def _goes_back(known: Mapping[str, Any], shown: Mapping[str, Any]) -> bool:
    """Tell whether an answer contradicts an event that is younger than its own."""
    is_older = known["event_at"] is not None and shown["event_at"] is not None and shown["event_at"] < known["event_at"]
    return is_older and shown["status"] != known["status"]


def _told(older: Sequence[Key]) -> tuple[str, ...]:
    if not older:
        return ()
    return (f"{len(older)} subscriptions lack the latest event that is known; they are kept as they are",)


async def _lists(connection: Connection, scope: Scope, remote_ids: Sequence[str]) -> dict[str, int]:
    values = {"account_id": scope.account_id, "remote_ids": list(dict.fromkeys(remote_ids))}
    if not remote_ids:
        return {}
    await connection.execute(_NAME_LISTS, values)
    return {row.remote_id: row.id for row in await connection.execute(_LISTS, values)}


async def _upsert(connection: Connection, rows: Mapping[Key, Mapping[str, object]]) -> None:
    if not rows:
        return
    values = {
        "relation_ids": [key[0] for key in rows],
        "list_ids": [key[1] for key in rows],
        "statuses": [row["status"] for row in rows.values()],
        "events": [row["event_at"] for row in rows.values()],
    }
    await connection.execute(_UPSERT, values)
