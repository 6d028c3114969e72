"""Fills a world with believable data, the same for the same seed, fast enough for a million orders.

One random draw per row, sliced; lines without a subscription are shared values. Orders lie closer together towards now,
so that a window of hours finds some however few there are.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import msgspec

from syncd.sandbox.clock import AMSTERDAM
from syncd.sandbox.names import (
    COMPANIES,
    DOMAINS,
    FAMILIES,
    FREE_FIELDS,
    FUNNEL_STATES,
    GROUPS,
    LISTS,
    MEN,
    PRODUCTS,
    STANDARD_FIELDS,
    STREETS,
    TAGS,
    TOWNS,
    WOMEN,
)
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

if TYPE_CHECKING:
    from syncd.sandbox.world import World

HISTORY = timedelta(days=730)
FIRST_RELATION, FIRST_ORDER, FIRST_SUBSCRIPTION, FIRST_BILLING = 100_001, 500_001, 80_001, 60_001
GOODS = tuple(product for product in PRODUCTS if not product[5])
SUBSCRIPTIONS = tuple(product for product in PRODUCTS if product[5])
SHARED = tuple(
    OrderLine("product", product[0], product[1], quantity) for product in GOODS for quantity in (1, 2, 3, 12)
)


def sow(world: World, *, relations: int, orders: int, invoices: int, seed: int) -> None:
    """Fill an empty world; nothing of it is journaled, for it was always there."""
    random = Random(seed)
    now = world.clock.now()
    _sow_catalogues(world, now)
    for index in range(relations):
        world.place(_relation(world, index, random.getrandbits(64), now))
    if relations:
        _sow_orders(world, orders, relations, random, now)
        _sow_invoices(world, invoices, random, now)


def _sow_catalogues(world: World, now: datetime) -> None:
    admin = world.administration.id
    for index, name in enumerate(TAGS):
        world.tags[301 + index] = Tag(301 + index, name)
    for index, title in enumerate(GROUPS):
        world.groups[20_101 + index] = Group(20_101 + index, title)
    for index, (name, category, group) in enumerate(LISTS):
        code = f"SUBSCR_{1_600_000_000_000 + index}"
        world.lists[401 + index] = ListManager(401 + index, name, category, code, 20_101 + group)
    for index, (code, name, kind, options) in enumerate(STANDARD_FIELDS):
        world.fields[code] = Field(1 + index, code, name, name, kind, options, is_free=False)
    born = int((now - HISTORY).timestamp()) * 1000
    for index, (name, label, kind, options) in enumerate(FREE_FIELDS):
        code = f"{admin}_FF{born + index}"
        world.fields[code] = Field(101 + index, code, name, label, kind, options)


def _relation(world: World, index: int, bits: int, now: datetime) -> Relation:
    is_man = bool(bits & 1)
    first = (MEN if is_man else WOMEN)[(bits >> 1) % 13]
    suffix, last = FAMILIES[(bits >> 8) % len(FAMILIES)]
    gender = "-" if bits >> 14 & 7 == 0 else "M" if is_man else "F"
    tags, groups, lists = tuple(world.tags), tuple(world.groups), tuple(world.lists.values())
    relation = Relation(
        id=FIRST_RELATION + index,
        email=_email(index, first, last, bits >> 17),
        first_name=first,
        suffix=suffix,
        last_name=last,
        gender=gender,
        funnel_state=FUNNEL_STATES[(bits >> 24) % len(FUNNEL_STATES)],
        tags={tags[(bits >> 28) % len(tags)], tags[(bits >> 32) % len(tags)]} if bits >> 27 & 1 else set(),
        groups={groups[(bits >> 36) % len(groups)]} if index % 17 else set(),
    )
    if bits >> 40 & 1:
        chosen = lists[(bits >> 41) % len(lists)]
        at = now - HISTORY * ((bits >> 44 & 0xFFF) / 4096)
        relation.events.append(Event(chosen.id, "S", at))
        relation.groups.add(chosen.group_id)
        if bits >> 56 & 7 == 0:
            relation.events.append(Event(chosen.id, "U", at + timedelta(hours=30)))
            relation.groups.discard(chosen.group_id)
    return relation


def _email(index: int, first: str, last: str, bits: int) -> str:
    """Spell an address of its own for each relation: some with ``+``, some with capitals."""
    plain = f"{first}.{last}".lower().replace("'", "").replace(" ", "")
    local = plain.translate(str.maketrans("éëèçıöü", "eeeciou"))
    if index % 19 == 7:
        local += "+brood"
    if index % 31 == 11:
        local = local.title()
    return f"{local}.{index + 1}@{DOMAINS[bits % len(DOMAINS)]}"


def _sow_orders(world: World, count: int, relations: int, random: Random, now: datetime) -> None:
    subscription = FIRST_SUBSCRIPTION
    span = HISTORY.total_seconds()
    start = now.replace(microsecond=0)
    for index in range(count):
        bits = random.getrandbits(96)
        age = span * (1 - (index + (bits & 0xFF) / 256) / count) ** 2
        at = start - timedelta(seconds=int(age) + 1)
        lines = _basket((bits >> 8) % len(SHARED) ** 3, 1 + (bits >> 32) % 3)
        if bits >> 40 & 7 == 0:
            lines = (*lines[:2], _subscription_line(subscription, bits >> 44, at))
            subscription += 1
        relation = FIRST_RELATION + (bits >> 60) % relations
        world.place_order(Order(FIRST_ORDER + index, relation, at, (bits >> 52) % 10 != 0, lines))


@cache
def _basket(choice: int, count: int) -> tuple[OrderLine, ...]:
    """Return a shared tuple of shared lines: most orders hold nothing of their own."""
    return tuple(SHARED[choice // len(SHARED) ** each % len(SHARED)] for each in range(count))


def _subscription_line(number: int, bits: int, at: datetime) -> OrderLine:
    product = SUBSCRIPTIONS[bits % len(SUBSCRIPTIONS)]
    billed_until = (at + timedelta(days=30 * (1 + (bits >> 2 & 7)))).date()
    ends_on = billed_until if bits >> 5 & 7 == 0 else None
    return OrderLine("subscription", product[0], product[1], 1, number, billed_until, ends_on)


def _sow_invoices(world: World, count: int, random: Random, now: datetime) -> None:
    """Bill some orders: about one invoice in twelve is a credit, and a subscription's order may have several."""
    orders = tuple(world.orders.values())
    if not orders:
        return
    for index in range(count):
        order = world.orders[orders[index * max(1, len(orders) // count) % len(orders)].id]
        bits = random.getrandbits(64)
        created = min(order.purchased_at + timedelta(minutes=bits % 600, days=30 * (index // len(orders))), now)
        invoice = _invoice(world, order, index, bits, created)
        world.invoices[invoice.number, invoice.is_credit] = invoice
        if not invoice.is_credit:
            world.orders[order.id] = msgspec.structs.replace(order, invoice_number=invoice.number)


def _invoice(world: World, order: Order, index: int, bits: int, created: datetime) -> Invoice:
    relation = world.relations[order.relation_id]
    is_credit = index % 12 == 5
    invoiced_on = created.astimezone(AMSTERDAM).date()
    town, code = TOWNS[bits % len(TOWNS)]
    company = COMPANIES[(bits >> 8) % len(COMPANIES)] if bits >> 12 & 3 == 0 else ""
    letters = chr(65 + (bits >> 14) % 26) + chr(65 + (bits >> 20) % 26)
    return Invoice(
        number=_number(index, invoiced_on.year, is_credit),
        is_credit=is_credit,
        relation_id=relation.id,
        relation_email=relation.email,
        order_id=order.id,
        billing_id=FIRST_BILLING + index if order.lines[-1].subscription_id else None,
        description=f"Creditnota bij order {order.id}" if is_credit else f"Order {order.id}",
        created_at=created,
        invoiced_on=invoiced_on,
        lines=tuple(_invoice_line(line, -1 if is_credit else 1) for line in order.lines),
        full_name=relation.name,
        company=company,
        address=f"{STREETS[(bits >> 26) % len(STREETS)]} {1 + (bits >> 30) % 240}",
        postal_code=f"{code} {letters}",
        city=town,
        country="NL" if bits >> 38 & 15 else "BE",
        vat_number=f"NL{800_000_000 + bits % 99_999_999:09d}B01" if company else "",
    )


def _number(index: int, year: int, is_credit: bool) -> str:
    """Spell an invoice number: ``2024/00012``, ``2024-00013`` or ``0000014``; credits have a series of their own."""
    if is_credit:
        return f"C{year}-{index + 1:05d}"
    return (f"{year}/{index + 1:05d}", f"{year}-{index + 1:05d}", f"{index + 1:07d}")[index % 3]


def _invoice_line(line: OrderLine, sign: int) -> InvoiceLine:
    price, percentage, ledger = next((each[2], each[3], each[4]) for each in PRODUCTS if each[0] == line.product_id)
    discount = price // 10 if line.quantity == 12 else 0
    total = price * line.quantity - discount
    return InvoiceLine(
        sku=f"SKU-{line.product_id}",
        description=line.product_name,
        quantity=line.quantity,
        amount_cents=sign * price,
        discount_cents=sign * discount,
        vat_cents=sign * ((total * percentage + 50) // 100),
        vat_percentage=percentage,
        ledger=ledger,
    )
