"""Turns the CRM's JSON into domain records: what a key means, in which wire struct, with which tolerance.

A record that cannot be stored (its id is missing or empty, its lines are no list) is refused (see ``rows``). Every
other oddity costs the one value: ``None`` and a warning beside the row, whose raw JSON is kept. Keys that nobody knows
stay in ``raw``; ``accessCode`` alone is taken out of it, because it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from syncd.domain import records
from syncd.domain.errors import MalformedAnswer
from syncd.providers.autorespond import formats, wire
from syncd.providers.autorespond import keys as known
from syncd.providers.autorespond.elements import UNREADABLE
from syncd.providers.autorespond.formats import Notes, Zone, amount, day, instant, reference, said_text, text
from syncd.providers.autorespond.rows import Kind

_STANDARD_FIELD = re.compile(r"relation_", re.IGNORECASE)
_STANDARD_NAMES = frozenset(
    {"id", "relationid", "email", "firstname", "suffix", "lastname", "gender", "type", "customer", "password"}
    | {"funnelstate"}
)

W = TypeVar("W", bound=msgspec.Struct)


def _key(value: Any, key: str, notes: Notes) -> str | None:
    """Return the id that a row is stored under; None (and a note) when it is empty."""
    if value is UNSET:
        raise MalformedAnswer(f"A record has no {key}: the shape of the answer has changed.")
    found = reference(value, key, notes)
    if found is None:
        notes.append(f"a record with an empty {key} is left out")
    return found


def _number(value: Any, notes: Notes) -> str | None:
    """Return an invoice number: always text, leading zeros and prefixes kept."""
    return text(value, "invoiceNumber", notes) or None


def _administration(it: wire.Administration, notes: Notes, zone: Zone) -> records.Administration | None:
    remote_id = _key(it.company_id, "company_id", notes)
    if remote_id is None:
        return None
    return records.Administration(
        remote_id=remote_id,
        title=text(it.adminName, "adminName", notes),
        email=text(it.adminEmail, "adminEmail", notes),
        service_level=text(it.serviceLevel, "serviceLevel", notes),
        is_locked=None if it.locked is None or it.locked is UNSET else formats.flag(it.locked, "locked", notes),
    )


def _relation(it: wire.Relation, notes: Notes, zone: Zone) -> records.Relation | None:
    remote_id = _key(it.id, "id", notes)
    if remote_id is None:
        return None
    return records.Relation(
        remote_id=remote_id,
        email=said_text(it.email, "email", notes),
        first_name=said_text(it.firstName, "firstName", notes),
        suffix=said_text(it.suffix, "suffix", notes),
        last_name=said_text(it.lastName, "lastName", notes),
        gender=said_text(it.gender, "gender", notes),
        funnel_state=said_text(it.funnelState, "funnelState", notes),
    )


def _tag(it: wire.Tag, notes: Notes, zone: Zone) -> records.Tag | None:
    remote_id, name = _key(it.id, "id", notes), text(it.name, "name", notes)
    if remote_id is None or name is None:
        notes.append("a tag without a name is left out")
        return None
    return records.Tag(remote_id, name)


def _tag_name(it: Any, notes: Notes, zone: Zone) -> records.TagName | None:
    name = text(it.get("name") if isinstance(it, dict) else it, "tag name", notes)
    if name is None:
        notes.append("a tag without a name is left out")
        return None
    return records.TagName(name)


def _field(it: wire.Field, notes: Notes, zone: Zone) -> records.FreeField | None:
    if it.code is UNSET:
        raise MalformedAnswer("A field has no code: the shape of the answer has changed.")
    code = text(it.code, "code", notes)
    if not code:
        notes.append("a field with an empty code is left out")
        return None
    given = it.options.split(",") if isinstance(it.options, str) else it.options or ()
    options = tuple(word for option in given if (word := text(option, "options", notes)) is not None)
    return records.FreeField(
        remote_id=code,
        code=code,
        name=text(it.name, "name", notes),
        type=text(it.type, "type", notes),
        options=options,
        is_writable=not is_standard_field(code),
    )


def is_standard_field(code: str) -> bool:
    """Tell whether a field code is one of the CRM's own fields, which setfield must not touch.

    ``/fields`` lists free and standard fields alike and flags neither. Standard codes start with ``relation_`` in the
    vendor's public forms; free ones made in its screens look like ``{admin}_FF{ms}``.
    """
    return _STANDARD_FIELD.match(code) is not None or code.replace("_", "").lower() in _STANDARD_NAMES


def _group(it: wire.Group, notes: Notes, zone: Zone) -> records.Group | None:
    remote_id = _key(it.id, "id", notes)
    return None if remote_id is None else records.Group(remote_id, text(it.title, "title", notes))


def _list(it: wire.MailingList, notes: Notes, zone: Zone) -> records.MailingList | None:
    remote_id = _key(it.id, "id", notes)
    if remote_id is None:
        return None
    return records.MailingList(
        remote_id=remote_id,
        name=text(it.name, "name", notes),
        category=text(it.category, "category", notes),
        code=text(it.code, "code", notes),
        group_remote_id=reference(it.groupId, "groupId", notes),
    )


def _subscription(it: wire.Subscription, notes: Notes, zone: Zone) -> records.Subscription | None:
    remote_id = _key(it.campaignId, "campaignId", notes)
    if remote_id is None:
        return None
    letter = text(it.subscribedFlag, "subscribedFlag", notes) or ""
    status = {"S": "subscribed", "U": "unsubscribed"}.get(letter.strip().upper(), letter)
    if status == letter:
        notes.append(f"subscribedFlag: {letter[:20]!r} is not S or U; it is kept as given")
    return records.Subscription(remote_id, status, instant(it.eventDate, "eventDate", notes, zone))


def _order(it: wire.Order, notes: Notes, zone: Zone) -> records.Order | None:
    remote_id = _key(it.orderId, "orderId", notes)
    if remote_id is None:
        return None
    if it.orderlines is UNSET:
        raise MalformedAnswer("An order has no orderlines: the shape of the answer has changed.")
    email = it.relationEmail if it.relationEmail is not UNSET else it.email
    return records.Order(
        remote_id,
        _number(it.invoiceNumber, notes),
        instant(it.purchaseDate, "purchaseDate", notes, zone),
        formats.flag(it.paid, "paid", notes),
        tuple([_order_line(line, notes, zone) for line in it.orderlines or ()]),
        UNSET if it.relationId is UNSET else reference(it.relationId, "relationId", notes),
        said_text(email, "relationEmail", notes),
        said_text(it.relationName, "relationName", notes),
    )


def _order_line(it: wire.OrderLine, notes: Notes, zone: Zone) -> records.OrderLine:
    """Lines are the bulk of an answer: what needs no reading (a text, no subscription) is not read."""
    ends = it.subscriptionEnds if it.subscriptionEnds is not UNSET else it.subscriptionEndsAt
    billed, subscription = it.subscriptionBilledUntil, it.subscriptionId
    kind, product = it.lineType, it.productName
    return records.OrderLine(
        kind if kind.__class__ is str else text(kind, "lineType", notes),
        reference(it.productId, "productId", notes),
        product if product.__class__ is str else text(product, "productName", notes),
        amount(it.quantity, "quantity", notes),
        None if subscription is None else reference(subscription, "subscriptionId", notes),
        None if billed is None else day(billed, "subscriptionBilledUntil", notes, zone),
        None if ends is None else day(ends, "subscriptionEnds", notes, zone),
    )


def _invoice(it: wire.Invoice, notes: Notes, zone: Zone) -> records.Invoice | None:
    number = _invoice_key(it.invoiceNumber, notes)
    is_credit = formats.truth(it.isCreditInvoice)
    if is_credit is None:
        raise MalformedAnswer("An invoice does not say whether it is a credit invoice, which is half of its key.")
    if number is None:
        return None
    return records.Invoice(
        number,
        is_credit,
        relation_email=said_text(it.relationEmail, "relationEmail", notes),
        description=said_text(it.description, "description", notes),
        invoiced_on=UNSET if it.invoiceDate is UNSET else day(it.invoiceDate, "invoiceDate", notes, zone),
        amount_incl=UNSET if it.amountIncl is UNSET else amount(it.amountIncl, "amountIncl", notes),
    )


def _invoice_key(value: Any, notes: Notes) -> str | None:
    if value is UNSET:
        raise MalformedAnswer("An invoice has no invoiceNumber: the shape of the answer has changed.")
    number = _number(value, notes)
    if number is None:
        notes.append("an invoice with an empty invoiceNumber is left out")
    return number


def _invoice_detail(it: wire.InvoiceDetail, notes: Notes, zone: Zone) -> records.InvoiceDetail | None:
    number = _invoice_key(it.invoiceNumber, notes)
    if it.lines is UNSET:
        raise MalformedAnswer("An invoice has no lines: the shape of the answer has changed.")
    if number is None:
        return None
    return records.InvoiceDetail(
        number=number,
        is_credit=bool(formats.truth(it.isCreditInvoice)),
        lines=tuple([_invoice_line(line, notes) for line in it.lines or ()]),
        order_remote_id=reference(it.orderId, "orderId", notes),
        billing_id=reference(it.billingId, "billingId", notes),
        relation_remote_id=reference(it.relationId, "relationId", notes),
        relation_email=text(it.relationEmail, "relationEmail", notes),
        invoiced_on=day(it.invoiceDate, "invoiceDate", notes, zone),
        amount_incl=amount(it.amountIncl, "amountIncl", notes),
        amount_excl=amount(it.amountExcl, "amountExcl", notes),
        amount_vat=amount(it.amountVat, "amountVat", notes),
        full_name=text(it.fullName, "fullName", notes),
        company=text(it.company, "company", notes),
        address=text(it.address, "address", notes),
        postal_code=text(it.postalCode, "postalCode", notes),
        city=text(it.city, "city", notes),
        country=text(it.country, "country", notes),
        vat_number=text(it.btwNummer, "btwNummer", notes),
    )


def _invoice_line(it: wire.InvoiceLine, notes: Notes) -> records.InvoiceLine:
    return records.InvoiceLine(
        sku=text(it.sku, "sku", notes),
        description=text(it.description, "description", notes),
        quantity=amount(it.quantity, "quantity", notes),
        amount=amount(it.amount, "amount", notes),
        discount=amount(it.discount, "discount", notes),
        vat_amount=amount(it.vatamount, "vatamount", notes),
        vat_percentage=amount(it.vatpercentage, "vatpercentage", notes),
        ledger=text(it.ledger, "ledger", notes),
    )


def without_access_code(raw: bytes) -> bytes:
    """Return a JSON object without its access code, however that key is spelled in case."""
    try:
        told = msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | None)
    except UNREADABLE:
        raise MalformedAnswer("The administration is not a JSON object.") from None
    return msgspec.json.encode(told and {key: value for key, value in told.items() if key.lower() != "accesscode"})


def _kind(
    shape: type[W],
    build: Callable[[W, Notes, Zone], Any],
    keys: Mapping[str, frozenset[str]],
    key: str | None = None,
) -> Kind[W]:
    strict: Any = wire.strict(shape)
    many: Any = list[shape]  # type: ignore[valid-type]
    return Kind(wire.decoder(shape), wire.decoder(many), build, wire.decoder(list[strict]), keys, key)


ADMINISTRATION = _kind(wire.Administration, _administration, known.ADMINISTRATION)
RELATION = _kind(wire.Relation, _relation, known.RELATION, "id")
TAG = _kind(wire.Tag, _tag, known.TAG, "id")
TAG_NAME: Kind[Any] = Kind(wire.decoder(Any), wire.decoder(list[Any]), _tag_name, wire.decoder(list[Any]))
FIELD = _kind(wire.Field, _field, known.FIELD, "code")
GROUP = _kind(wire.Group, _group, known.GROUP, "id")
LIST = _kind(wire.MailingList, _list, known.LIST, "id")
SUBSCRIPTION = _kind(wire.Subscription, _subscription, known.SUBSCRIPTION)
ORDER = _kind(wire.Order, _order, known.ORDER, "orderId")
INVOICE = _kind(wire.Invoice, _invoice, known.INVOICE, "invoiceNumber")
INVOICE_DETAIL = _kind(wire.InvoiceDetail, _invoice_detail, known.INVOICE_DETAIL)
