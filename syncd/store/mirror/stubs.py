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
    SELECT r.remote_id, r.id
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:emails AS text[])) AS i (remote_id, email)
    JOIN LATERAL (SELECT id, remote_id FROM crm.relations r
                  WHERE r.account_id = :account_id AND r.remote_id = i.remote_id LIMIT 1) AS r ON true
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
    RETURNING id, remote_id
""")


async def relation_ids(
    connection: Connection, scope: Scope, named: Mapping[str, str | None], seen: Seen
) -> Mapping[str, int]:
    """Return our ids of the named relations (remote id to address), making those exist that do not.

    A relation that waits in an application's hands is left out: what names it is linked when it is bound. What was
    found is remembered in ``seen`` for the batches to come.
    """
    fresh = {remote_id: email for remote_id, email in named.items() if remote_id not in seen.relations}
    if fresh:
        found = await _known(connection, scope, fresh)
        unknown = {remote_id: email for remote_id, email in fresh.items() if remote_id not in found}
        if unknown:
            waiting, bound = await _adopt(connection, scope, unknown)
            new = {remote_id: email for remote_id, email in unknown.items() if remote_id not in waiting}
            found |= bound | await _create(connection, scope, new)
        seen.remember(found)
    return seen.relations


async def _known(connection: Connection, scope: Scope, named: Mapping[str, str | None]) -> dict[str, int]:
    return {row.remote_id: row.id for row in await connection.execute(_KNOWN, _arrays(scope, named))}


async def _adopt(
    connection: Connection, scope: Scope, unknown: Mapping[str, str | None]
) -> tuple[frozenset[str], dict[str, int]]:
    """Bind local rows that wait under the same address; return who waits (held ones too), and who is bound now."""
    claims: dict[int, str] = {}
    for row in await connection.execute(_WAITING, _arrays(scope, unknown)):
        claims.setdefault(row.id, row.remote_id)
    if not claims:
        return frozenset(), {}
    values = {"ids": list(claims), "remote_ids": list(claims.values())}
    bound = (await connection.execute(_BIND, values)).all()
    changes = [Change(row.id, "update", {"remote_id": None}, {"remote_id": row.remote_id}) for row in bound]
    await record(connection, scope, "relations", changes)
    await link_relations(connection, [row.id for row in bound])
    return frozenset(claims.values()), {row.remote_id: row.id for row in bound}


async def _create(connection: Connection, scope: Scope, named: Mapping[str, str | None]) -> dict[str, int]:
    if not named:
        return {}
    made = {row.remote_id: row.id for row in await connection.execute(_INSERT, _arrays(scope, named))}
    await record(connection, scope, "relations", [Change(row_id, "insert") for row_id in made.values()])
    await link_relations(connection, list(made.values()))
    return made


def _arrays(scope: Scope, named: Mapping[str, str | None]) -> dict[str, object]:
    return {"account_id": scope.account_id, "remote_ids": list(named), "emails": list(named.values())}
