"""Turns what the world keeps into rows of JSON with the keys of the reference, and remembers the rows of orders.

Key names differ between endpoints on purpose, as the reference says: ``relationEmail`` and ``email``,
``subscriptionEnds`` and ``subscriptionEndsAt``; ``orderlines`` is all lower case.
"""

from __future__ import annotations

from zlib import crc32

import msgspec

from syncd.sandbox.autorespond.spelling import UNPARSABLE, Spelling
from syncd.sandbox.records import (
    Event,
    Field,
    Group,
    Invoice,
    InvoiceLine,
    ListManager,
    Order,
    OrderLine,
    Relation,
    Tag,
)
from syncd.sandbox.switches import Switches
from syncd.sandbox.world import Administration, World

Row = dict[str, object]
_json = msgspec.json.Encoder()


class _OrderRow(msgspec.Struct, rename="camel", gc=False):
    """A row of "Show Orders": a struct, because an answer may hold a million of them."""

    order_id: object
    relation_id: object
    relation_name: object
    relation_email: object
    invoice_number: object
    orderlines: list[object]
    purchase_date: object
    paid: object


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """An encoded order, good for as long as this very order and this very relation stand in the world."""

    order: Order
    relation: Relation | None
    row: bytes


class Encoder:
    """The rows of one world under one set of switches."""

    def __init__(self, world: World, switches: Switches) -> None:
        self._world = world
        self._spell = Spelling(switches)
        self._extra = b',"xSandbox":{"unknown":[1,null]}}' if switches.unknown_keys else b""
        self._orders: dict[int, _Kept] = {}
        self._lines: dict[int, tuple[OrderLine, msgspec.Raw]] = {}

    def row(self, row: Row | _OrderRow) -> bytes:
        """Encode one row."""
        encoded = _json.encode(row)
        return encoded[:-1] + self._extra if self._extra else encoded

    def name(self, name: str) -> bytes:
        """Encode a row that is a text alone."""
        return _json.encode(name)

    def relation(self, relation: Relation) -> Row:
        """Headings "Load Relation by Id" and "Get Relations in Group"."""
        spell = self._spell
        return {
            "id": spell.number(relation.id),
            "firstName": spell.text(relation.first_name),
            "suffix": spell.text(relation.suffix),
            "lastName": spell.text(relation.last_name),
            "email": relation.email,
            "funnelState": spell.text(relation.funnel_state),
            "gender": relation.gender if relation.gender != "-" else spell.unspecified,
        }

    def tag(self, tag: Tag) -> Row:
        """Heading "Get All Tags"."""
        return {"id": self._spell.number(tag.id), "name": tag.name}

    def group(self, group: Group) -> Row:
        """Heading "Get All Groups"."""
        return {"id": self._spell.number(group.id), "title": group.title}

    def field(self, field: Field) -> Row:
        """Heading "Get All Fields": free and standard ones, with nothing to tell them apart."""
        return {"code": field.code, "name": field.name, "type": field.type, "options": list(field.options)}

    def listmanager(self, each: ListManager) -> Row:
        """Heading "Show Listmanagers"."""
        number = self._spell.number
        return {
            "id": number(each.id),
            "name": each.name,
            "category": each.category,
            "code": each.code,
            "groupId": number(each.group_id),
        }

    def administration(self, each: Administration) -> Row:
        """Heading "Load Admin": snake and camel mixed, and a secret among them."""
        return {
            "company_id": self._spell.number(each.company_id),
            "accessCode": each.access_code,
            "serviceLevel": each.service_level,
            "locked": self._spell.flag(False),
            "adminName": each.name,
            "adminEmail": each.email,
        }

    def event(self, event: Event, relation: Relation) -> Row:
        """Heading "Show subscriptions"."""
        return {
            "campaignId": self._spell.number(event.list_id),
            "relationId": self._spell.number(relation.id),
            "subscribedFlag": event.flag,
            "eventDate": self._spell.instant(event.at),
        }

    def order(self, order: Order) -> bytes:
        """Heading "Show Orders", encoded; the bytes are kept while the same order and relation stand in the world."""
        relation = self._world.relations.get(order.relation_id)
        kept = self._orders.get(order.id)
        if kept is not None and kept.order is order and kept.relation is relation:
            return kept.row
        row = self.row(self._order(order, relation))
        self._orders[order.id] = _Kept(order, relation, row)
        return row

    def _order(self, order: Order, relation: Relation | None) -> _OrderRow:
        spell = self._spell
        return _OrderRow(
            spell.number(order.id),
            spell.number(order.relation_id),
            relation.name if relation else None,
            relation.email if relation else None,
            spell.text(order.invoice_number),
            [self._shared_line(line) for line in order.lines],
            self._purchased(order),
            spell.paid(order.is_paid),
        )

    def _shared_line(self, line: OrderLine) -> object:
        """Encode a line without a subscription once: most orders share theirs."""
        if line.subscription_id is not None:
            return self._line(line, "subscriptionEnds")
        kept = self._lines.get(id(line))
        if kept is None or kept[0] is not line:
            kept = self._lines[id(line)] = line, msgspec.Raw(_json.encode(self._line(line, "subscriptionEnds")))
        return kept[1]

    def order_of_relation(self, order: Order, relation: Relation) -> Row:
        """Heading "Show Orders for Given Relation": no relation id, no name, other key names."""
        spell = self._spell
        return {
            "orderId": spell.number(order.id),
            "invoiceNumber": spell.text(order.invoice_number),
            "orderlines": [self._line(line, "subscriptionEndsAt") for line in order.lines],
            "purchaseDate": self._purchased(order),
            "paid": spell.paid(order.is_paid),
            "email": relation.email,
        }

    def _purchased(self, order: Order) -> object:
        return UNPARSABLE if self._spell.has_bad_date(order.id) else self._spell.instant(order.purchased_at)

    def _line(self, line: OrderLine, ends_key: str) -> Row:
        spell = self._spell
        return {
            "lineType": line.line_type,
            "productId": spell.number(line.product_id),
            "productName": line.product_name,
            "quantity": line.quantity,
            "subscriptionId": spell.number(line.subscription_id),
            "subscriptionBilledUntil": spell.day(line.billed_until),
            ends_key: spell.day(line.ends_on),
        }

    def invoice(self, invoice: Invoice) -> Row:
        """Heading "Show Invoices": no id, no relation id, no order."""
        return {
            "relationEmail": invoice.relation_email,
            "invoiceNumber": invoice.number,
            "description": self._spell.text(invoice.description),
            "invoiceDate": self._invoiced(invoice),
            "isCreditInvoice": self._spell.flag(invoice.is_credit),
            "amountIncl": self._spell.amount(invoice.excl_cents + invoice.vat_cents),
        }

    def invoice_detail(self, invoice: Invoice) -> Row:
        """Heading "Show Individual Invoice"."""
        spell = self._spell
        return {
            "lines": [self._invoice_line(line) for line in invoice.lines],
            "orderId": spell.number(invoice.order_id),
            "billingId": spell.number(invoice.billing_id),
            "relationEmail": invoice.relation_email,
            "relationId": spell.number(invoice.relation_id),
            "invoiceNumber": invoice.number,
            "invoiceDate": self._invoiced(invoice),
            "isCreditInvoice": spell.flag(invoice.is_credit),
            "amountIncl": spell.amount(invoice.excl_cents + invoice.vat_cents),
            "amountExcl": spell.amount(invoice.excl_cents),
            "amountVat": spell.amount(invoice.vat_cents),
            "fullName": invoice.full_name,
            "address": invoice.address,
            "postalCode": invoice.postal_code,
            "city": invoice.city,
            "country": invoice.country,
            "btwNummer": spell.text(invoice.vat_number),
            "company": spell.text(invoice.company),
        }

    def _invoiced(self, invoice: Invoice) -> object:
        is_bad = self._spell.has_bad_date(crc32(invoice.number.encode()))
        return UNPARSABLE if is_bad else self._spell.day(invoice.invoiced_on)

    def _invoice_line(self, line: InvoiceLine) -> Row:
        amount = self._spell.amount
        return {
            "discount": amount(line.discount_cents),
            "sku": line.sku,
            "description": line.description,
            "quantity": line.quantity,
            "amount": amount(line.amount_cents),
            "vatamount": amount(line.vat_cents),
            "vatpercentage": line.vat_percentage,
            "ledger": line.ledger,
        }
