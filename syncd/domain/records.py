"""What one answer of a CRM says about one thing: the records that the mirror is written from.

Every provider decodes into these. Texts are as given (never trimmed or case-folded), instants are aware UTC, money
is Decimal. ``UNSET`` means that this endpoint does not say; ``None`` means that it says there is nothing.

``gc=False``: records hold scalars and tuples of records, so no cycle can pass through one, and the collector need not
look at a million of them.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Generic, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

Text: TypeAlias = str | UnsetType | None


class Administration(msgspec.Struct, frozen=True, gc=False):
    """The tenant itself. Secrets among its keys (an access code) are never decoded into it."""

    remote_id: str
    title: str | None = None
    email: str | None = None
    service_level: str | None = None
    is_locked: bool | None = None


class Relation(msgspec.Struct, frozen=True, gc=False):
    """A contact. ``email`` may be UNSET where the endpoint names a relation by id only."""

    remote_id: str
    email: Text = UNSET
    first_name: Text = UNSET
    suffix: Text = UNSET
    last_name: Text = UNSET
    gender: Text = UNSET
    funnel_state: Text = UNSET


class Tag(msgspec.Struct, frozen=True, gc=False):
    remote_id: str
    name: str


class TagName(msgspec.Struct, frozen=True, gc=False):
    """A tag as one relation's tags are listed: by name alone. Which tag it is, the snapshot of all tags tells."""

    name: str


class FreeField(msgspec.Struct, frozen=True, gc=False):
    """A field of relations. ``is_writable`` is false for the CRM's own standard fields."""

    remote_id: str
    code: str
    name: str | None
    type: str | None
    options: tuple[str, ...]
    is_writable: bool


class Group(msgspec.Struct, frozen=True, gc=False):
    remote_id: str
    title: str | None


class MailingList(msgspec.Struct, frozen=True, gc=False):
    """Autorespond's listmanager; GetResponse's campaign."""

    remote_id: str
    name: str | None
    category: str | None = None
    code: str | None = None
    group_remote_id: str | None = None


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One relation's standing on one list: the latest event of that list wins. ``status`` is ``subscribed``,
    ``unsubscribed`` or, where the CRM used a letter that nobody documents, that text as given."""

    list_remote_id: str
    status: str
    event_at: datetime | None


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    line_type: str | None
    product_id: str | None
    product_name: str | None
    quantity: Decimal | None
    subscription_id: str | None
    subscription_billed_until: date | None
    subscription_ends_on: date | None


class Order(msgspec.Struct, frozen=True, gc=False):
    """An order with its lines. ``relation_*`` are UNSET from the endpoint that lists one relation's orders."""

    remote_id: str
    invoice_number: str | None
    purchased_at: datetime | None
    is_paid: bool | None
    lines: tuple[OrderLine, ...]
    relation_remote_id: Text = UNSET
    relation_email: Text = UNSET
    relation_name: Text = UNSET


class InvoiceLine(msgspec.Struct, frozen=True, gc=False):
    """Amounts as given: whether ``amount`` includes VAT, and what ``discount`` counts, is the CRM's to say."""

    sku: str | None
    description: str | None
    quantity: Decimal | None
    amount: Decimal | None
    discount: Decimal | None
    vat_amount: Decimal | None
    vat_percentage: Decimal | None
    ledger: str | None


class Invoice(msgspec.Struct, frozen=True, gc=False):
    """An invoice or credit invoice as the list shows it. Its key is (number, is_credit): no shared series assumed."""

    number: str
    is_credit: bool
    relation_email: Text = UNSET
    description: Text = UNSET
    invoiced_on: date | UnsetType | None = UNSET
    amount_incl: Decimal | UnsetType | None = UNSET


class InvoiceDetail(msgspec.Struct, frozen=True, gc=False):
    """What the detail call adds to an invoice."""

    number: str
    is_credit: bool
    lines: tuple[InvoiceLine, ...]
    order_remote_id: str | None
    billing_id: str | None
    relation_remote_id: str | None
    relation_email: str | None
    invoiced_on: date | None
    amount_incl: Decimal | None
    amount_excl: Decimal | None
    amount_vat: Decimal | None
    full_name: str | None
    company: str | None
    address: str | None
    postal_code: str | None
    city: str | None
    country: str | None
    vat_number: str | None


class InvoiceFile(msgspec.Struct, frozen=True, gc=False):
    """What a file of an invoice is; its bytes stay in the answer."""

    content_type: str


R = TypeVar("R")


class Row(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """One decoded record beside the exact JSON text that it came from (kept in the mirror's ``raw``)."""

    record: R
    raw: bytes
    warnings: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be read: its JSON text, whole, and why. ``key`` is its remote id where that can be told."""

    raw: bytes
    reason: str
    key: str | None = None


Record: TypeAlias = (
    Administration
    | Relation
    | Tag
    | TagName
    | FreeField
    | Group
    | MailingList
    | Subscription
    | Order
    | Invoice
    | InvoiceDetail
)
