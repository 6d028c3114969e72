"""Late truth: what changes at the CRM without any sign is right in the mirror within the staleness that is promised.

The daemon's own jobs run on simulated clocks, each round as late as its jitter allows; how long the mirror was wrong is
held against what ``policy.staleness`` states for that kind of data, from the same settings.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from syncd.sandbox import OrderLine, World
from syncd.service.outlook import read_outlooks
from syncd.store import Store
from tests.support.simulated import Check, Simulated, simulated

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
BREAD = (OrderLine("product", 7001, "Brood", 2),)
PAPER = (OrderLine("subscription", 7010, "Krant", 1, 90_001, date(2024, 6, 1), None),)
# Only what can show an order or an invoice runs, and not every minute: days pass in seconds.
SLOW = {f"cadence_{name}_s": 0 for name in ("tags", "fields", "groups", "lists", "group_members", "relation_details")}
SLOW |= {f"cadence_relation_{name}_s": 0 for name in ("tags", "subscriptions")}
QUICK = {
    **SLOW,
    "cadence_orders_s": 3600,
    "cadence_invoices_s": 0,
    "cadence_relation_orders_s": 3600,
    "cadence_invoice_details_s": 0,
}
Edit = Callable[[Simulated, int], None]


def settled(world: World) -> World:
    """A world in which nothing seeded is unsettled: what a test adds is all there is to watch."""
    for order in list(world.orders.values()):
        lines = tuple(line for line in order.lines if line.subscription_id is None) or BREAD
        world.orders[order.id] = msgspec.structs.replace(order, is_paid=True, lines=lines)
    return world


def world_of(relations: int = 12) -> World:
    return settled(World.seeded(relations, 30, 12, seed=7, now=NOON))


async def promised(it: Simulated, kind: str, by: str = "") -> float:
    """What the settings promise for a kind of data, in seconds."""
    (outlook,) = await read_outlooks(it.store, it.settings, it.clock.now())
    (found,) = [row.within_s for row in outlook.promises if row.kind.startswith(kind) and row.by.startswith(by)]
    assert found is not None
    return found


def shows(it: Simulated, order: int, condition: str) -> Check:
    """Whether the mirror holds the order so."""

    async def look() -> bool:
        where = f"o.remote_id = '{order}' AND {condition}"
        return bool(await it.value(f"SELECT count(*) > 0 FROM crm.orders o WHERE {where}"))

    return look


ENDS = "EXISTS (SELECT FROM crm.order_lines l WHERE l.order_id = o.id AND subscription_ends_on = '2024-09-01')"
LATE = {
    "paid 20 days later": (BREAD, False, 20, "unpaid order", "is_paid", lambda it, n: it.world.pay_order(n)),
    "paid 300 days later": (BREAD, False, 300, "unpaid order", "is_paid", lambda it, n: it.world.pay_order(n)),
    "unpaid again after a day": (
        BREAD, True, 1, "payment, invoice number or lines of an order, up to 3 d", "NOT is_paid",
        lambda it, n: it.world.change_order(n, is_paid=False),
    ),
    "unpaid again after 60 days": (
        BREAD, True, 60, "payment, invoice number or lines of an order, up to 90 d", "NOT is_paid",
        lambda it, n: it.world.change_order(n, is_paid=False),
    ),
    "invoice number changed after 2 days": (
        BREAD, True, 2, "payment, invoice number or lines of an order, up to 3 d", "invoice_number = '2024-X'",
        lambda it, n: it.world.change_order(n, invoice_number="2024-X"),
    ),
    "invoice number changed after 80 days": (
        BREAD, True, 80, "payment, invoice number or lines of an order, up to 90 d", "invoice_number = '2024-X'",
        lambda it, n: it.world.change_order(n, invoice_number="2024-X"),
    ),
    "subscription end moved after 200 days": (
        PAPER, True, 200, "running subscription", ENDS,
        lambda it, n: it.world.end_subscription(90_001, date(2024, 9, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "is_paid", "days", "kind", "condition", "edit"), LATE.values(), ids=LATE.keys())
async def test_a_change_without_a_sign_is_right_within_the_staleness_stated(
    store: Store, lines: tuple[OrderLine, ...], is_paid: bool, days: int, kind: str, condition: str, edit: Edit
) -> None:
    """No timestamp, no event and no feed tells of it: only reading again does, and we say how soon."""
    async with simulated(store, world_of(), NOON, **QUICK) as it:
        order = it.world.add_order(next(iter(it.world.relations)), lines, is_paid=is_paid).id
        daemon = await it.replica()
        await it.pull_all()
        await it.advance(days * 86400)
        await it.run(7200, daemon)  # whatever fell due meanwhile has been read again before the change
        assert not await shows(it, order, condition)()
        edit(it, order)
        within_s = await promised(it, kind)
        took_s = await it.run(within_s, daemon, until=shows(it, order, condition))
        assert took_s is not None, f"not right within the {within_s:.0f} s promised"
        assert all(run.is_success for run in it.told.runs)


async def test_an_order_back_dated_by_six_hours_is_found_by_a_wider_read_and_then_at_once(store: Store) -> None:
    """The first one is found late, and counted; from then on windows overlap as far as such orders need."""
    async with simulated(store, world_of(), NOON, **{**SLOW, "cadence_orders_s": 120, "cadence_invoices_s": 0}) as it:
        daemon = await it.replica()
        await it.pull_all()
        await it.run(1800, daemon)
        relation = next(iter(it.world.relations))

        def back_dated() -> int:
            return it.world.add_order(relation, BREAD, at=it.clock.now() - timedelta(hours=6)).id

        within_s = await promised(it, "late or back-dated order, up to 3 d")
        took_s = await it.run(within_s, daemon, until=shows(it, back_dated(), "true"))
        assert took_s is not None
        within_s = await promised(it, "late or back-dated order", "orders, overlap")  # which has been learned
        took_s = await it.run(within_s, daemon, until=shows(it, back_dated(), "true"))
        assert took_s is not None
        assert took_s <= 132


async def test_nothing_settled_is_asked_for_one_by_one(store: Store) -> None:
    """A sweep of ten thousand relations of whom three owe something costs three requests, not ten thousand."""
    async with simulated(store, world_of(), NOON, **QUICK) as it:
        daemon = await it.replica()
        for relation in list(it.world.relations)[:2]:
            it.world.add_order(relation, BREAD, is_paid=False)
        it.world.add_order(list(it.world.relations)[3], PAPER)
        await it.pull_all()
        before = it.requested()
        await it.run(4 * 3600, daemon)
        swept = it.requested()["relation_orders"] - before["relation_orders"]
        assert swept == 3 * 3  # three rounds of an hour and its jitter, three relations each
        for order in list(it.world.orders.values()):
            it.world.change_order(order.id, is_paid=True)
        it.world.end_subscription(90_001, it.clock.now().date() - timedelta(days=30))
        await it.run(3600 * 1.1, daemon)
        before = it.requested()
        await it.run(4 * 3600, daemon)
        assert it.requested()["relation_orders"] == before["relation_orders"]


async def test_unsettled_relations_take_turns_within_the_budget(store: Store) -> None:
    """Nobody waits behind those who are asked for at every round: the one read longest ago is next."""
    async with simulated(store, world_of(), NOON, **QUICK, sweep_budget=3) as it:
        daemon = await it.replica()
        for relation in list(it.world.relations)[:8]:
            it.world.add_order(relation, BREAD, is_paid=False)
        await it.runtime.puller.pull("orders")
        within_s = await promised(it, "unpaid order")
        await it.run(within_s, daemon)
        asked = {line.path for line in it.box.requests if line.operation == "relation_orders"}
        assert len(asked) == 8
