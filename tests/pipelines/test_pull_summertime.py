"""The nights on which Amsterdam's clocks change: no hour is lost, none is read as another day, nothing is refused.

The CRM spells naive local times. In spring an hour of them does not exist, in autumn one comes twice, and the day has
23 or 25 hours; ``hours`` and coverage count true time, ``dateFrom`` counts days.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from syncd.inbound import PullPolicy
from syncd.policy.coverage import Interval, covers
from syncd.policy.lateness import EDGES_S, Histogram, OverlapRule, overlap_s
from syncd.policy.windows import WindowRule
from syncd.sandbox import OrderLine, Switches
from syncd.sandbox.clock import AMSTERDAM
from syncd.store import Store, coverage
from syncd.store.lateness import learned
from tests.support.pulling import circle

BREAD = (OrderLine("product", 7001, "Brood", 2),)
WEEK = PullPolicy(window=WindowRule(horizon_s=7 * 86400.0))
SPRING = datetime(2024, 3, 31, 1, 0, tzinfo=UTC)  # 02:00 becomes 03:00
AUTUMN = datetime(2024, 10, 27, 1, 0, tzinfo=UTC)  # 03:00 becomes 02:00
CHANGES = {"spring": SPRING, "autumn": AUTUMN}
DATES = ("iso", "dutch", "offset", "epoch_ms")


@pytest.mark.parametrize("dates", DATES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_orders_across_a_change_of_the_clocks_are_all_there(store: Store, change: datetime, dates: str) -> None:
    """An order every ten minutes from six hours before to six hours after, a pull every half hour, one of three hours.

    Only a naive time of the hour that comes twice is read an hour early, and its run says so.
    """
    start = change - timedelta(hours=6)
    async with circle(store, policy=WEEK, orders=0, now=start, switches=Switches(dates=dates)) as it:  # type: ignore[arg-type]
        relations = list(it.world.relations)
        for step in range(12 * 6):
            it.world.add_order(relations[step % len(relations)], BREAD)
            await it.advance(600)
            is_away = timedelta(hours=-1) < it.clock.now() - change <= timedelta(hours=2)
            if step % 3 == 2 and not is_away:
                report = await it.pull("orders")
                assert report.is_success, report.reason
        async with store.begin() as connection:
            claimed = await coverage.proven(connection, it.account.id, "orders")
            seen = await learned(connection, it.account.id, "orders", it.clock.now())
        assert covers(claimed, Interval(start - timedelta(days=6), it.clock.now() - timedelta(minutes=2)))
        kept = {int(number): at for number, at in await it.rows("SELECT remote_id, purchased_at FROM crm.orders")}
        assert set(kept) == set(it.world.orders)
        wrong = {
            n: kept[n] - order.purchased_at for n, order in it.world.orders.items() if kept[n] != order.purchased_at
        }
        twice = change == AUTUMN and dates in ("iso", "dutch")
        assert set(wrong.values()) == ({timedelta(hours=-1)} if twice else set())
        assert len(wrong) == (6 if twice else 0)
        assert overlap_s(seen, OverlapRule()) == 7200, "an hour that comes twice is no reason to overlap more"


@pytest.mark.parametrize("after", ["exclusive", "inclusive"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_invoices_of_the_days_around_a_change_are_all_there(store: Store, change: datetime, after: str) -> None:
    """A day of 23 or 25 hours has two edges at which a date computed in the wrong zone loses an invoice."""
    start = change - timedelta(hours=30)
    async with circle(store, policy=WEEK, orders=4, invoices=4, now=start, switches=Switches(after=after)) as it:  # type: ignore[arg-type]
        template = next(iter(it.world.invoices.values()))
        await it.pull("invoices")
        for step in range(60):
            at = it.clock.now()
            made = {"number": f"N{step}", "created_at": at, "invoiced_on": at.astimezone(AMSTERDAM).date()}
            it.world.add_invoice(msgspec.structs.replace(template, is_credit=False, **made))
            await it.advance(3600)
            if step % 4 == 3:
                report = await it.pull("invoices")
                assert report.is_success, report.reason
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE number LIKE 'N%%'") == 60


async def test_an_order_of_the_hour_that_comes_twice_testifies_for_no_window_that_cannot_hold_it(store: Store) -> None:
    """Read an hour early it lies before the window that really holds it: it must not make a whole answer unbelieved."""
    rule = WindowRule(overlap_s=0, horizon_s=7 * 86400.0)
    async with circle(store, policy=PullPolicy(window=rule), orders=0, now=AUTUMN - timedelta(minutes=50)) as it:
        for _ in range(30):
            for relation in list(it.world.relations)[:2]:
                it.world.add_order(relation, BREAD)
            await it.advance(300)
            report = await it.pull("orders")
            assert report.is_success, report.reason
            assert not [warning for warning in report.warnings if "not in the answer" in warning]


def test_an_hour_late_stays_below_the_floor() -> None:
    """The hour that comes twice looks an hour late once a year: the floor of two hours must hold that bucket."""
    hour = next(n for n, edge in enumerate(EDGES_S) if edge > 3700)
    assert overlap_s(Histogram.of([(hour, 1000)]), OverlapRule()) == 7200
