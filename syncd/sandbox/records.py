"""What the CRM keeps, as values: a changed profile or order is a new value under the same id.

Frozen, so that a row's encoding can be kept for as long as the very same object stands in the world. Money is whole
cents; instants are aware UTC; what a relation has (tags, groups, field values, events) are containers on it that change
in place.
"""

from __future__ import annotations

from datetime import date, datetime

import msgspec


class Event(msgspec.Struct, frozen=True):
    """One (un)subscription of a relation to a list: S or U."""

    list_id: int
    flag: str
    at: datetime


class Relation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A contact. ``tags`` and ``groups`` hold ids, ``fields`` the values by field code; no password is ever kept."""

    id: int
    email: str
    first_name: str = ""
    suffix: str = ""
    last_name: str = ""
    gender: str = "-"
    type: str = ""
    customer: str = "n"
    funnel_state: str = ""
    has_password: bool = False
    tags: set[int] = msgspec.field(default_factory=set)
    groups: set[int] = msgspec.field(default_factory=set)
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    events: list[Event] = msgspec.field(default_factory=list)

    @property
    def name(self) -> str:
        """The name as people read it, the particle between first and last."""
        return " ".join(part for part in (self.first_name, self.suffix, self.last_name) if part)


class Tag(msgspec.Struct, frozen=True):
    """A label; two tags may bear one name."""

    id: int
    name: str


class Group(msgspec.Struct, frozen=True, eq=False):
    """A set of relations; members keep the order in which they joined."""

    id: int
    title: str
    members: dict[int, None] = msgspec.field(default_factory=dict)


class ListManager(msgspec.Struct, frozen=True):
    """A campaign bound to a group."""

    id: int
    name: str
    category: str
    code: str
    group_id: int


class Field(msgspec.Struct, frozen=True):
    """A field of relations; only free ones can be set."""

    id: int
    code: str
    name: str
    label: str
    type: str
    options: tuple[str, ...] = ()
    is_free: bool = True


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    """What was bought. A line has no id of its own."""

    line_type: str
    product_id: int
    product_name: str
    quantity: int
    subscription_id: int | None = None
    billed_until: date | None = None
    ends_on: date | None = None


class Order(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An order; e-mail address and name on the wire are those its relation has now."""

    id: int
    relation_id: int
    purchased_at: datetime
    is_paid: bool
    lines: tuple[OrderLine, ...]
    invoice_number: str | None = None


class InvoiceLine(msgspec.Struct, frozen=True, gc=False):
    """One line of an invoice, amounts without VAT, in cents."""

    sku: str
    description: str
    quantity: int
    amount_cents: int
    discount_cents: int
    vat_cents: int
    vat_percentage: int
    ledger: str


class Invoice(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A document: it keeps the e-mail address and the name and address of the day it was made."""

    number: str
    is_credit: bool
    relation_id: int
    relation_email: str
    order_id: int | None
    billing_id: int | None
    description: str
    created_at: datetime
    invoiced_on: date
    lines: tuple[InvoiceLine, ...]
    full_name: str
    company: str
    address: str
    postal_code: str
    city: str
    country: str
    vat_number: str

    @property
    def excl_cents(self) -> int:
        """The total without VAT."""
        return sum(line.amount_cents * line.quantity - line.discount_cents for line in self.lines)

    @property
    def vat_cents(self) -> int:
        """The VAT over all lines."""
        return sum(line.vat_cents for line in self.lines)


class Note(msgspec.Struct, frozen=True):
    """A contact note with a relation."""

    relation_id: int
    text: str
    at: datetime


class PlannedMail(msgspec.Struct, frozen=True):
    """A mail that a list is going to send."""

    relation_id: int
    list_id: int
    template: str
    at: datetime
