"""News: for each stream something that its next answer alone can bring, so that a bad answer has something to lose.

A stream that is declared and has no news here fails the proofs that go over all streams: say what is new for it, and
which streams must be read first for it to be asked for at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from syncd.providers.autorespond import provider
from syncd.providers.contract import ProviderOptions, Stream
from syncd.sandbox import World
from syncd.sandbox.clock import AMSTERDAM
from syncd.sandbox.records import Group, ListManager, OrderLine, Relation
from tests.support.pulling import NOON

BREAD = (OrderLine("product", 7001, "Brood", 2),)
_OLD = 40  # orders that were never paid: each turn pays one
_SOME = 10  # new orders and invoices in a turn: enough to testify in the next
_TWO = 2  # where each is asked for by itself: one whose answer is bad, and one whose answer is not


@dataclass(frozen=True, slots=True)
class News:
    """``make`` lets something happen in the world, at the nth turn; ``first`` are the streams to read before."""

    make: Callable[[World, int], None]
    first: tuple[str, ...] = ()


def declared() -> tuple[Stream, ...]:
    """Return every stream that the provider declares, that of the administration included."""
    return tuple(provider(ProviderOptions(administration="1")).streams.values())


def world(now: datetime = NOON, relations: int = 12) -> World:
    """Return a world in which every stream has rows enough to testify, and two buyers who are in no group."""
    made = World.seeded(relations, 20, 12, seed=7, now=now)
    for relation in made.relations.values():
        made.join(relation, next(iter(made.groups)))
    for number in range(420, 430):
        made.lists[number] = ListManager(number, f"List {number}", "mail", f"SUBSCR_{number}", next(iter(made.groups)))
    for number in range(20_120, 20_124):
        made.groups[number] = Group(number, f"Group {number}")
    made.add_relation("loner@example.nl", id=100_900, first_name="Loes", last_name="Alleen")
    made.add_relation("other@example.nl", id=100_901, first_name="Otto", last_name="Alleen")
    made.add_order(100_901, BREAD, is_paid=False, at=now - timedelta(days=20))
    for ago in range(_OLD):
        made.add_order(100_900, BREAD, is_paid=False, at=now - timedelta(days=40 + ago, hours=5))
    return made


def loner(made: World) -> Relation:
    return made.relations[100_900]


def _join(made: World, turn: int) -> None:
    pairs = ((group, each) for group in made.groups for each in made.relations.values() if each.id < 100_900)
    group, relation = next((group, each) for group, each in pairs if group not in each.groups)
    made.join(relation, group)


def _tag(made: World, turn: int) -> None:
    pairs = ((tag, each) for tag in made.tags for each in made.relations.values())
    tag, relation = next((tag, each) for tag, each in pairs if tag not in each.tags)
    made.tag(relation, tag)


def _orders(made: World, turn: int, count: int = _SOME) -> None:
    for _ in range(count):
        made.add_order(next(iter(made.relations)), BREAD)


def _invoices(made: World, turn: int, count: int = _SOME) -> None:
    now = made.clock.now()
    template = next(each for each in made.invoices.values() if not each.is_credit)
    today = {"created_at": now, "invoiced_on": now.astimezone(AMSTERDAM).date()}
    for nth in range(count):
        made.add_invoice(msgspec.structs.replace(template, number=f"N{turn}-{nth}", **today))


def _two_invoices(made: World, turn: int) -> None:
    _invoices(made, turn, _TWO)


def _credit(made: World, turn: int) -> None:
    """Make people in no group and without an order, whom an invoice in credit alone names, by address."""
    now = made.clock.now()
    template = next(iter(made.invoices.values()))
    today = {"created_at": now, "invoiced_on": now.astimezone(AMSTERDAM).date()}
    for nth in range(_TWO):
        email = f"credited-{turn}-{nth}@example.nl"
        person = made.add_relation(email, first_name="Cor", last_name=f"Creditering {turn}")
        theirs = {"relation_id": person.id, "relation_email": email, "order_id": None}
        number = f"C{turn}-{nth}"
        made.add_invoice(msgspec.structs.replace(template, number=number, is_credit=True, **theirs, **today))


def _pay(made: World, turn: int) -> None:
    made.pay_order(next(each.id for each in made.orders.values() if each.relation_id == 100_900 and not each.is_paid))


NEWS: Mapping[str, News] = {
    "administration": News(lambda it, n: setattr(it, "administration", replace(it.administration, name=f"Bakery {n}"))),
    "fields": News(lambda it, n: it.create_field(f"field_{chr(97 + n)}", f"Field {n}", "string") and None),
    "tags": News(lambda it, n: it.rename_tag(301, f"Renamed {n}")),
    "groups": News(lambda it, n: it.groups.update({20_200 + n: Group(20_200 + n, f"New group {n}")})),
    "lists": News(lambda it, n: it.lists.update({500 + n: ListManager(500 + n, f"New {n}", "mail", f"S{n}", 20_101)})),
    "group_members": News(_join),
    "orders": News(_orders),
    "invoices": News(_invoices),
    "invoice_details": News(_two_invoices, first=("invoices",)),
    "invoice_files": News(_two_invoices, first=("invoices",)),
    "invoice_relations": News(_credit, first=("invoices",)),
    "relation_details": News(lambda it, n: it.change_relation(100_900, last_name=f"Alleen {n}") and None),
    "relation_tags": News(_tag),
    "relation_subscriptions": News(lambda it, n: it.subscribe(loner(it), 420 + n % 10, skips_optin=False)),
    "relation_orders": News(_pay),
}


def stir(made: World, turn: int, *, documents: int) -> None:
    """Let something new happen for every stream, with so many orders and invoices."""
    counted = (_orders, _invoices, _two_invoices)
    for news in NEWS.values():
        if news.make not in counted:
            news.make(made, turn)
    _orders(made, turn, documents)
    _invoices(made, turn, documents)
