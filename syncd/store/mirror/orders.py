"""Orders with their lines.

Two endpoints show orders, and one of them does not say whose they are. The content hash therefore has two halves:
what both say (number, date, paid, lines), then whose it is. An answer without the second half is compared with the
first alone and leaves the second as it was, so re-reading an order the other way never looks like a change. A third
part, the seal, is the digest of the JSON text: by it ``familiar`` tells what need not even be decoded.
Lines carry no id: a changed order has its lines replaced.

New orders are appended by COPY (see ``store.bulk``), changed ones updated from arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import astuple
from sqlalchemy import text

from syncd.domain.records import Order, OrderLine, Row
from syncd.policy.coverage import Interval
from syncd.policy.diff import diff
from syncd.store.bulk import copy_rows, json_array
from syncd.store.engine import Connection
from syncd.store.history import Change, record
from syncd.store.mirror.normal import columns_of, digest, last_of_each, raw_text, seal, unsaid, warnings_of
from syncd.store.mirror.scope import Gone, Scope, Seen, Written
from syncd.store.mirror.stubs import relation_ids

_OWN = ("invoice_number", "purchased_at", "is_paid")
_WHOSE = ("relation_remote_id", "relation_email", "relation_name")
_LINE = OrderLine.__struct_fields__

_COMPARE = text("""
    SELECT array_agg(i.n) FILTER (WHERE o.id IS NULL) AS new,
           array_agg(nextval(CAST(pg_get_serial_sequence('crm.orders', 'id') AS regclass)))
               FILTER (WHERE o.id IS NULL) AS new_ids,
           array_agg(i.n) FILTER (WHERE o.is_same IS FALSE) AS changed,
           array_agg(o.id) FILTER (WHERE o.id IS NOT NULL) AS seen,
           array_agg(i.n) FILTER (WHERE o.is_same AND i.whose <> :not_said AND o.seal <> i.seal
                                     AND o.last_seen_at < :asked_at) AS respelled,
           array_agg(o.id) FILTER (WHERE o.is_same AND o.last_seen_at < :touch_before) AS stale
    FROM (SELECT remote_id, n, substring(CAST(:hashes AS bytea) FROM CAST(n - 1 AS integer) * 32 + 1 FOR 16),
                 substring(CAST(:hashes AS bytea) FROM CAST(n - 1 AS integer) * 32 + 17 FOR 16),
                 substring(CAST(:seals AS bytea) FROM CAST(n - 1 AS integer) * 16 + 1 FOR 16)
          FROM jsonb_array_elements_text(CAST(CAST(:remote_ids AS text) AS jsonb))
              WITH ORDINALITY AS given (remote_id, n)) AS i (remote_id, n, own, whose, seal)
    LEFT JOIN LATERAL (
        SELECT id, last_seen_at, substring(content_hash FROM 33) AS seal,
               last_seen_at >= :asked_at OR missing_since IS NULL AND substring(content_hash FOR 16) = i.own
                   AND (i.whose = :not_said OR substring(content_hash FROM 17 FOR 16) = i.whose) AS is_same
        FROM crm.orders
        WHERE account_id = :account_id AND remote_id = i.remote_id
        LIMIT 1
    ) AS o ON true
""")
_TOUCH = text("UPDATE crm.orders SET last_seen_at = now() WHERE id = ANY(CAST(:ids AS bigint[]))")
_FAMILIAR = text("""
    SELECT array_agg(i.n) AS known, array_agg(o.id) AS ids,
           array_agg(o.id) FILTER (WHERE o.last_seen_at < :touch_before) AS stale
    FROM (SELECT remote_id, n, substring(CAST(:seals AS bytea) FROM CAST(n - 1 AS integer) * 16 + 1 FOR 16)
          FROM jsonb_array_elements_text(CAST(CAST(:remote_ids AS text) AS jsonb))
              WITH ORDINALITY AS given (remote_id, n)) AS i (remote_id, n, seal)
    JOIN LATERAL (
        SELECT id, last_seen_at FROM crm.orders
        WHERE account_id = :account_id AND remote_id = i.remote_id AND missing_since IS NULL
          AND substring(content_hash FROM 33) = i.seal
        LIMIT 1
    ) AS o ON true
""")
_RESPELL = text("""
    UPDATE crm.orders o
    SET raw = CAST(i.raw AS jsonb), content_hash = substring(o.content_hash FOR 32) || i.seal, last_seen_at = now()
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:raws AS text[]), CAST(:seals AS bytea[])) AS i (remote_id, raw, seal)
    WHERE o.account_id = :account_id AND o.remote_id = i.remote_id
""")

_ORDERS = """
    unnest(CAST(:remote_ids AS text[]), CAST(:hashes AS bytea[]), CAST(:raws AS text[]),
           CAST(:invoice_number AS text[]), CAST(:purchased_at AS timestamptz[]), CAST(:is_paid AS boolean[]),
           CAST(:relation_remote_id AS text[]), CAST(:relation_email AS text[]), CAST(:relation_name AS text[]))
        AS i (remote_id, hash, raw, invoice_number, purchased_at, is_paid,
              relation_remote_id, relation_email, relation_name)
"""
_LINES = """
    unnest(CAST(:line_order AS text[]), CAST(:line_position AS integer[]), CAST(:line_type AS text[]),
           CAST(:product_id AS text[]), CAST(:product_name AS text[]), CAST(:quantity AS text[]),
           CAST(:subscription_id AS text[]), CAST(:subscription_billed_until AS date[]),
           CAST(:subscription_ends_on AS date[]))
        AS l (remote_id, position, line_type, product_id, product_name, quantity,
              subscription_id, subscription_billed_until, subscription_ends_on)
"""
_LINE_COLUMNS = "order_id, position, " + ", ".join(_LINE)
_LINE_VALUES = (
    "l.position, l.line_type, l.product_id, l.product_name, CAST(l.quantity AS numeric),"
    " l.subscription_id, l.subscription_billed_until, l.subscription_ends_on"
)
_NOT_SAID = bytes(16)
_ORDER_COLUMNS = ("id", "account_id", "remote_id", "relation_id", "raw", "content_hash", *_OWN, *_WHOSE)
_HISTORY_COLUMNS = ("account_id", "table_name", "row_id", "kind", "origin", "run_id")
# One writer of an account's orders at a time, whichever stream shows them: rows found new stay new until they are in.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncd.orders', :account_id))")

_OLD = text(f"""
    SELECT o.id, o.remote_id, {", ".join("o." + name for name in _OWN + _WHOSE)}, o.content_hash,
           o.missing_since IS NOT NULL AS was_missing,
           ARRAY(SELECT ROW({", ".join("l." + name for name in _LINE)})
                 FROM crm.order_lines l WHERE l.order_id = o.id ORDER BY l.position) AS lines
    FROM crm.orders o
    WHERE o.account_id = :account_id AND o.remote_id = ANY(CAST(:remote_ids AS text[]))
    ORDER BY o.id FOR UPDATE
""")
_UPDATE = text(f"""
    UPDATE crm.orders o
    SET relation_id = r.id, relation_remote_id = i.relation_remote_id,
        relation_email = i.relation_email, relation_name = i.relation_name, invoice_number = i.invoice_number,
        purchased_at = i.purchased_at, is_paid = i.is_paid, raw = CAST(i.raw AS jsonb), content_hash = i.hash,
        last_seen_at = now(), changed_at = now(), missing_since = NULL
    FROM {_ORDERS}
    LEFT JOIN crm.relations r ON r.account_id = :account_id AND r.remote_id = i.relation_remote_id
    WHERE o.account_id = :account_id AND o.remote_id = i.remote_id
""")
_DROP_LINES = text("DELETE FROM crm.order_lines WHERE order_id = ANY(CAST(:ids AS bigint[]))")
_ADD_LINES = text(f"""
    INSERT INTO crm.order_lines ({_LINE_COLUMNS})
    SELECT o.id, {_LINE_VALUES}
    FROM {_LINES} JOIN crm.orders o ON o.account_id = :account_id AND o.remote_id = l.remote_id
""")

_KNOWN = text("""
    SELECT count(*) FROM crm.orders
    WHERE account_id = :account_id AND purchased_at >= :since AND purchased_at < :upto
      AND missing_since IS NULL AND first_seen_at < now()
""")
_GONE = text("""
    SELECT remote_id FROM crm.orders o
    WHERE account_id = :account_id AND purchased_at >= :since AND purchased_at < :upto
      AND missing_since IS NULL AND first_seen_at < now()
      AND NOT EXISTS (SELECT FROM unnest(CAST(:seen AS bigint[])) AS s (id) WHERE s.id = o.id)
    ORDER BY purchased_at
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one answer, decoded, without doubles, with their hashes: made away from the database."""

    rows: tuple[Row[Order], ...]
    remote_ids: list[str]
    hashes: list[bytes]
    seals: list[bytes]
    named: Mapping[str, str | None]
    received: int
    warnings: tuple[str, ...]


def prepare(rows: Sequence[Row[Order]]) -> Batch:
    """Build a batch. Pure: runs beside the database's work on the batch before."""
    last, doubles = last_of_each(rows, lambda order: order.remote_id)
    kept = tuple(last.values())
    hashes = [hash_of(row.record) for row in kept]
    seals = [seal(row.raw) for row in kept]
    return Batch(kept, list(last), hashes, seals, _named(kept), len(rows), doubles + warnings_of(kept))


def _named(rows: Sequence[Row[Order]]) -> dict[str, str | None]:
    """Return the relations that orders name, with their addresses."""
    records = [row.record for row in rows]
    return {
        it.relation_remote_id: it.relation_email if isinstance(it.relation_email, str) else None
        for it in records
        if isinstance(it.relation_remote_id, str)
    }


def hash_of(order: Order) -> bytes:
    """Return both halves; the second is ``_NOT_SAID`` when the order does not say whose it is."""
    own = digest((order.invoice_number, order.purchased_at, order.is_paid, order.lines))
    whose = _whose_of(order)
    return own + (_NOT_SAID if UNSET in whose else digest(whose))


async def write(connection: Connection, scope: Scope, batch: Batch, seen: Seen) -> Written:
    """Write what differs of a batch and collect the local ids of the rows that were known.

    A row that was written since the answer was asked for knows better, and stays.
    """
    if not seen.is_locked:
        await connection.execute(_LOCK, {"account_id": scope.account_id})
        seen.is_locked = True
    values = {"account_id": scope.account_id, "touch_before": scope.touch_before, "asked_at": scope.asked_at}
    given = {"not_said": _NOT_SAID, "hashes": b"".join(batch.hashes), "seals": b"".join(batch.seals)}
    compared = (
        await connection.execute(_COMPARE, {**values, **given, "remote_ids": json_array(batch.remote_ids)})
    ).one()
    seen.ids.extend(compared.seen or ())
    if compared.stale:
        await connection.execute(_TOUCH, {"ids": compared.stale})
    new, changed = _part(batch, compared.new), _part(batch, compared.changed)
    await _insert(connection, scope, new, compared.new_ids, seen)
    await _update(connection, scope, changed, seen)
    await _respell(connection, scope, _part(batch, compared.respelled))
    unchanged = len(batch.rows) - len(new.rows) - len(changed.rows)
    return Written(batch.received, len(new.rows), len(changed.rows), unchanged, warnings=batch.warnings)


async def familiar(
    connection: Connection, scope: Scope, keys: Sequence[str | None], seals: Sequence[bytes], seen: Seen
) -> list[int]:
    """Return the positions of the records that must be decoded: all whose very text the mirror does not hold."""
    values = {"account_id": scope.account_id, "touch_before": scope.touch_before}
    given = {"remote_ids": json_array(keys), "seals": b"".join(seals)}
    row = (await connection.execute(_FAMILIAR, {**values, **given})).one()
    seen.ids.extend(row.ids or ())
    if row.stale:
        await connection.execute(_TOUCH, {"ids": row.stale})
    known = set(row.known or ())
    return [n for n in range(len(keys)) if n + 1 not in known]


async def gone(connection: Connection, scope: Scope, span: Interval, seen: Seen, *, is_empty_answer: bool) -> Gone:
    """Return which known orders purchased in ``span`` the answer did not show."""
    values = {"account_id": scope.account_id, "since": span.lower, "upto": span.upper}
    known = (await connection.execute(_KNOWN, values)).scalar_one()
    if not known:
        return Gone()
    keys = (await connection.execute(_GONE, {**values, "seen": seen.ids.tolist()})).scalars()
    return Gone(known, tuple(keys))


def _part(batch: Batch, ordinals: Sequence[int] | None) -> Batch:
    if ordinals is not None and len(ordinals) == len(batch.rows):
        return batch
    chosen = [ordinal - 1 for ordinal in ordinals or ()]
    return replace(
        batch,
        rows=tuple(batch.rows[n] for n in chosen),
        remote_ids=[batch.remote_ids[n] for n in chosen],
        hashes=[batch.hashes[n] for n in chosen],
        seals=[batch.seals[n] for n in chosen],
    )


async def _respell(connection: Connection, scope: Scope, batch: Batch) -> None:
    """Keep ``raw`` as the CRM spells it now (a key that nobody knows may be new); the order itself did not change."""
    if batch.rows:
        raws = [raw_text(row.raw) for row in batch.rows]
        values = {"account_id": scope.account_id, "remote_ids": batch.remote_ids, "raws": raws, "seals": batch.seals}
        await connection.execute(_RESPELL, values)


async def _insert(connection: Connection, scope: Scope, batch: Batch, ids: Sequence[int], seen: Seen) -> None:
    """Append new orders, their lines and their history, under the ids taken for them."""
    if not batch.rows:
        return
    owners = await relation_ids(connection, scope, batch.named, seen)
    await copy_rows(connection, "crm.orders", _ORDER_COLUMNS, _order_rows(scope, batch, ids, owners))
    await copy_rows(connection, "crm.order_lines", ("order_id", "position", *_LINE), _line_rows(batch, ids))
    history = [(scope.account_id, "orders", row_id, "insert", "remote", scope.run_id) for row_id in ids]
    await copy_rows(connection, "syncd.changes", _HISTORY_COLUMNS, history)


def _order_rows(
    scope: Scope, batch: Batch, ids: Sequence[int], owners: Mapping[str, int]
) -> Iterator[tuple[object, ...]]:
    for row, row_id, content_hash in zip(batch.rows, ids, _stored(batch), strict=True):
        it = row.record
        whose = tuple(None if value is UNSET else value for value in _whose_of(it))
        owner = owners.get(whose[0]) if whose[0] else None
        said = (it.invoice_number, it.purchased_at, it.is_paid, *whose)
        yield (row_id, scope.account_id, it.remote_id, owner, raw_text(row.raw), content_hash, *said)


def _line_rows(batch: Batch, ids: Sequence[int]) -> Iterator[tuple[object, ...]]:
    for row, row_id in zip(batch.rows, ids, strict=True):
        for position, line in enumerate(row.record.lines):
            yield (row_id, position, *astuple(line))


def _whose_of(order: Order) -> tuple[Any, ...]:
    return order.relation_remote_id, order.relation_email, order.relation_name


async def _update(connection: Connection, scope: Scope, batch: Batch, seen: Seen) -> None:
    """Replace changed orders; only what an order says is changed, and the history gets the changed columns."""
    if not batch.rows:
        return
    await relation_ids(connection, scope, batch.named, seen)
    values = {"account_id": scope.account_id, "remote_ids": batch.remote_ids}
    old = {row.remote_id: row._asdict() for row in await connection.execute(_OLD, values)}
    filled = replace(
        batch,
        rows=tuple(_filled(row, old[row.record.remote_id]) for row in batch.rows),
        hashes=[_hash(given, old[name]) for given, name in zip(batch.hashes, batch.remote_ids, strict=True)],
    )
    await connection.execute(_UPDATE, {**_order_arrays(filled), "account_id": scope.account_id})
    await connection.execute(_DROP_LINES, {"ids": [row["id"] for row in old.values()]})
    await connection.execute(_ADD_LINES, {**_line_arrays(filled), "account_id": scope.account_id})
    await record(connection, scope, "orders", _changes(filled, old))


def _filled(row: Row[Order], old: Mapping[str, object]) -> Row[Order]:
    """Return the row with what it does not say, or not readably, taken from the mirror."""
    kept = {name: old[name] for name in unsaid(row, (*_OWN, *_WHOSE))}
    return Row(msgspec.structs.replace(row.record, **kept), row.raw) if kept else row


def _hash(given: bytes, old: Mapping[str, object]) -> bytes:
    kept = old["content_hash"]
    return given[:16] + kept[16:32] if given[16:] == _NOT_SAID and isinstance(kept, bytes) else given


def _stored(batch: Batch) -> list[bytes]:
    """Return the content hashes: both halves and the seal."""
    return [given + sealed for given, sealed in zip(batch.hashes, batch.seals, strict=True)]


def _changes(batch: Batch, old: Mapping[str, Mapping[str, object]]) -> list[Change]:
    found: list[Change] = []
    for row in batch.rows:
        before = old[row.record.remote_id]
        row_id = int(str(before["id"]))
        if before["was_missing"]:
            found.append(Change(row_id, "found"))
        after = {name: getattr(row.record, name) for name in _OWN + _WHOSE}
        lines_before, lines_after = _shown(before["lines"]), [_shown_line(line) for line in row.record.lines]
        difference = diff({**before, "lines": lines_before}, {**after, "lines": lines_after})
        if difference:
            found.append(Change(row_id, "update", difference.before, difference.after))
    return found


def _shown(lines: object) -> list[dict[str, object]]:
    rows = lines if isinstance(lines, list) else []
    return [dict(zip(_LINE, row, strict=True)) for row in rows]


def _shown_line(line: OrderLine) -> dict[str, object]:
    return {name: getattr(line, name) for name in _LINE}


def _order_arrays(batch: Batch) -> dict[str, object]:
    records = [row.record for row in batch.rows]
    return {
        "remote_ids": batch.remote_ids,
        "hashes": _stored(batch),
        "raws": [raw_text(row.raw) for row in batch.rows],
        **columns_of(records, *_OWN, *_WHOSE),
    }


def _line_arrays(batch: Batch) -> dict[str, object]:
    lines = [(row.record.remote_id, n, line) for row in batch.rows for n, line in enumerate(row.record.lines)]
    arrays = columns_of([line for _, _, line in lines], *_LINE)
    return {
        **arrays,
        "quantity": [None if quantity is None else str(quantity) for quantity in arrays["quantity"]],
        "line_order": [remote_id for remote_id, _, _ in lines],
        "line_position": [position for _, position, _ in lines],
    }
