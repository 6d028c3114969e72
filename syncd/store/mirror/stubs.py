"""Stubs: relations that an order or invoice names before anything else has shown them.

A stub is a relation with a remote id, perhaps an address, and no ``raw``: the sweep of relation details fills it in.
A local relation that waits for its first delivery under the same address (whatever its letter case) is that
relation: it gets the remote id instead of a twin.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import text

from syncd.store.engine import Connection
from syncd.store.history import Change, record
from syncd.store.mirror.links import link_relations
from syncd.store.mirror.scope import Scope, Seen

_KNOWN = text("""
    SELECT i.remote_id, COALESCE(known.id, waiting.id) AS id, known.id IS NULL AS is_waiting
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
    LEFT JOIN LATERAL (SELECT id FROM crm.relations r
                       WHERE r.account_id = :account_id AND r.remote_id = i.remote_id LIMIT 1) AS known ON true
    LEFT JOIN LATERAL (SELECT id FROM crm.relations r
                       WHERE r.account_id = :account_id AND r.remote_id IS NULL AND lower(r.email) = lower(i.email)
                       LIMIT 1) AS waiting ON true
    WHERE known.id IS NOT NULL OR waiting.id IS NOT NULL
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
    WITH inserted AS (
        INSERT INTO crm.relations (account_id, remote_id, email)
        SELECT :account_id, i.remote_id, i.email
        FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
        ON CONFLICT (account_id, remote_id) DO NOTHING
        RETURNING id, remote_id
    ), history AS (
        INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, run_id)
        SELECT :account_id, 'relations', id, 'insert', 'remote', :run_id FROM inserted
    )
    SELECT id, remote_id FROM inserted
""")


async def relation_ids(
    connection: Connection, scope: Scope, named: Mapping[str, str | None], seen: Seen
) -> Mapping[str, int]:
    """Return our ids of the named relations (remote id to address), making those exist that do not.

    A relation that waits in an application's hands is left out: what names it is linked when it is bound. What was
    found is remembered in ``seen`` for the batches to come.
    """
    seen.make_room(len(named))
    fresh = {remote_id: email for remote_id, email in named.items() if remote_id not in seen.relations}
    if fresh:
        rows = (await connection.execute(_KNOWN, _arrays(scope, fresh))).all()
        seen.relations |= {row.remote_id: row.id for row in rows if not row.is_waiting}
        waiting = {row.remote_id: row.id for row in rows if row.is_waiting}
        seen.relations |= await _bind(connection, scope, waiting)
        shown = {row.remote_id for row in rows}
        new = {remote_id: email for remote_id, email in fresh.items() if remote_id not in shown}
        seen.relations |= await _create(connection, scope, new)
    return seen.relations


async def _bind(connection: Connection, scope: Scope, waiting: Mapping[str, int]) -> dict[str, int]:
    """Bind local rows that wait under the same address, except those an application holds; the first claim wins."""
    claims: dict[int, str] = {}
    for remote_id, row_id in waiting.items():
        claims.setdefault(row_id, remote_id)
    if not claims:
        return {}
    bound = (await connection.execute(_BIND, {"ids": list(claims), "remote_ids": list(claims.values())})).all()
    changes = [Change(row.id, "update", {"remote_id": None}, {"remote_id": row.remote_id}) for row in bound]
    await record(connection, scope, "relations", changes)
    await link_relations(connection, [row.id for row in bound], scope.run_id)
    return {row.remote_id: row.id for row in bound}


async def _create(connection: Connection, scope: Scope, named: Mapping[str, str | None]) -> dict[str, int]:
    if not named:
        return {}
    values = {**_arrays(scope, named), "run_id": scope.run_id}
    made = {row.remote_id: row.id for row in await connection.execute(_INSERT, values)}
    await link_relations(connection, list(made.values()), scope.run_id)
    return made


def _arrays(scope: Scope, named: Mapping[str, str | None]) -> dict[str, object]:
    return {"account_id": scope.account_id, "remote_ids": list(named), "emails": list(named.values())}
