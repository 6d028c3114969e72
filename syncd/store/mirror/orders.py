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

from syncd.domain.records import Order, OrderLine, Row
from syncd.policy.coverage import Interval
from syncd.policy.diff import diff
from syncd.store.bulk import copy_rows, json_array
from syncd.store.engine import Connection
from syncd.store.history import Change, found, record
from syncd.store.mirror import erased
from syncd.store.mirror.normal import columns_of, digest, last_of_each, raw_text, seal, unsaid, warnings_of
from syncd.store.mirror.order_statements import (
    ADD_LINES,
    COMPARE,
    DROP_LINES,
    FAMILIAR,
    GONE,
    HISTORY_COLUMNS,
    KNOWN,
    LINE,
    LOCK,
    NOT_SAID,
    OLD,
    ORDER_COLUMNS,
    OWN,
    RESPELL,
    TOUCH,
    UPDATE,
    WHOSE,
)
from syncd.store.mirror.scope import Gone, Scope, Seen, Written
from syncd.store.mirror.stubs import relation_ids

TABLE = "orders"
_PRODUCT = LINE.index("product_id")


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
    """Return both halves; the second is ``NOT_SAID`` when the order does not say whose it is."""
    own = digest((order.invoice_number, order.purchased_at, order.is_paid, order.lines))
    whose = _whose_of(order)
    return own + (NOT_SAID if UNSET in whose else digest(whose))


async def write(connection: Connection, scope: Scope, batch: Batch, seen: Seen) -> Written:
    """Write what differs of a batch and collect the local ids of the rows that were known.

    A row that was written since the answer was asked for knows better, and stays.
    """
    batch = await _without_erased(connection, scope, batch)
    if not seen.is_locked:
        await connection.execute(LOCK, {"account_id": scope.account_id})
        seen.is_locked = True
    values = {"account_id": scope.account_id, "touch_before": scope.touch_before, "asked_at": scope.asked_at}
    given = {"not_said": NOT_SAID, "hashes": b"".join(batch.hashes), "seals": b"".join(batch.seals)}
    compared = (
        await connection.execute(COMPARE, {**values, **given, "remote_ids": json_array(batch.remote_ids)})
    ).one()
    seen.ids.extend(compared.seen or ())
    if compared.stale:
        await connection.execute(TOUCH, {"ids": compared.stale})
    new, changed = _part(batch, compared.new), _part(batch, compared.changed)
    seen.new.extend(compared.new_ids or ())
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
    row = (await connection.execute(FAMILIAR, {**values, **given})).one()
    seen.ids.extend(row.ids or ())
    if row.stale:
        await connection.execute(TOUCH, {"ids": row.stale})
    known = set(row.known or ())
    return [n for n in range(len(keys)) if n + 1 not in known]


async def gone(connection: Connection, scope: Scope, span: Interval, seen: Seen, *, is_empty_answer: bool) -> Gone:
    """Return which known orders purchased in ``span`` the answer did not show."""
    values = {"account_id": scope.account_id, "since": span.lower, "upto": span.upper}
    known = (await connection.execute(KNOWN, values)).scalar_one()
    if not known:
        return Gone()
    lost = (await connection.execute(GONE, {**values, "seen": seen.ids.tolist()})).all()
    return Gone(known, tuple(row.remote_id for row in lost), tuple(row.id for row in lost))


async def _without_erased(connection: Connection, scope: Scope, batch: Batch) -> Batch:
    """Leave out the orders of erased persons, and what their rows warn of."""
    hidden = await erased.of_orders(connection, scope, [row.record for row in batch.rows])
    if not hidden:
        return batch
    kept = _part(batch, [n for n in range(1, len(batch.rows) + 1) if n - 1 not in hidden])
    unsaid_now = {warning for n in hidden for warning in batch.rows[n].warnings}
    warnings = tuple(warning for warning in batch.warnings if warning not in unsaid_now)
    return replace(kept, named=_named(kept.rows), warnings=warnings)


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
        await connection.execute(RESPELL, values)


async def _insert(connection: Connection, scope: Scope, batch: Batch, ids: Sequence[int], seen: Seen) -> None:
    """Append new orders, their lines and their history, under the ids taken for them."""
    if not batch.rows:
        return
    owners = await relation_ids(connection, scope, batch.named, seen)
    await copy_rows(connection, "crm.orders", ORDER_COLUMNS, _order_rows(scope, batch, ids, owners))
    await copy_rows(connection, "crm.order_lines", ("order_id", "position", *LINE), _line_rows(batch, ids))
    history = [(scope.account_id, "orders", row_id, "insert", "remote", scope.run_id) for row_id in ids]
    await copy_rows(connection, "syncd.changes", HISTORY_COLUMNS, history)


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
    """Replace changed orders; only what an order says is changed, and the history gets the changed columns.

    One that was removed since it was compared, with a person it belonged to, is left to the next answer.
    """
    if not batch.rows:
        return
    await relation_ids(connection, scope, batch.named, seen)
    values = {"account_id": scope.account_id, "remote_ids": batch.remote_ids}
    old = {row.remote_id: row._asdict() for row in await connection.execute(OLD, values)}
    batch = _part(batch, [n for n, name in enumerate(batch.remote_ids, start=1) if name in old])
    filled = replace(
        batch,
        rows=tuple(_filled(row, old[row.record.remote_id]) for row in batch.rows),
        hashes=[_hash(given, old[name]) for given, name in zip(batch.hashes, batch.remote_ids, strict=True)],
    )
    given = {"account_id": scope.account_id, "is_retold": scope.is_retold}
    written = await connection.execute(UPDATE, {**_order_arrays(filled), **given})
    owners = {row.remote_id: row.relation_id for row in written}
    await connection.execute(DROP_LINES, {"ids": [row["id"] for row in old.values()]})
    await connection.execute(ADD_LINES, {**_line_arrays(filled), "account_id": scope.account_id})
    await record(connection, scope, "orders", _changes(filled, old, owners))


def _filled(row: Row[Order], old: Mapping[str, object]) -> Row[Order]:
    """Return the row with what it does not say, or not readably, taken from the mirror."""
    kept: dict[str, Any] = {name: old[name] for name in unsaid(row, (*OWN, *WHOSE))}
    if row.warnings:
        kept["lines"] = _filled_lines(row.record.lines, old["lines"])
    return Row(msgspec.structs.replace(row.record, **kept), row.raw) if kept else row


def _filled_lines(lines: Sequence[OrderLine], old: object) -> tuple[OrderLine, ...]:
    """Return lines with what is empty in them taken from the old ones, if it is the same lines: of a row that could not
    be read whole, each empty value may be one of those that could not."""
    known = old if isinstance(old, list) and len(old) == len(lines) else [None] * len(lines)
    return tuple(_filled_line(line, before) for line, before in zip(lines, known, strict=True))


def _filled_line(line: OrderLine, before: Sequence[Any] | None) -> OrderLine:
    if before is None or (line.product_id and before[_PRODUCT] and line.product_id != before[_PRODUCT]):
        return line
    values = zip(LINE, astuple(line), before, strict=True)
    return OrderLine(**{name: was if value is None else value for name, value, was in values})


def _hash(given: bytes, old: Mapping[str, object]) -> bytes:
    kept = old["content_hash"]
    return given[:16] + kept[16:32] if given[16:] == NOT_SAID and isinstance(kept, bytes) else given


def _stored(batch: Batch) -> list[bytes]:
    """Return the content hashes: both halves and the seal."""
    return [given + sealed for given, sealed in zip(batch.hashes, batch.seals, strict=True)]


def _changes(batch: Batch, old: Mapping[str, Mapping[str, object]], owners: Mapping[str, int | None]) -> list[Change]:
    changes: list[Change] = []
    for row in batch.rows:
        before = old[row.record.remote_id]
        row_id = int(str(before["id"]))
        if before["missing_since"] is not None:
            changes.append(found(row_id, before["missing_since"]))
        after = {name: getattr(row.record, name) for name in OWN + WHOSE}
        after["relation_id"] = owners.get(row.record.remote_id)
        lines_before, lines_after = _shown(before["lines"]), [_shown_line(line) for line in row.record.lines]
        difference = diff({**before, "lines": lines_before}, {**after, "lines": lines_after})
        if difference:
            changes.append(Change(row_id, "update", difference.before, difference.after))
    return changes


def _shown(lines: object) -> list[dict[str, object]]:
    rows = lines if isinstance(lines, list) else []
    return [dict(zip(LINE, row, strict=True)) for row in rows]


def _shown_line(line: OrderLine) -> dict[str, object]:
    return {name: getattr(line, name) for name in LINE}


def _order_arrays(batch: Batch) -> dict[str, object]:
    records = [row.record for row in batch.rows]
    return {
        "remote_ids": batch.remote_ids,
        "hashes": _stored(batch),
        "raws": [raw_text(row.raw) for row in batch.rows],
        **columns_of(records, *OWN, *WHOSE),
    }


def _line_arrays(batch: Batch) -> dict[str, object]:
    lines = [(row.record.remote_id, n, line) for row in batch.rows for n, line in enumerate(row.record.lines)]
    arrays = columns_of([line for _, _, line in lines], *LINE)
    return {
        **arrays,
        "quantity": [None if quantity is None else str(quantity) for quantity in arrays["quantity"]],
        "line_order": [remote_id for remote_id, _, _ in lines],
        "line_position": [position for _, position, _ in lines],
    }
