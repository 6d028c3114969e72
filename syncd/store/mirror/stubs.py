"""Stubs: relations that an order or invoice names before anything else has shown them.

A stub is a relation with a remote id, perhaps an address, and no ``raw``: the sweep of relation details fills it in.
A local relation that waits for its first delivery under the same address (whatever its letter case) is that
relation: it gets the remote id instead of a twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from syncd.store.engine import Connection
from syncd.store.history import Change, record
from syncd.store.mirror.links import link_relations
from syncd.store.mirror.scope import Scope

_UNKNOWN = text("""
    SELECT i.remote_id, i.email
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
    LEFT JOIN LATERAL (SELECT id FROM crm.relations r
                       WHERE r.account_id = :account_id AND r.remote_id = i.remote_id LIMIT 1) AS r ON true
    WHERE r.id IS NULL
""")
_WAITING = text("""
    SELECT i.remote_id, r.id
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
    JOIN crm.relations r ON r.account_id = :account_id AND r.remote_id IS NULL AND lower(r.email) = lower(i.email)
""")
_BIND = text("""
    WITH held AS (
        SELECT r.id, i.remote_id
        FROM unnest(CAST(:ids AS bigint[]), CAST(:remote_ids AS text[])) AS i (id, remote_id)
        JOIN crm.relations r ON r.id = i.id AND r.remote_id IS NULL
        FOR UPDATE OF r SKIP LOCKED
    )
    UPDATE crm.relations r SET remote_id = held.remote_id, changed_at = now()
    FROM held WHERE r.id = held.id
    RETURNING r.id, r.remote_id
""")
_INSERT = text("""
    INSERT INTO crm.relations (account_id, remote_id, email)
    SELECT :account_id, i.remote_id, i.email
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
    ON CONFLICT (account_id, remote_id) DO NOTHING
    RETURNING id
""")


@dataclass(frozen=True, slots=True)
class Named:
    """A relation as an order or invoice names it."""

    remote_id: str
    email: str | None


async def ensure_named(connection: Connection, scope: Scope, named: Sequence[Named]) -> None:
    """Make every named relation exist: known, bound to a local row that waits, or created as a stub."""
    if not named:
        return
    rows = (await connection.execute(_UNKNOWN, _arrays(scope, named))).all()
    unknown = [Named(row.remote_id, row.email) for row in rows]
    if not unknown:
        return
    waiting = await _adopt(connection, scope, unknown)
    await _create(connection, scope, [one for one in unknown if one.remote_id not in waiting])


async def _adopt(connection: Connection, scope: Scope, unknown: Sequence[Named]) -> frozenset[str]:
    """Bind local rows that wait under the same address; return whom they are, also those an application holds."""
    waiting = {row.id: row.remote_id for row in await connection.execute(_WAITING, _arrays(scope, unknown))}
    if not waiting:
        return frozenset()
    values = {"ids": list(waiting), "remote_ids": list(waiting.values())}
    bound = (await connection.execute(_BIND, values)).all()
    changes = [Change(row.id, "update", {"remote_id": None}, {"remote_id": row.remote_id}) for row in bound]
    await record(connection, scope, "relations", changes)
    await link_relations(connection, [row.id for row in bound])
    return frozenset(waiting.values())


async def _create(connection: Connection, scope: Scope, named: Sequence[Named]) -> None:
    if not named:
        return
    ids = list((await connection.execute(_INSERT, _arrays(scope, named))).scalars())
    await record(connection, scope, "relations", [Change(row_id, "insert") for row_id in ids])
    await link_relations(connection, ids)


def _arrays(scope: Scope, named: Sequence[Named]) -> dict[str, object]:
    return {
        "account_id": scope.account_id,
        "remote_ids": [one.remote_id for one in named],
        "emails": [one.email for one in named],
    }
