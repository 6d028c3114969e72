"""Invoices and credit invoices as the list shows them; ``invoice_details`` adds the rest, one call each.

The key is (number, is_credit): no shared series is assumed. The list names a relation by address only. A changed
normal invoice waits for its detail again; a credit invoice has none to wait for.

Its witnesses cannot be chosen by ``invoiced_on``: the list is asked by the day of creation, and a business may date
ahead. An invoice was created after the window of the run that first showed it began, so an answer that reaches back
that far must hold it. An empty answer is the exception: it is held against everything dated inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import text

from syncd.domain.records import Invoice, Row
from syncd.policy.coverage import Interval
from syncd.policy.diff import diff
from syncd.store.engine import Connection
from syncd.store.history import Change, found, record
from syncd.store.mirror import erased
from syncd.store.mirror.normal import columns_of, digest, last_of_each, raw_text, unsaid, warnings_of
from syncd.store.mirror.respelling import respell
from syncd.store.mirror.scope import Gone, Scope, Seen, Written

_COLUMNS = ("relation_email", "description", "invoiced_on", "amount_incl")

_COMPARE = text("""
    SELECT array_agg(i.n) FILTER (WHERE v.id IS NULL) AS new,
           array_agg(i.n) FILTER (WHERE v.is_same IS FALSE) AS changed,
           array_agg(v.id) FILTER (WHERE v.id IS NOT NULL) AS seen,
           array_agg(i.n) FILTER (WHERE v.id IS NOT NULL) AS known,
           array_agg(v.id) FILTER (WHERE v.is_same AND v.last_seen_at < :touch_before) AS stale
    FROM unnest(CAST(:numbers AS text[]), CAST(:credits AS boolean[]), CAST(:hashes AS bytea[]))
        WITH ORDINALITY AS i (number, is_credit, hash, n)
    LEFT JOIN LATERAL (
        SELECT id, last_seen_at,
               last_seen_at >= :asked_at OR missing_since IS NULL AND content_hash = i.hash AS is_same
        FROM crm.invoices
        WHERE account_id = :account_id AND number = i.number AND is_credit = i.is_credit
        LIMIT 1
    ) AS v ON true
""")
_TOUCH = text("UPDATE crm.invoices SET last_seen_at = now() WHERE id = ANY(CAST(:ids AS bigint[]))")
_ROWS = """
    unnest(CAST(:numbers AS text[]), CAST(:credits AS boolean[]), CAST(:hashes AS bytea[]), CAST(:raws AS text[]),
           CAST(:relation_email AS text[]), CAST(:description AS text[]), CAST(:invoiced_on AS date[]),
           CAST(:amount_incl AS text[]))
        AS i (number, is_credit, hash, raw, relation_email, description, invoiced_on, amount_incl)
    LEFT JOIN LATERAL (SELECT min(r.id) AS id FROM crm.relations r
                       WHERE r.account_id = :account_id AND lower(r.email) = lower(i.relation_email)
                       HAVING count(*) = 1) AS owner ON true
"""
_INSERT = text(f"""
    WITH inserted AS (
        INSERT INTO crm.invoices (account_id, number, is_credit, relation_id, relation_email, description, invoiced_on,
                                  amount_incl, detail_status, detail_next_at, raw, content_hash)
        SELECT :account_id, i.number, i.is_credit, owner.id, i.relation_email, i.description, i.invoiced_on,
               CAST(i.amount_incl AS numeric), CASE WHEN i.is_credit THEN 'unavailable' ELSE 'pending' END, :now,
               CAST(i.raw AS jsonb), i.hash
        FROM {_ROWS}
        ON CONFLICT (account_id, number, is_credit) DO NOTHING
        RETURNING id
    ), history AS (
        INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, run_id)
        SELECT :account_id, 'invoices', id, 'insert', 'remote', :run_id FROM inserted
    )
    SELECT array_agg(id) FROM inserted
""")
_OLD = text(f"""
    SELECT id, number, is_credit, {", ".join(_COLUMNS)}, missing_since, relation_id, detail_status,
           pseudonymised_at IS NOT NULL AS has_stand_ins
    FROM crm.invoices
    WHERE account_id = :account_id AND number = ANY(CAST(:numbers AS text[]))
    ORDER BY id FOR UPDATE
""")
_UPDATE = text(f"""
    UPDATE crm.invoices v
    SET relation_id = CASE WHEN v.relation_remote_id IS NULL THEN COALESCE(owner.id, v.relation_id)
                           ELSE v.relation_id END,
        relation_email = i.relation_email, description = i.description, invoiced_on = i.invoiced_on,
        amount_incl = CAST(i.amount_incl AS numeric), raw = CAST(i.raw AS jsonb), content_hash = i.hash,
        detail_status = CASE WHEN CAST(:is_retold AS boolean) THEN v.detail_status
                             WHEN i.is_credit THEN 'unavailable' ELSE 'pending' END,
        detail_attempts = CASE WHEN CAST(:is_retold AS boolean) THEN v.detail_attempts ELSE 0 END,
        detail_next_at = CASE WHEN CAST(:is_retold AS boolean) THEN v.detail_next_at ELSE :now END,
        detail_error = CASE WHEN CAST(:is_retold AS boolean) THEN v.detail_error END,
        last_seen_at = CASE WHEN CAST(:is_retold AS boolean) THEN v.last_seen_at ELSE now() END,
        changed_at = now(), missing_since = NULL
    FROM {_ROWS}
    WHERE v.account_id = :account_id AND v.number = i.number AND v.is_credit = i.is_credit
    RETURNING v.number, v.is_credit, v.relation_id, v.detail_status
""")
_DATED = """
    SELECT v.id, v.number FROM crm.invoices v
    WHERE v.account_id = :account_id AND v.invoiced_on > CAST(:since AS date) AND v.invoiced_on <= CAST(:upto AS date)
      AND v.missing_since IS NULL AND v.first_seen_at < now()
"""
_CREATED = """
    SELECT v.id, v.number FROM crm.invoices v
    JOIN syncd.changes c ON c.table_name = 'invoices' AND c.row_id = v.id AND c.kind = 'insert'
    JOIN syncd.runs r ON r.id = c.run_id AND r.asked_from >= :since
    WHERE v.account_id = :account_id AND v.missing_since IS NULL AND v.first_seen_at < now()
      AND v.first_seen_at >= :since
"""
_GONE = """
    WITH known AS ({known})
    SELECT (SELECT count(*) FROM known) AS known,
           ARRAY(SELECT number FROM known
                 WHERE NOT EXISTS (SELECT FROM unnest(CAST(:seen AS bigint[])) AS s (id) WHERE s.id = known.id)
                 ORDER BY number, id) AS keys,
           ARRAY(SELECT id FROM known
                 WHERE NOT EXISTS (SELECT FROM unnest(CAST(:seen AS bigint[])) AS s (id) WHERE s.id = known.id)
                 ORDER BY number, id) AS ids
"""
_GONE_DATED = text(_GONE.format(known=_DATED))
_GONE_CREATED = text(_GONE.format(known=_CREATED))

Key = tuple[str, bool]
TABLE = "invoices"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one answer, decoded, without doubles, with their hashes."""

    rows: tuple[Row[Invoice], ...]
    hashes: list[bytes]
    received: int
    warnings: tuple[str, ...]


def prepare(rows: Sequence[Row[Invoice]]) -> Batch:
    """Build a batch. Pure: runs beside the database's work on the batch before."""
    last, doubles = last_of_each(rows, _key)
    kept = tuple(last.values())
    hashes = [hash_of(row.record) for row in kept]
    return Batch(kept, hashes, len(rows), doubles + warnings_of(kept))


def hash_of(invoice: Invoice) -> bytes:
    """Return the digest of what the list says of an invoice."""
    return digest(tuple(_said(invoice).items()))


async def write(connection: Connection, scope: Scope, batch: Batch, seen: Seen) -> Written:
    """Write what differs of a batch and collect the local ids of the rows that were known.

    A row that was written since the answer was asked for knows better, and stays.
    """
    batch, stand_ins = await _without_erased(connection, scope, batch, seen)
    values = {"account_id": scope.account_id, "touch_before": scope.touch_before, **_keys(batch)}
    values["asked_at"] = scope.asked_at
    compared = (await connection.execute(_COMPARE, {**values, "hashes": batch.hashes})).one()
    seen.ids.extend(compared.seen or ())
    if compared.stale:
        await connection.execute(_TOUCH, {"ids": compared.stale})
    if scope.is_strange:
        shown = zip(compared.seen or (), _part(batch, compared.known).rows, strict=True)
        await respell(connection, TABLE, {row_id: row.raw for row_id, row in shown})
    new, changed = _part(batch, compared.new), _part(batch, compared.changed)
    inserted = await _insert(connection, scope, new, seen) if new.rows else 0
    updated = await _update(connection, scope, changed, stand_ins) if changed.rows else 0
    await erased.mark_invoices(connection, scope, stand_ins)
    return Written(batch.received, inserted, updated, len(batch.rows) - inserted - updated, warnings=batch.warnings)


async def gone(connection: Connection, scope: Scope, span: Interval, seen: Seen, *, is_empty_answer: bool) -> Gone:
    """Return which invoices an answer about ``span`` should have held and did not."""
    values = {"account_id": scope.account_id, "since": span.lower, "seen": seen.ids.tolist()}
    if is_empty_answer:
        found = (await connection.execute(_GONE_DATED, {**values, "upto": span.upper})).one()
    else:
        found = (await connection.execute(_GONE_CREATED, values)).one()
    return Gone(found.known, tuple(found.keys), tuple(found.ids))


async def _without_erased(
    connection: Connection, scope: Scope, batch: Batch, seen: Seen
) -> tuple[Batch, frozenset[Key]]:
    """Put stand-ins where a batch names an erased person, or leave the invoice out; return those with stand-ins."""
    found = await erased.of_invoices(connection, scope, batch.rows)
    if found is None:
        return batch, frozenset()
    seen.ids.extend(found.same)
    rebuilt = prepare(found.rows)
    return replace(rebuilt, received=batch.received), found.stand_ins


def _key(invoice: Invoice) -> Key:
    return invoice.number, invoice.is_credit


def _said(invoice: Invoice) -> dict[str, object]:
    values = {name: getattr(invoice, name) for name in _COLUMNS}
    return {name: value for name, value in values.items() if value is not UNSET}


def _part(batch: Batch, ordinals: Sequence[int] | None) -> Batch:
    chosen = [ordinal - 1 for ordinal in ordinals or ()]
    return replace(batch, rows=tuple(batch.rows[n] for n in chosen), hashes=[batch.hashes[n] for n in chosen])


async def _insert(connection: Connection, scope: Scope, batch: Batch, seen: Seen) -> int:
    given = {**_arrays(scope, batch), "run_id": scope.run_id}
    ids = (await connection.execute(_INSERT, given)).scalar_one() or ()
    seen.new.extend(ids)
    return len(ids)


async def _update(connection: Connection, scope: Scope, batch: Batch, stand_ins: frozenset[Key]) -> int:
    """Replace what the list says of changed invoices; the history gets the changed columns.

    One that was erased since it was compared, removed or named by stand-ins that these rows do not have, is left alone.
    """
    held = await connection.execute(_OLD, {"account_id": scope.account_id, **_keys(batch)})
    old = {(row.number, row.is_credit): row._asdict() for row in held}
    old = {key: row for key, row in old.items() if key in stand_ins or not row["has_stand_ins"]}
    batch = _part(batch, [n for n, row in enumerate(batch.rows, start=1) if _key(row.record) in old])
    filled = replace(batch, rows=tuple(_filled(row, old[_key(row.record)]) for row in batch.rows))
    written = await connection.execute(_UPDATE, {**_arrays(scope, filled), "is_retold": scope.is_retold})
    now = {(row.number, row.is_credit): row._asdict() for row in written}
    changes = [change for row in filled.rows for change in _changes(row, old, now[_key(row.record)])]
    await record(connection, scope, "invoices", changes)
    return len(batch.rows)


def _filled(row: Row[Invoice], old: Mapping[str, Any]) -> Row[Invoice]:
    kept = {name: old[name] for name in unsaid(row, _COLUMNS)}
    return Row(msgspec.structs.replace(row.record, **kept), row.raw) if kept else row


def _changes(row: Row[Invoice], old: Mapping[Key, Mapping[str, Any]], now: Mapping[str, Any]) -> list[Change]:
    before = old[_key(row.record)]
    changes = [found(before["id"], before["missing_since"])] if before["missing_since"] is not None else []
    after = {name: getattr(row.record, name) for name in _COLUMNS}
    difference = diff(before, {**after, "relation_id": now["relation_id"], "detail_status": now["detail_status"]})
    if difference:
        changes.append(Change(before["id"], "update", difference.before, difference.after))
    return changes


def _keys(batch: Batch) -> dict[str, object]:
    return {
        "numbers": [row.record.number for row in batch.rows],
        "credits": [row.record.is_credit for row in batch.rows],
    }


def _arrays(scope: Scope, batch: Batch) -> dict[str, object]:
    arrays = columns_of([row.record for row in batch.rows], *_COLUMNS)
    return {
        "account_id": scope.account_id,
        "now": scope.now,
        **_keys(batch),
        "hashes": batch.hashes,
        "raws": [raw_text(row.raw) for row in batch.rows],
        **arrays,
        "amount_incl": [None if amount is None else str(amount) for amount in arrays["amount_incl"]],
    }
