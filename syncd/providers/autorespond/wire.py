"""The keys of each payload as the reference names them, and nothing else: values are looked at by ``formats``.

Every value is untyped here, because a typed one would make the decoder refuse a whole answer for one odd value. Numbers
with a fraction become Decimal, never float. The names are the API's own, which mix snake and camel case.
"""

from __future__ import annotations

from decimal import Decimal
from types import GenericAlias
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType


class Administration(msgspec.Struct, gc=False):
    company_id: Any = UNSET
    serviceLevel: Any = UNSET
    locked: Any = UNSET
    adminName: Any = UNSET
    adminEmail: Any = UNSET


class Relation(msgspec.Struct, gc=False):
    id: Any = UNSET
    email: Any = UNSET
    firstName: Any = UNSET
    suffix: Any = UNSET
    lastName: Any = UNSET
    gender: Any = UNSET
    funnelState: Any = UNSET


class Tag(msgspec.Struct, gc=False):
    id: Any = UNSET
    name: Any = UNSET


class Field(msgspec.Struct, gc=False):
    code: Any = UNSET
    name: Any = UNSET
    type: Any = UNSET
    options: list[Any] | str | None = None


class Group(msgspec.Struct, gc=False):
    id: Any = UNSET
    title: Any = UNSET


class MailingList(msgspec.Struct, gc=False):
    id: Any = UNSET
    name: Any = UNSET
    category: Any = UNSET
    code: Any = UNSET
    groupId: Any = UNSET


class Subscription(msgspec.Struct, gc=False):
    campaignId: Any = UNSET
    relationId: Any = UNSET
    subscribedFlag: Any = UNSET
    eventDate: Any = None


class OrderLine(msgspec.Struct, gc=False):
    lineType: Any = None
    productId: Any = None
    productName: Any = None
    quantity: Any = None
    subscriptionId: Any = None
    subscriptionBilledUntil: Any = None
    subscriptionEnds: Any = UNSET
    subscriptionEndsAt: Any = None


class Order(msgspec.Struct, gc=False):
    """Both order endpoints: one says relationEmail and subscriptionEnds, the other email and subscriptionEndsAt."""

    orderId: Any = UNSET
    relationId: Any = UNSET
    relationName: Any = UNSET
    relationEmail: Any = UNSET
    email: Any = UNSET
    invoiceNumber: Any = None
    orderlines: list[OrderLine] | UnsetType | None = UNSET
    purchaseDate: Any = None
    paid: Any = UNSET


class Invoice(msgspec.Struct, gc=False):
    relationEmail: Any = UNSET
    invoiceNumber: Any = UNSET
    description: Any = UNSET
    invoiceDate: Any = UNSET
    isCreditInvoice: Any = UNSET
    amountIncl: Any = UNSET


class InvoiceLine(msgspec.Struct, gc=False):
    discount: Any = None
    sku: Any = None
    description: Any = None
    quantity: Any = None
    amount: Any = None
    vatamount: Any = None
    vatpercentage: Any = None
    ledger: Any = None


class InvoiceDetail(msgspec.Struct, gc=False):
    lines: list[InvoiceLine] | UnsetType | None = UNSET
    orderId: Any = None
    billingId: Any = None
    relationEmail: Any = None
    relationId: Any = None
    invoiceNumber: Any = UNSET
    invoiceDate: Any = None
    isCreditInvoice: Any = UNSET
    amountIncl: Any = None
    amountExcl: Any = None
    amountVat: Any = None
    fullName: Any = None
    address: Any = None
    postalCode: Any = None
    city: Any = None
    country: Any = None
    btwNummer: Any = None
    company: Any = None


def strict(shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the same struct, nested ones included, as one that refuses keys which it does not name."""
    lists = {name: found for name, hint in get_type_hints(shape).items() if (found := _struct_in(hint))}
    many: dict[str, Any] = {name: GenericAlias(list, (strict(found),)) for name, found in lists.items()}
    fields = [(name, hint | UnsetType | None, UNSET) for name, hint in many.items()]
    return msgspec.defstruct(f"Strict{shape.__name__}", fields, bases=(shape,), gc=False, forbid_unknown_fields=True)


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """Return the struct that a field is a list of, if it is one."""
    found = (one for part in get_args(hint) for one in get_args(part))
    return next((one for one in found if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)


def decoder(shape: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder that keeps fractions exact."""
    return msgspec.json.Decoder(shape, float_hook=Decimal)
