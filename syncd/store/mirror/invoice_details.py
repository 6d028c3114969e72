"""Invoice details: what the detail call adds to an invoice, and its lines.

The list's own columns stay as the list gave them unless it gave nothing. The detail alone names the relation by id,
so its link overrules the guess by address.
"""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.records import InvoiceDetail, Row
from syncd.policy.diff import diff
from syncd.store.engine import Connection
from syncd.store.history import Change, record
from syncd.store.mirror import erased
from syncd.store.mirror.normal import columns_of, raw_text, unsaid
from syncd.store.mirror.scope import Scope, Seen, Written
from syncd.store.mirror.stubs import relation_ids

_ADDED = (
    "relation_remote_id",
    "order_remote_id",
    "billing_id",
    "amount_excl",
    "amount_vat",
    "full_name",
    "company",
    "address",
    "postal_code",
    "city",
    "country",
    "vat_number",
)
_ALSO_LISTED = ("relation_email", "invoiced_on", "amount_incl")
_LINE = ("sku", "description", "quantity", "amount", "discount", "vat_amount", "vat_percentage", "ledger")
_NUMERIC = ("quantity", "amount", "discount", "vat_amount", "vat_percentage")
_LINE_VALUES = [f"CAST(l.{name} AS numeric)" if name in _NUMERIC else f"l.{name}" for name in _LINE]

_OLD = text(f"""
    SELECT v.id, v.relation_id, v.detail_status, {", ".join("v." + name for name in _ADDED + _ALSO_LISTED)},
           ARRAY(SELECT ROW({", ".join("l." + name for name in _LINE)})
                 FROM crm.invoice_lines l WHERE l.invoice_id = v.id ORDER BY l.position) AS lines
    FROM crm.invoices v
    WHERE v.id = :id FOR UPDATE
""")
_UPDATE = text(f"""
    UPDATE crm.invoices v
    SET {", ".join(f"{name} = :{name}" for name in _ADDED + _ALSO_LISTED)},
        relation_id = COALESCE((SELECT r.id FROM crm.relations r
                                WHERE r.account_id = v.account_id AND r.remote_id = :relation_remote_id),
                               v.relation_id),
        detail_status = 'done', detail_error = NULL, detail_raw = CAST(CAST(:raw AS text) AS jsonb), changed_at = now()
    WHERE v.id = :id
    RETURNING v.relation_id, v.detail_status
""")
_DROP_LINES = text("DELETE FROM crm.invoice_lines WHERE invoice_id = :id")
_ADD_LINES = text(f"""
    INSERT INTO crm.invoice_lines (invoice_id, position, {", ".join(_LINE)})
    SELECT :id, l.n - 1, {", ".join(_LINE_VALUES)}
    FROM unnest({", ".join(f"CAST(:{name} AS text[])" for name in _LINE)})
        WITH ORDINALITY AS l ({", ".join(_LINE)}, n)
""")


async def write(connection: Connection, scope: Scope, invoice_id: int, row: Row[InvoiceDetail]) -> Written:
    """Write the detail of an invoice, by our id. One of an erased person is written with stand-ins, or not at all; one
    that was removed since it was asked for is left alone."""
    allowed = await erased.of_detail(connection, scope, invoice_id, row)
    if allowed is None:
        return Written(1, unchanged=1)
    row = allowed
    detail = row.record
    if detail.relation_remote_id is not None:
        await relation_ids(connection, scope, {detail.relation_remote_id: detail.relation_email}, Seen())
    found = (await connection.execute(_OLD, {"id": invoice_id})).one_or_none()
    if found is None:
        return Written(1, unchanged=1)
    old = found._asdict()
    values = {name: getattr(detail, name) for name in _ADDED} | {name: old[name] for name in unsaid(row, _ADDED)}
    values |= {name: old[name] if old[name] is not None else getattr(detail, name) for name in _ALSO_LISTED}
    old["lines"] = [dict(zip(_LINE, line, strict=True)) for line in old["lines"]]
    lines = [{name: getattr(line, name) for name in _LINE} for line in detail.lines]
    if old["detail_status"] == "done" and not diff(old, {**values, "lines": lines}):
        return Written(1, unchanged=1, warnings=row.warnings)
    now = (await connection.execute(_UPDATE, {**values, "id": old["id"], "raw": raw_text(row.raw)})).one()
    await connection.execute(_DROP_LINES, {"id": old["id"]})
    if detail.lines:
        await connection.execute(_ADD_LINES, {"id": old["id"], **_line_arrays(detail)})
    difference = diff(old, {**values, **now._asdict(), "lines": lines})
    if difference:
        await record(connection, scope, "invoices", [Change(old["id"], "update", difference.before, difference.after)])
    return Written(1, updated=1, warnings=row.warnings)


def _line_arrays(detail: InvoiceDetail) -> dict[str, object]:
    arrays = columns_of(detail.lines, *_LINE)
    return {name: [None if value is None else str(value) for value in arrays[name]] for name in _LINE}
