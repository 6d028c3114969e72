"""Erased: what a pull's answer says of erased persons is left out, or written with stand-ins where the law keeps it.

Every writer of records that name a person asks here first, inside its own transaction. A relation or an order of an
erased person is left out: it counts as received and changes nothing. An invoice is left out too, or kept with
stand-ins, as was chosen when its person was erased; one that has stand-ins keeps them whatever the CRM says of it
later, so that only its date and amounts follow.

It must never let a text of such a record through: not the JSON it came as, not a free text, not a warning about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import text

from syncd.domain.records import Invoice, InvoiceDetail, Order, Relation, Row
from syncd.policy.erasure import NAMING, Invoices, Pseudonym, pseudonymised
from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope
from syncd.store.suppression import Fate, Suppressed, suppressed

_KEPT = text("""
    SELECT id, number, is_credit, relation_email, description, invoiced_on, amount_incl FROM crm.invoices
    WHERE account_id = :account_id AND number = ANY(CAST(:numbers AS text[])) AND pseudonymised_at IS NOT NULL
""")
_LIVING = text("""
    SELECT remote_id FROM crm.relations
    WHERE account_id = :account_id AND remote_id = ANY(CAST(:remote_ids AS text[]))
""")
_LINKED = text("""
    SELECT number, is_credit FROM crm.invoices
    WHERE account_id = :account_id AND number = ANY(CAST(:numbers AS text[])) AND relation_id IS NOT NULL
""")
_MARK = text("""
    UPDATE crm.invoices v SET pseudonymised_at = now()
    FROM unnest(CAST(:numbers AS text[]), CAST(:credits AS boolean[])) AS i (number, is_credit)
    WHERE v.account_id = :account_id AND v.number = i.number AND v.is_credit = i.is_credit
      AND v.pseudonymised_at IS NULL
""")
_OWN = (*NAMING, "company", "vat_number", "relation_email")
# Locked: an erasure that is under way must not put its stand-ins in before what is said here is written.
_STANDING = text(f"""
    SELECT number, is_credit, pseudonymised_at IS NOT NULL AS has_stand_ins, {", ".join(_OWN)}
    FROM crm.invoices WHERE id = :id FOR UPDATE
""")
_FORGET = text("DELETE FROM syncd.changes WHERE table_name = 'invoices' AND row_id = :id")
_DROP = text("DELETE FROM crm.invoices WHERE id = :id")
_MOVES = ("invoiced_on", "amount_incl")

Key = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Kept:
    """The invoices of an answer that may be written. ``same`` are our ids of those with stand-ins that did not change;
    ``stand_ins`` are the keys of the rows that name nobody any more."""

    rows: tuple[Row[Invoice], ...]
    same: tuple[int, ...]
    stand_ins: frozenset[Key]


async def without_relations(
    connection: Connection, scope: Scope, rows: Sequence[Row[Relation]]
) -> Sequence[Row[Relation]]:
    """Return the relations of an answer that are nobody erased."""
    hidden = await suppressed(connection, scope.account_id)
    if hidden is None:
        return rows
    return [row for row in rows if hidden.relation(row.record.remote_id, row.record.email) is None]


async def of_keys(connection: Connection, scope: Scope, remote_ids: Sequence[str]) -> frozenset[str]:
    """Return which of these relations, by the CRM's id, are erased."""
    hidden = await suppressed(connection, scope.account_id)
    if hidden is None:
        return frozenset()
    return frozenset(remote_id for remote_id in remote_ids if hidden.relation(remote_id, None))


async def of_orders(connection: Connection, scope: Scope, orders: Sequence[Order]) -> frozenset[int]:
    """Return the places of the orders of erased persons."""
    hidden = await suppressed(connection, scope.account_id)
    if hidden is None:
        return frozenset()
    found = {n: it for n, it in enumerate(orders) if hidden.relation(it.relation_remote_id, it.relation_email)}
    others = (
        await _others(connection, hidden, [it.relation_remote_id for it in found.values()]) if found else frozenset()
    )
    return frozenset(n for n, it in found.items() if it.relation_remote_id not in others)


async def of_invoices(connection: Connection, scope: Scope, rows: Sequence[Row[Invoice]]) -> Kept | None:
    """Return what may be written of a list of invoices; None: all of it, as it is."""
    hidden = await suppressed(connection, scope.account_id)
    if hidden is None:
        return None
    values = {"account_id": scope.account_id, "numbers": [row.record.number for row in rows]}
    standing = {(old.number, old.is_credit): old._asdict() for old in await connection.execute(_KEPT, values)}
    named = [row.record.number for row in rows if hidden.relation(None, row.record.relation_email)]
    linked = await connection.execute(_LINKED, {**values, "numbers": named}) if named else ()
    others = {(one.number, one.is_credit) for one in linked}
    written: list[Row[Invoice]] = []
    same: list[int] = []
    stand_ins: set[Key] = set()
    for row in rows:
        it, key = row.record, (row.record.number, row.record.is_credit)
        old, fate = standing.get(key), hidden.relation(None, it.relation_email)
        if old is not None and not _moved(it, old):
            same.append(old["id"])
        elif old is not None:
            written.append(_replaced(row, old))
            stand_ins.add(key)
        elif key in others or (fate is None and hidden.invoice(it.number, is_credit=it.is_credit) is None):
            written.append(row)
        elif fate is not None and fate.invoices is Invoices.KEEP:
            written.append(_replaced(row, _named_by_nobody(it, fate.person)))
            stand_ins.add(key)
    return Kept(tuple(written), tuple(same), frozenset(stand_ins))


async def _others(connection: Connection, hidden: Suppressed, remote_ids: Iterable[object]) -> frozenset[object]:
    """Return those of some CRM ids that are relations of the mirror and nobody erased: what is theirs stays theirs,
    though it bears the address of somebody who was erased."""
    named = [one for one in remote_ids if isinstance(one, str) and hidden.relation(one, None) is None]
    if not named:
        return frozenset()
    values = {"account_id": hidden.account_id, "remote_ids": named}
    return frozenset((await connection.execute(_LIVING, values)).scalars())


async def mark_invoices(connection: Connection, scope: Scope, keys: frozenset[Key]) -> None:
    """Write down that these invoices hold stand-ins, so that they keep them."""
    if keys:
        numbers, credits = zip(*keys, strict=True)
        values = {"account_id": scope.account_id, "numbers": list(numbers), "credits": list(credits)}
        await connection.execute(_MARK, values)


async def of_detail(
    connection: Connection, scope: Scope, invoice_id: int, row: Row[InvoiceDetail]
) -> Row[InvoiceDetail] | None:
    """Return an invoice's detail as it may be written; None: not at all, and the invoice goes."""
    hidden = await suppressed(connection, scope.account_id)
    if hidden is None:
        return row
    old = (await connection.execute(_STANDING, {"id": invoice_id})).one_or_none()
    named = row.record.relation_remote_id
    fate = hidden.relation(named, row.record.relation_email)
    if fate is not None and named in await _others(connection, hidden, [named]):
        fate = None
    if old is None:
        return None
    if not old.has_stand_ins and fate is None:
        return row
    if not old.has_stand_ins and fate is not None and fate.invoices is Invoices.REMOVE:
        await connection.execute(_FORGET, {"id": invoice_id})
        await connection.execute(_DROP, {"id": invoice_id})
        return None
    await mark_invoices(connection, scope, frozenset({(old.number, old.is_credit)}))
    return _stood_in(row, old._asdict() if old.has_stand_ins else {}, fate)


def _moved(invoice: Invoice, old: Mapping[str, Any]) -> bool:
    said = ((getattr(invoice, name), old[name]) for name in _MOVES)
    return any(new is not UNSET and new is not None and new != before for new, before in said)


def _named_by_nobody(invoice: Invoice, person: Pseudonym) -> Mapping[str, object]:
    said = {"relation_email": invoice.relation_email, "description": invoice.description}
    return pseudonymised({name: value for name, value in said.items() if value is not UNSET}, person, None)


def _replaced(row: Row[Invoice], values: Mapping[str, Any]) -> Row[Invoice]:
    changed = {"relation_email": values.get("relation_email"), "description": values.get("description")}
    return Row(msgspec.structs.replace(row.record, **changed), b"")


def _stood_in(row: Row[InvoiceDetail], old: Mapping[str, Any], fate: Fate | None) -> Row[InvoiceDetail]:
    """Return a detail that names nobody: what stands in the mirror, else a stand-in; lines keep their numbers."""
    detail = row.record
    said = {name: getattr(detail, name) for name in (*_OWN, "relation_remote_id")}
    values = pseudonymised(said, fate.person, None) if fate else dict.fromkeys(said)
    values |= {name: old[name] for name in _OWN if old.get(name) is not None}
    lines = tuple(msgspec.structs.replace(line, description=None) for line in detail.lines)
    return Row(msgspec.structs.replace(detail, lines=lines, **values), b"")
