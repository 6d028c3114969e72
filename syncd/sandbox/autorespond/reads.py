"""The 16 reads, each named after its operation. They change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from operator import attrgetter
from zoneinfo import ZoneInfo

from syncd.sandbox.autorespond.call import Call, File, Rows
from syncd.sandbox.autorespond.checks import Fall, Refusal, unknown
from syncd.sandbox.autorespond.encode import Row
from syncd.sandbox.autorespond.pdf import pdf
from syncd.sandbox.records import Invoice, Relation
from syncd.sandbox.switches import Switches

VERSION = "1.0"


def version(call: Call) -> str:
    """Heading "Get API Version"."""
    return VERSION


def fields(call: Call) -> Rows:
    """Heading "Get All Fields"."""
    return _rows(call, map(call.encoder.field, call.world.fields.values()))


def tags(call: Call) -> Rows:
    """Heading "Get All Tags"."""
    return _rows(call, map(call.encoder.tag, call.world.tags.values()))


def groups(call: Call) -> Rows:
    """Heading "Get All Groups"."""
    return _rows(call, map(call.encoder.group, call.world.groups.values()))


def lists(call: Call) -> Rows:
    """Heading "Show Listmanagers"."""
    return _rows(call, map(call.encoder.listmanager, call.world.lists.values()))


def administration(call: Call) -> Row:
    """Heading "Load Admin": one's own only."""
    number = call.arguments.number("id")
    if number != call.world.administration.id:
        raise unknown("admin", number)
    return call.encoder.administration(call.world.administration)


def group_members(call: Call) -> Rows:
    """Heading "Get Relations in Group"."""
    world = call.world
    group = call.group("grpId")
    return _rows(call, (call.encoder.relation(world.relations[each]) for each in group.members))


def relation_by_id(call: Call) -> Row:
    """Heading "Load Relation by Id"."""
    return call.encoder.relation(call.relation("id"))


def relation_by_email(call: Call) -> Row:
    """Heading "Load Relation by Email"."""
    return call.encoder.relation(relation_with_email(call))


def relation_with_email(call: Call) -> Relation:
    """Find the relation that the ``email`` parameter names."""
    email = call.arguments.email("email")
    relation = call.find(email)
    if relation is None:
        raise unknown("relation", email)
    return relation


def relation_tags(call: Call) -> Rows:
    """Heading "Show tags for relation": names, not ids."""
    names = call.world.tag_names(call.relation("id"))
    return Rows([call.encoder.name(name) for name in names])


def relation_subscriptions(call: Call) -> Rows:
    """Heading "Show subscriptions": the events, not a state."""
    relation = call.relation("id")
    return _rows(call, (call.encoder.event(event, relation) for event in relation.events))


def relation_orders(call: Call) -> Rows:
    """Heading "Show Orders for Given Relation": all there ever were."""
    relation = call.relation("id")
    now = call.world.clock.now()
    orders = (call.world.orders[each] for each in call.world.orders_of.get(relation.id, ()))
    return _rows(call, (call.encoder.order_of_relation(each, relation) for each in orders if each.purchased_at <= now))


def orders(call: Call) -> Rows:
    """Heading "Show Orders": purchased within the last ``hours`` of server time. Orders of the future wait."""
    switches = call.switches
    hours = call.arguments.positive("hours")
    paid = call.arguments.choice("paid", ("Y", "N", "-"), switches.paid_default)
    now = call.world.clock.now()
    since = now - timedelta(hours=min(hours, switches.hours_cap or hours, 1_000_000))
    wanted = (True, False) if paid == "-" else (paid == "Y",)
    encode = call.encoder.order
    return Rows(
        [
            encode(order)
            for order in call.world.orders.values()
            if since <= order.purchased_at <= now and order.is_paid in wanted
        ]
    )


def invoices(call: Call) -> Rows:
    """Heading "Show Invoices": created AFTER a day (the switch ``after`` says whether that day counts)."""
    day = call.arguments.date("dateFrom", "%Y-%m-%d", "YYYY-MM-DD")
    first = day if call.switches.after == "inclusive" else day + timedelta(days=1)
    now = call.world.clock.now()
    made = sorted(call.world.invoices.values(), key=attrgetter("created_at"))
    found = (each for each in made if each.created_at <= now and _created_on(each, call.switches) >= first)
    return _rows(call, map(call.encoder.invoice, found))


def _created_on(invoice: Invoice, switches: Switches) -> date:
    """Return the day that counts as an invoice's creation."""
    if switches.created == "dated":
        return invoice.invoiced_on
    return invoice.created_at.astimezone(ZoneInfo(switches.zone)).date()


def invoice_detail(call: Call) -> Row:
    """Heading "Show Individual Invoice": "Credit invoice is not supported"."""
    number = call.arguments.path["invoiceNumber"]
    found = call.world.invoices.get((number, False))
    if found is not None:
        return call.encoder.invoice_detail(found)
    if (number, True) in call.world.invoices:
        raise Refusal(Fall.CREDIT, "credit invoice is not supported")
    raise unknown("invoice", number)


def invoice_file(call: Call) -> File:
    """Heading "Get PDF invoice for Given Invoice Number": of a credit invoice too."""
    number = call.arguments.path["invoiceNumber"]
    found: Invoice | None = call.world.invoices.get((number, False)) or call.world.invoices.get((number, True))
    if found is None:
        raise unknown("invoice", number)
    return File(pdf(f"{'Creditnota' if found.is_credit else 'Factuur'} {found.number}"), "application/pdf")


def _rows(call: Call, rows: Iterable[Row]) -> Rows:
    return Rows([call.encoder.row(row) for row in rows])
