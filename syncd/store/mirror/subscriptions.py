"""List subscriptions: a relation's standing on each list. Applications cannot edit them, so the answer simply wins.

An answer whose latest event is older than the known one lacks what has happened: events do not go back. The standing
stays as it is, with a warning. One that lacks a known standing altogether does so, too: nobody's events are ever taken
back, so either the call has failed without a word or the list is gone. That is noted where no application looks; only
when a second answer, apart in time, lacks it as well is that the truth about the relation, and the standing missing. It
is kept then, for it may be all that is known of a consent.

A list that a subscription names before the snapshot of lists has shown it is created by its remote id alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, text

from syncd.domain.records import Row, Subscription
from syncd.policy.absence import Absence, judge
from syncd.policy.diff import diff
from syncd.store.engine import Connection
from syncd.store.history import Change, missing, record
from syncd.store.history import found as found_again
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
    SELECT s.relation_id, s.list_id, s.status, s.event_at, s.last_seen_at, s.missing_since, a.absent_since
    FROM crm.list_subscriptions s
    LEFT JOIN syncd.absent_standings a ON a.relation_id = s.relation_id AND a.list_id = s.list_id
    WHERE s.relation_id = ANY(CAST(:ids AS bigint[]))
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
_KEYS = "unnest(CAST(:relation_ids AS bigint[]), CAST(:list_ids AS bigint[])) AS i (relation_id, list_id)"
_SET_MISSING = text(f"""
    UPDATE crm.list_subscriptions t SET missing_since = CAST(:since AS timestamptz) FROM {_KEYS}
    WHERE t.relation_id = i.relation_id AND t.list_id = i.list_id
""")
_NOTE = text(f"""
    INSERT INTO syncd.absent_standings (relation_id, list_id, absent_since)
    SELECT i.relation_id, i.list_id, :now FROM {_KEYS} ON CONFLICT DO NOTHING
""")
_FORGET = text(f"""
    DELETE FROM syncd.absent_standings t USING {_KEYS} WHERE t.relation_id = i.relation_id AND t.list_id = i.list_id
""")

Key = tuple[int, int]
Held = Mapping[Key, Mapping[str, Any]]


async def write(
    connection: Connection,
    scope: Scope,
    shown: Mapping[int, Sequence[Row[Subscription]]],
    unsure: frozenset[int] = frozenset(),
) -> Written:
    """Write the standings of relations (by local id), each shown whole; those of ``unsure`` may have more than was
    read."""
    lists = await _lists(connection, scope, [row.record.list_remote_id for rows in shown.values() for row in rows])
    said: dict[Key, dict[str, object]] = {
        (relation_id, lists[row.record.list_remote_id]): {"status": row.record.status, "event_at": row.record.event_at}
        for relation_id, rows in shown.items()
        for row in rows
    }
    standings = {relation_id: [row.record for row in rows] for relation_id, rows in shown.items()}
    doubts = await proving.by_standings(connection, scope, standings)
    rows = await connection.execute(_HELD, {"ids": list(shown)})
    held = {(row.relation_id, row.list_id): row._asdict() for row in rows}
    lacking = {key: row for key, row in held.items() if key not in said and key[0] not in unsure}
    gone, doubtful = await _judge_lacking(connection, scope, lacking)
    again = await _show_again(connection, {key: held[key] for key in said if key in held})
    older = [key for key in said if key in held and _goes_back(held[key], said[key])]
    received, said = len(said), {key: standing for key, standing in said.items() if key not in older}
    for key in _undated(shown, lists) & held.keys() & said.keys():
        said[key]["event_at"] = held[key]["event_at"]
    new = [key for key in said if key not in held]
    differences = {key: diff(held[key], said[key]) for key in said if key in held}
    changed = [key for key, difference in differences.items() if difference]
    stale = [key for key in said if key in held and held[key]["last_seen_at"] < scope.touch_before]
    await _upsert(connection, {key: said[key] for key in (*new, *changed, *stale)})
    changes = [found_again(key[0], held[key]["missing_since"], key[1]) for key in again]
    changes += [Change(key[0], "insert", link_id=key[1]) for key in new]
    changes += [Change(k[0], "update", differences[k].before, differences[k].after, k[1]) for k in changed]
    await record(connection, scope, "list_subscriptions", changes)
    warnings = tuple(warning for rows in shown.values() for row in rows for warning in row.warnings)
    updated = len({*changed, *again})
    told = warnings + doubts + _told(older, doubtful)
    return Written(received, len(new), updated, received - len(new) - updated, missing=gone, warnings=told)


async def _judge_lacking(connection: Connection, scope: Scope, lacking: Held) -> tuple[int, int]:
    """Note the standings that an answer lacks, and mark those missing that a second one lacks; return how many those
    are, and how many have not been lacking for long enough."""
    judged = {
        key: judge(row["absent_since"], scope.now, scope.absence_gap_s)
        for key, row in lacking.items()
        if row["missing_since"] is None
    }
    gone = [key for key, verdict in judged.items() if verdict is Absence.CONFIRMED]
    await _each(connection, _NOTE, [key for key, verdict in judged.items() if verdict is Absence.NOTED], now=scope.now)
    await _each(connection, _SET_MISSING, gone, since=scope.now)
    await _each(connection, _FORGET, gone)
    await record(connection, scope, "list_subscriptions", [missing(key[0], scope.now, key[1]) for key in gone])
    return len(gone), len(judged) - len(gone)


async def _show_again(connection: Connection, shown: Held) -> list[Key]:
    """Take back what was noted or believed of standings that are shown, by an older event too; return those that were
    missing."""
    again = [key for key, row in shown.items() if row["missing_since"] is not None]
    await _each(connection, _SET_MISSING, again, since=None)
    await _each(connection, _FORGET, [key for key, row in shown.items() if row["absent_since"] is not None])
    return again


async def _each(connection: Connection, statement: TextClause, keys: Sequence[Key], **values: object) -> None:
    if keys:
        relation_ids, list_ids = (list(column) for column in zip(*keys, strict=True))
        await connection.execute(statement, {"relation_ids": relation_ids, "list_ids": list_ids, **values})


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


def _told(older: Sequence[Key], doubtful: int) -> tuple[str, ...]:
    told: list[str] = []
    if older:
        told.append(f"{len(older)} subscriptions lack the latest event that is known; they are kept as they are")
    if doubtful:
        told.append(f"{doubtful} subscriptions are not shown any more; a later answer has to say so again")
    return tuple(told)


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
