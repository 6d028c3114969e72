"""What is due: the rows that sweeps and follow-ups ask for one by one, the recently active and those
read longest ago first.

A detail that fails keeps its own count and its own next time, so it never holds back the list it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId, RunId
from syncd.policy.absence import Absence, judge
from syncd.policy.sweeping import active_calls
from syncd.store.engine import Connection
from syncd.store.history import missing, record
from syncd.store.mirror.scope import Scope
from syncd.store.readings import absences, note_absence


@dataclass(frozen=True, slots=True)
class Due:
    """One row to ask for: our id, and the key that the CRM knows it by. ``attempts`` counts failed tries."""

    id: int
    key: str
    attempts: int = 0


_GROUPS = """
    SELECT g.id, g.remote_id AS key, r.read_at, r.proven_at, CAST(NULL AS timestamptz) AS news_at,
           CAST(NULL AS timestamptz) AS active_at
    FROM crm.groups g
    LEFT JOIN syncd.readings r ON r.account_id = g.account_id AND r.stream = :stream AND r.row_id = g.id
    WHERE g.account_id = :account_id AND g.remote_id IS NOT NULL AND g.missing_since IS NULL
"""
_RELATIONS = """
    SELECT n.id, n.remote_id AS key, r.read_at, r.proven_at, GREATEST(n.changed_at, o.changed_at) AS news_at,
           o.active_at
    FROM crm.relations n
    LEFT JOIN syncd.readings r ON r.account_id = n.account_id AND r.stream = :stream AND r.row_id = n.id
    LEFT JOIN (SELECT relation_id, max(purchased_at) AS active_at, max(changed_at) AS changed_at
               FROM crm.orders WHERE account_id = :account_id GROUP BY relation_id) AS o ON o.relation_id = n.id
    WHERE n.account_id = :account_id AND n.remote_id IS NOT NULL AND n.missing_since IS NULL {which}
"""
# Whom invoices name by address alone, as those in credit always do, and whom nothing else has shown. Where a detail is
# still to come it names them by id.
_ADDRESSES = """
    SELECT a.id, a.key, r.read_at, r.proven_at, CAST(NULL AS timestamptz) AS news_at,
           CAST(a.active_at AS timestamptz) AS active_at
    FROM (SELECT min(v.id) AS id, min(v.relation_email) AS key, max(v.invoiced_on) AS active_at
          FROM crm.invoices v
          WHERE v.account_id = :account_id AND v.relation_id IS NULL AND v.relation_remote_id IS NULL
            AND v.relation_email <> '' AND v.detail_status <> 'pending' AND v.missing_since IS NULL
            AND v.pseudonymised_at IS NULL
            AND NOT EXISTS (SELECT FROM crm.relations n
                            WHERE n.account_id = v.account_id AND lower(n.email) = lower(v.relation_email))
          GROUP BY lower(v.relation_email)) AS a
    LEFT JOIN syncd.readings r ON r.account_id = :account_id AND r.stream = :stream AND r.row_id = a.id
"""
_PROVEN = "proven_at >= now() - make_interval(secs => CAST(:proven_s AS double precision))"
# Whoever was never read, or was active since an answer last proved them, goes first, the most recently active of all;
# but not with every call, so that those who are never active have their turn as well, the one read longest ago first.
_DUE = """
    WITH parents AS ({parents}), active AS (
        SELECT id, row_number() OVER (ORDER BY active_at DESC NULLS LAST, id) AS rank FROM parents
        WHERE read_at IS NULL OR news_at > proven_at
        ORDER BY rank LIMIT :active
    )
    SELECT p.id, p.key FROM parents p LEFT JOIN active a ON a.id = p.id
    WHERE CAST(:proven_s AS double precision) IS NULL OR (p.{proven}) IS NOT TRUE
    ORDER BY a.rank NULLS LAST, p.read_at NULLS FIRST, p.active_at DESC NULLS LAST, p.id LIMIT :budget
"""
_COUNT = "SELECT count(*) AS parents, count(*) FILTER (WHERE {proven}) AS proven FROM ({parents}) AS parents"
# Stubs, and relations that no group shows: nothing else reads their names.
_UNSEEN = "AND NOT EXISTS (SELECT FROM crm.group_members m WHERE m.relation_id = n.id AND m.missing_since IS NULL)"
_PARENTS = {
    "group_members": _GROUPS,
    "invoice_relations": _ADDRESSES,
    "relation_details": _RELATIONS.format(which=_UNSEEN),
    "relation_tags": _RELATIONS.format(which=""),
    "relation_subscriptions": _RELATIONS.format(which=""),
    "relation_orders": _RELATIONS.format(which=""),
}
_SWEEPS = {stream: text(_DUE.format(parents=parents, proven=_PROVEN)) for stream, parents in _PARENTS.items()}
_COUNTS = {stream: text(_COUNT.format(parents=parents, proven=_PROVEN)) for stream, parents in _PARENTS.items()}
_LIVING = """
    SELECT n.id, {key} AS key FROM crm.relations n
    WHERE n.account_id = :account_id AND n.remote_id IS NOT NULL AND n.missing_since IS NULL AND {which}
    ORDER BY EXISTS (SELECT FROM crm.group_members m WHERE m.relation_id = n.id AND m.missing_since IS NULL) DESC,
             n.last_seen_at DESC, n.id
    LIMIT 1
"""
# An address counts as the CRM gave it: what was edited here since may be unknown there.
_LIVING_BY_ID = text(_LIVING.format(key="n.remote_id", which="NOT n.id = ANY(CAST(:others AS bigint[]))"))
_LIVING_BY_ADDRESS = text(_LIVING.format(key="n.raw ->> 'email'", which="n.raw ->> 'email' = n.email"))
_DETAILS = text("""
    SELECT id, number AS key, detail_attempts AS attempts FROM crm.invoices
    WHERE account_id = :account_id AND detail_status = 'pending' AND NOT is_credit AND detail_next_at <= :now
    ORDER BY detail_next_at, id LIMIT :budget
""")
_FAIL = text("""
    WITH failed AS (
    UPDATE crm.invoices
    SET detail_attempts = detail_attempts + 1, detail_error = :error,
        detail_status = CASE WHEN CAST(:next_at AS timestamptz) IS NULL THEN 'failed' ELSE detail_status END,
        detail_next_at = COALESCE(:next_at, detail_next_at)
    WHERE id = :id AND detail_status = 'pending'
    RETURNING id, account_id, detail_status
    )
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, run_id, before, after)
    SELECT account_id, 'invoices', id, 'update', 'remote', CAST(:run_id AS bigint), '{"detail_status": "pending"}',
           '{"detail_status": "failed"}'
    FROM failed WHERE detail_status = 'failed'
""")
_HOLD = text("""
    SELECT id FROM crm.relations WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR KEY SHARE SKIP LOCKED
""")
_MISSING = text("UPDATE crm.relations SET missing_since = :now WHERE id = ANY(CAST(:ids AS bigint[]))")


async def due_keys(
    connection: Connection, account_id: AccountId, stream: str, budget: int | None, proven_s: float | None = None
) -> tuple[Due, ...]:
    """Return what a sweep asks for next, at most ``budget`` rows (None: all): the recently active, then the oldest.

    ``proven_s`` leaves out what an answer of the last so many seconds has proven.
    """
    active = None if budget is None else active_calls(budget)
    values = {"account_id": account_id, "stream": stream, "budget": budget, "active": active, "proven_s": proven_s}
    return tuple(Due(row.id, row.key) for row in await connection.execute(_SWEEPS[stream], values))


async def count_proven(connection: Connection, account_id: AccountId, stream: str, proven_s: float) -> tuple[int, int]:
    """Return how many parents a sweep has, and how many of them an answer of the last so many seconds has proven."""
    values = {"account_id": account_id, "stream": stream, "proven_s": proven_s}
    row = (await connection.execute(_COUNTS[stream], values)).one()
    return row.parents, row.proven


async def living_relation(
    connection: Connection, account_id: AccountId, stream: str, others: Sequence[int]
) -> Due | None:
    """Return a relation, none of ``others``, that the CRM should know: best one that a group shows."""
    if stream == "invoice_relations":
        row = (await connection.execute(_LIVING_BY_ADDRESS, {"account_id": account_id})).one_or_none()
    else:
        values = {"account_id": account_id, "others": list(others)}
        row = (await connection.execute(_LIVING_BY_ID, values)).one_or_none()
    return None if row is None else Due(row.id, row.key)


async def due_details(
    connection: Connection, account_id: AccountId, now: datetime, budget: int | None
) -> tuple[Due, ...]:
    """Return the invoices whose detail call is due."""
    values = {"account_id": account_id, "now": now, "budget": budget}
    return tuple(Due(row.id, row.key, row.attempts) for row in await connection.execute(_DETAILS, values))


async def fail_detail(
    connection: Connection, run_id: RunId, invoice_id: int, error: str, next_at: datetime | None
) -> None:
    """Count a failed detail call; without a next time the invoice's detail has failed for good."""
    await connection.execute(_FAIL, {"run_id": run_id, "id": invoice_id, "error": error, "next_at": next_at})


async def hold(connection: Connection, stream: str, ids: Sequence[int]) -> frozenset[int]:
    """Return those of a sweep's parents that are there, and stay until this transaction ends.

    A relation may have gone since it was asked for: it was erased, or merged with its twin. Whoever is about to remove
    one, or holds it as if, is not waited for.
    """
    if stream in ("group_members", "invoice_relations"):
        return frozenset(ids)
    return frozenset((await connection.execute(_HOLD, {"ids": list(ids)})).scalars())


async def note_unknown_relations(connection: Connection, scope: Scope, stream: str, ids: Sequence[int]) -> int:
    """Note that the CRM knows these relations no more; mark them missing at the second time. Return how many."""
    since = await absences(connection, scope, stream, ids)
    judged = {row_id: judge(since.get(row_id), scope.now, scope.absence_gap_s) for row_id in ids}
    await note_absence(connection, scope, stream, [row for row, verdict in judged.items() if verdict is Absence.NOTED])
    confirmed = [row for row, verdict in judged.items() if verdict is Absence.CONFIRMED]
    if confirmed:
        await connection.execute(_MISSING, {"ids": confirmed, "now": scope.now})
        await record(connection, scope, "relations", [missing(row_id, scope.now) for row_id in confirmed])
    return len(confirmed)
