"""Clocks that are wrong: theirs ten minutes off for good, or either one an hour off for a while; in any night.

Nothing overlaps here that is not a hole, so that it is coverage alone which must be right: what is claimed has been on
the CRM's clock and has been read, and when the clocks are right again, everything is in the mirror and no time to come
is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from syncd.inbound import PullPolicy
from syncd.policy.coverage import Interval, covers
from syncd.policy.windows import WindowRule
from syncd.sandbox import Switches
from syncd.sandbox.clock import AMSTERDAM
from syncd.store import Store, coverage
from tests.support.news import BREAD
from tests.support.proving import is_long
from tests.support.pulling import Circle, circle

STRICT = PullPolicy(window=WindowRule(overlap_s=0, horizon_s=7 * 86400.0))
HOUR = 3600.0
STEP_S, STEPS, WRONG = 600, 40, range(14, 26)
# By how much theirs and ours are off, for good or during the steps of WRONG.
OFF: Mapping[str, tuple[float, float, bool]] = {
    "theirs ten minutes ahead": (600, 0, True),
    "theirs ten minutes behind": (-600, 0, True),
    "theirs jumps an hour ahead and back": (HOUR, 0, False),
    "theirs jumps an hour back and ahead": (-HOUR, 0, False),
    "ours jumps an hour ahead and back": (0, HOUR, False),
    "ours jumps an hour back and ahead": (0, -HOUR, False),
    "theirs jumps twenty minutes ahead and back": (1200, 0, False),
    "ours jumps twenty minutes back and ahead": (0, -1200, False),
}
NIGHTS = {
    "an ordinary night": datetime(2024, 5, 1, 22, 0, tzinfo=UTC),
    "into summer": datetime(2024, 3, 31, 1, 0, tzinfo=UTC),
    "out of summer": datetime(2024, 10, 27, 1, 0, tzinfo=UTC),
}
ALL = [(night, off) for night in NIGHTS for off in OFF]
FEW = [
    ("into summer", "theirs ten minutes ahead"),
    ("out of summer", "theirs ten minutes behind"),
    ("an ordinary night", "theirs jumps an hour ahead and back"),
    ("out of summer", "ours jumps an hour back and ahead"),
]


@pytest.mark.parametrize(("night", "off"), ALL if is_long() else FEW)
async def test_whatever_the_clocks_say_nothing_is_claimed_unread_and_nothing_is_lost(
    store: Store, night: str, off: str
) -> None:
    """An order placed while a clock was wrong bears the wrong time for ever; it is an order all the same.

    Spelled with an offset, for in the autumn night a naive hour comes twice whatever the clocks say.
    """
    theirs_s, ours_s, is_lasting = OFF[off]
    start = NIGHTS[night] - timedelta(seconds=STEP_S * (sum(WRONG) / len(WRONG)))
    async with circle(
        store, policy=STRICT, relations=4, orders=1, invoices=1, now=start, switches=Switches(dates="offset")
    ) as it:
        it.world.delete_order(next(iter(it.world.orders)))
        await it.pull("tags")
        latest = it.box.clock.now()
        for step in range(STEPS):
            if step == (0 if is_lasting else WRONG.start):
                _jump(it, theirs_s, ours_s)
            if step == WRONG.stop and not is_lasting:
                _jump(it, -theirs_s, -ours_s)
            _place(it, step)
            await it.advance(STEP_S)
            latest = max(latest, it.box.clock.now())
            if step % 2:
                report = await it.pull("orders")
                assert report.is_success, (step, report)
                await _claims_only_what_was_read(it, latest, step)
            if step % 8 == 7:
                assert (await it.pull("invoices")).is_success
        for _ in range(6):
            await it.advance(HOUR / 3)
            await it.pull("orders", "invoices")
        await _claims_only_what_was_read(it, it.box.clock.now(), STEPS)
        assert {int(row[0]) for row in await it.rows("SELECT remote_id FROM crm.orders")} == set(it.world.orders)
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE number LIKE 'N%%'") == STEPS
        async with store.begin() as connection:
            claimed = await coverage.proven(connection, it.account.id, "orders")
        assert covers(claimed, Interval(start, it.box.clock.now() - timedelta(minutes=3))), "no hole is left"


def _jump(it: Circle, theirs_s: float, ours_s: float) -> None:
    """Set the clocks wrong, or right again; what has passed is not touched by it."""
    it.box.clock.advance(theirs_s)
    it.clock.set(it.clock.now() + timedelta(seconds=ours_s))


def _place(it: Circle, step: int) -> None:
    """An order and an invoice, by the CRM's clock as it stands."""
    it.world.add_order(list(it.world.relations)[step % 4], BREAD)
    template = next(iter(it.world.invoices.values()))
    at = it.box.clock.now()
    made = {"number": f"N{step}", "created_at": at, "invoiced_on": at.astimezone(AMSTERDAM).date()}
    it.world.add_invoice(msgspec.structs.replace(template, is_credit=False, **made))


async def _claims_only_what_was_read(it: Circle, latest: datetime, step: int) -> None:
    """What is claimed has come at the CRM, ``latest`` by its clock, and every order of it is in the mirror."""
    async with it.store.begin() as connection:
        claimed = await coverage.proven(connection, it.account.id, "orders")
    known = {int(row[0]) for row in await it.rows("SELECT remote_id FROM crm.orders")}
    assert all(span.upper <= latest + timedelta(minutes=1) for span in claimed), f"step {step}: time to come is claimed"
    within = {
        number
        for number, order in it.world.orders.items()
        if any(span.lower <= order.purchased_at < span.upper for span in claimed)
    }
    assert within <= known, f"step {step}: {len(within - known)} orders of the claimed time are lacking"
