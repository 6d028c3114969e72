"""The auditor's book: when each row was proven last, what is due for another look, and how each kind stands.

A row is proven by an answer that was written: by ``last_seen_at`` where it has one (moved at most once a day by
ordinary pulls, so it errs towards "longer ago"), else by the reading of its parent (``syncd.readings.proven_at``). A
row that was never shown is not proven, nor is one that an answer lacked. Ages are by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import text

from syncd.domain.audits import Standing, Verdict
from syncd.domain.ids import AccountId
from syncd.store.engine import Connection
from syncd.store.followup import Due

# One row per row: its account, since when it is here, when it was proven.
_SHOWN = (
    "SELECT account_id, first_seen_at, CASE WHEN content_hash IS NOT NULL THEN last_seen_at END FROM crm.{} t WHERE"
)
_READ = """
    SELECT t.account_id, t.first_seen_at, r.proven_at FROM crm.{} t
    LEFT JOIN syncd.readings r ON r.account_id = t.account_id AND r.stream = '{}' AND r.row_id = t.id WHERE
"""
# A snapshot shows all rows but those it lacks.
_WHOLE = """
    SELECT t.account_id, t.first_seen_at, CASE WHEN r.absent_since IS NULL AND t.content_hash IS NOT NULL
        THEN GREATEST(t.last_seen_at, (
            SELECT max(run.started_at) FROM syncd.runs run
            WHERE run.account_id = t.account_id AND run.stream = '{0}' AND run.status = 'succeeded')) END
    FROM crm.{0} t
    LEFT JOIN syncd.readings r ON r.account_id = t.account_id AND r.stream = '{0}' AND r.row_id = t.id WHERE
"""
_THERE = " t.missing_since IS NULL"
_BOUND = " t.remote_id IS NOT NULL AND t.missing_since IS NULL"
_PROOFS = {
    "relations": _SHOWN.format("relations") + _BOUND,
    "relation_tags": _READ.format("relations", "relation_tags") + _BOUND,
    "relation_subscriptions": _READ.format("relations", "relation_subscriptions") + _BOUND,
    "group_members": _READ.format("groups", "group_members") + _BOUND,
    "orders": _SHOWN.format("orders") + _THERE,
    "invoices": _SHOWN.format("invoices") + _THERE,
    "invoice_details": _READ.format("invoices", "invoice_details") + _THERE + " AND t.detail_status = 'done'",
    **{name: _WHOLE.format(name) + _BOUND for name in ("tags", "fields", "groups", "lists")},
}
_ROWS = " UNION ALL ".join(
    f"SELECT '{kind}' AS kind, p.* FROM ({query}) AS p (account_id, first_seen_at, proven_at)"
    for kind, query in _PROOFS.items()
)
_STANDINGS = text(f"""
    SELECT a.name AS account, p.kind, count(*) AS rows,
           count(*) FILTER (WHERE p.proven_at >= now() - make_interval(secs => :within_s)) AS proven,
           CAST(extract(epoch FROM now() - min(COALESCE(p.proven_at, p.first_seen_at))) AS double precision) AS oldest_s
    FROM ({_ROWS}) AS p JOIN crm.accounts a ON a.id = p.account_id
    WHERE CAST(:account_id AS bigint) IS NULL OR p.account_id = :account_id
    GROUP BY a.name, p.kind ORDER BY a.name, p.kind
""")

# What was asked for in vain goes to the end of the queue like what was read.
_DUE = """
    SELECT t.id, {key} AS key, GREATEST({proof}, r.read_at) AS since FROM crm.{table} t
    LEFT JOIN syncd.readings r ON r.account_id = t.account_id AND r.stream = '{stream}' AND r.row_id = t.id
    WHERE t.account_id = :account_id AND {which}
      AND COALESCE(GREATEST({proof}, r.read_at), '-infinity') <= now() - make_interval(secs => :rest_s)
    ORDER BY since NULLS FIRST, t.id LIMIT :most
"""
_DUES = {
    "relations": _DUE.format(
        table="relations",
        key="t.remote_id",
        stream="relation_details",
        which=_BOUND,
        proof="CASE WHEN t.content_hash IS NOT NULL THEN t.last_seen_at END",
    ),
    "relation_tags": _DUE.format(
        table="relations", key="t.remote_id", stream="relation_tags", which=_BOUND, proof="r.proven_at"
    ),
    "relation_subscriptions": _DUE.format(
        table="relations", key="t.remote_id", stream="relation_subscriptions", which=_BOUND, proof="r.proven_at"
    ),
    "orders": _DUE.format(
        table="relations",
        key="t.remote_id",
        stream="relation_orders",
        which=_BOUND + " AND EXISTS (SELECT FROM crm.orders o WHERE o.relation_id = t.id)",
        proof="r.proven_at",
    ),
    "invoice_details": _DUE.format(
        table="invoices",
        key="t.number",
        stream="invoice_details",
        which=_THERE + " AND t.detail_status = 'done' AND NOT t.is_credit",
        proof="r.proven_at",
    ),
}

_NOTE = text("""
    INSERT INTO syncd.audits AS a (account_id, kind, audited_on, asked, equal, late, wrong, waiting, vanished, unread)
    VALUES (:account_id, :kind, current_date, :asked, :equal, :late, :wrong, :waiting, :vanished, :unread)
    ON CONFLICT (account_id, kind, audited_on) DO UPDATE
    SET asked = a.asked + excluded.asked, equal = a.equal + excluded.equal, late = a.late + excluded.late,
        wrong = a.wrong + excluded.wrong, waiting = a.waiting + excluded.waiting,
        vanished = a.vanished + excluded.vanished, unread = a.unread + excluded.unread, last_at = now()
""")


async def due_again(
    connection: Connection, account_id: AccountId, kinds: Sequence[str], most: int, rest_s: float
) -> tuple[str, tuple[Due, ...]] | None:
    """Return the kind whose turn it is and what to ask for of it, proven (or tried) longest ago first; None: nothing.

    Nothing is due again within ``rest_s``.
    """
    heads = []
    for kind in kinds:
        row = (await connection.execute(text(_DUES[kind]), _due_values(account_id, 1, rest_s))).one_or_none()
        if row is not None:
            heads.append((row.since is not None, row.since, kind))
    if not heads:
        return None
    never = [kind for has_been, _, kind in heads if not has_been]
    kind = never[0] if never else min((since, kind) for _, since, kind in heads)[1]
    rows = await connection.execute(text(_DUES[kind]), _due_values(account_id, most, rest_s))
    return kind, tuple(Due(row.id, row.key) for row in rows)


async def read_standings(
    connection: Connection, within_s: float, account_id: AccountId | None = None
) -> tuple[Standing, ...]:
    """Return how each kind of row stands; a scan of the mirror, so a little slow on millions of rows."""
    rows = (await connection.execute(_STANDINGS, {"within_s": within_s, "account_id": account_id})).mappings()
    return tuple(Standing(**row) for row in rows)


async def note_audit(connection: Connection, account_id: AccountId, kind: str, verdicts: Mapping[Verdict, int]) -> None:
    """Add a part of a round to the book of the day."""
    counts = {verdict.value: verdicts.get(verdict, 0) for verdict in Verdict}
    asked = sum(counts.values())
    if asked:
        await connection.execute(_NOTE, {"account_id": account_id, "kind": kind, "asked": asked, **counts})


def _due_values(account_id: AccountId, most: int, rest_s: float) -> dict[str, object]:
    return {"account_id": account_id, "most": most, "rest_s": rest_s}
