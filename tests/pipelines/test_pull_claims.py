"""Coverage never claims time that was not read, whatever goes wrong; the hole is seen, has an age, and fills by itself.

Each case is tried on both streams that are read by time. What a bad answer may not write is ``test_pull_bad_days``'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec
import pytest

from syncd.inbound import PullPolicy
from syncd.policy.coverage import Interval
from syncd.policy.windows import WindowRule
from syncd.sandbox import OrderLine
from syncd.store import Store, account_states, coverage
from syncd.store.holes import Hole, read_holes
from tests.support.pulling import NOON, Circle, circle

BREAD = (OrderLine("product", 7001, "Brood", 2),)
WEEK = PullPolicy(window=WindowRule(horizon_s=7 * 86400.0))
STREAMS = ("orders", "invoices")
Wrong = Callable[[Circle, str], Awaitable[None]]


async def proven(it: Circle, stream: str) -> tuple[Interval, ...]:
    async with it.store.begin() as connection:
        return await coverage.proven(connection, it.account.id, stream)


async def holes(it: Circle, stream: str, now: datetime | None = None) -> list[Hole]:
    async with it.store.begin() as connection:
        found = await read_holes(connection, 7, now=now or it.clock.now())
    return [hole for hole in found if hole.stream == stream]


def made(it: Circle, count: int = 12) -> None:
    """Place so many orders and invoices now."""
    invoice = next(iter(it.world.invoices.values()))
    for number in range(count):
        it.world.add_order(list(it.world.relations)[number % len(it.world.relations)], BREAD)
        name, at = f"T{len(it.world.invoices)}", it.clock.now()
        it.world.add_invoice(
            msgspec.structs.replace(invoice, number=name, is_credit=False, created_at=at, invoiced_on=at.date())
        )


def fault(kind: str, **given: object) -> Wrong:
    async def strike(it: Circle, stream: str) -> None:
        it.box.faults.add(kind, operation=stream, **given)

    return strike


async def ours_jumps(it: Circle, seconds: float) -> None:
    it.clock.set(it.clock.now() + timedelta(seconds=seconds))


async def theirs_jumps(it: Circle, seconds: float) -> None:
    it.box.clock.advance(seconds)


async def is_paused(it: Circle, stream: str) -> None:
    async with it.store.begin() as connection:
        await account_states.pause(connection, it.account.id, "the key is refused")


WRONG: dict[str, Wrong] = {
    "failed": fault("status", status=503),
    "reset": fault("reset"),
    "truncated": fault("truncated"),
    "html": fault("html", status=200),
    "empty": fault("empty_list"),
    "refused by the witnesses": fault("dropped_rows", share=0.7),
    "our clock an hour ahead": lambda it, _: ours_jumps(it, 3600),
    "our clock an hour behind": lambda it, _: ours_jumps(it, -3600),
    "the CRM's clock an hour ahead": lambda it, _: theirs_jumps(it, 3600),
    "the CRM's clock an hour behind": lambda it, _: theirs_jumps(it, -3600),
    "paused": is_paused,
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
async def test_a_run_that_cannot_be_believed_advances_nothing_and_the_hole_has_an_age(
    store: Store, stream: str, wrong: Wrong
) -> None:
    """Time that is claimed and was not read is never asked for again: silent loss."""
    async with circle(store, policy=WEEK, orders=6, invoices=6) as it:
        await it.pull(stream)
        made(it)
        for _ in range(10):  # enough answers that a median believes in the clocks as they are
            await it.advance(60)
            await it.pull("tags")
        await it.pull(stream)
        before = await proven(it, stream)
        await it.advance(1800)
        await wrong(it, stream)
        await it.pull(stream)
        assert await proven(it, stream) == before
        (hole,) = (hole for hole in await holes(it, stream, NOON + timedelta(hours=1)) if hole.is_open)
        assert hole.age_s == pytest.approx((NOON + timedelta(hours=1) - before[-1].upper).total_seconds())


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("wrong", ["failed", "truncated", "refused by the witnesses", "empty"])
async def test_the_next_run_heals_what_a_bad_one_left(store: Store, stream: str, wrong: str) -> None:
    """Nobody may have to ask for it: the hole is part of the next window."""
    async with circle(store, policy=WEEK, orders=6, invoices=6) as it:
        await it.pull(stream)
        made(it)
        await it.advance(60)
        await it.pull(stream)
        await it.advance(5 * 3600)
        made(it)
        await it.advance(5 * 3600)
        await WRONG[wrong](it, stream)
        assert not (await it.pull(stream)).is_success
        (hole,) = await holes(it, stream)
        assert hole.age_s == pytest.approx(10 * 3600 + 60, abs=2)
        assert not hole.is_young
        report = await it.pull(stream)
        assert (report.status, report.inserted) == ("succeeded", 12)
        (hole,) = await holes(it, stream)
        assert hole.is_young


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_hole_in_the_middle_is_seen_with_its_age_and_refilled(store: Store, stream: str) -> None:
    """However a hole came to be, the next pull reaches back to the oldest one inside the horizon."""
    async with circle(store, policy=WEEK, orders=0) as it:
        await it.pull(stream)
        await it.edit(
            "UPDATE syncd.coverage SET proven = proven - tstzmultirange(tstzrange("
            "'2024-04-29 06:00+00', '2024-04-29 09:00+00'))"
        )
        hole, young = await holes(it, stream)
        assert (hole.is_open, hole.is_young, hole.span_s) == (False, False, 3 * 3600)
        assert hole.age_s == pytest.approx(2 * 86400 + 6 * 3600)
        assert young.is_young
        await it.advance(60)
        report = await it.pull(stream)
        assert report.asked_from is not None
        assert NOON - report.asked_from >= timedelta(days=2, hours=8)
        (young,) = await holes(it, stream)
        assert young.is_young


async def test_a_stream_that_never_proved_anything_is_one_hole(store: Store) -> None:
    """A stream that fails from its first day on must not look like one without holes."""
    async with circle(store, policy=WEEK) as it:
        it.box.faults.add("status", operation="orders", status=503)
        await it.pull("orders")
        (hole,) = await holes(it, "orders")
        assert (hole.age_s, hole.is_open, hole.is_young) == (7 * 86400, True, False)


async def test_time_claimed_by_a_clock_that_ran_ahead_is_taken_back(store: Store) -> None:
    """A CRM that was set right gives its next rows times that an earlier answer claims to have read."""
    async with circle(store, policy=WEEK, orders=0) as it:
        it.box.clock.advance(1200)
        await it.pull("orders")
        assert (await proven(it, "orders"))[-1].upper > it.clock.now()
        it.box.clock.advance(-1200)
        for _ in range(10):
            await it.advance(1)
            await it.pull("tags")
        await it.pull("orders")
        assert (await proven(it, "orders"))[-1].upper <= it.clock.now() + timedelta(seconds=61)


@pytest.mark.parametrize("minutes", [10, -10])
async def test_a_server_clock_ten_minutes_off_loses_nothing(store: Store, minutes: int) -> None:
    """Orders of every minute, a pull every quarter: each is there, and no time is claimed that had not come there."""
    async with circle(store, policy=WEEK, orders=0) as it:
        it.box.clock.advance(minutes * 60)
        relations = list(it.world.relations)
        for quarter in range(12):
            for minute in range(15):
                it.world.add_order(relations[(quarter + minute) % len(relations)], BREAD)
                await it.advance(60)
            report = await it.pull("orders")
            assert report.is_success
            claimed = (await proven(it, "orders"))[-1].upper
            assert claimed <= it.box.clock.now() - timedelta(seconds=58)
            assert claimed >= it.box.clock.now() - timedelta(seconds=62 + (600 if quarter == 0 else 0))
            known = await it.value(f"SELECT count(*) FROM crm.orders WHERE purchased_at < '{claimed.isoformat()}'")
            assert known == sum(1 for order in it.world.orders.values() if order.purchased_at < claimed)
        assert await it.value("SELECT count(*) FROM crm.orders") == 180


@pytest.mark.parametrize("seconds", [3600, -3600])
@pytest.mark.parametrize("whose", ["ours", "theirs"])
async def test_while_a_clock_is_an_hour_off_nothing_is_claimed_and_nothing_is_lost(
    store: Store, whose: str, seconds: float
) -> None:
    """Whole hours are what a server gets wrong that takes its local time for GMT: its word is not taken, its rows are.

    Orders of every minute for an hour and a half; in the middle third the clock is wrong.
    """
    async with circle(store, policy=WEEK, orders=0) as it:
        relations = list(it.world.relations)
        claims: list[Interval] = []
        for minute in range(90):
            if minute in (30, 60):
                jump = seconds if minute == 30 else -seconds
                it.clock.set(it.clock.now() + timedelta(seconds=jump if whose == "ours" else 0))
                it.box.clock.advance(jump if whose == "theirs" else 0)
            it.world.add_order(relations[minute % len(relations)], BREAD)
            await it.advance(60)
            if minute % 3 == 0:
                assert (await it.pull("orders")).is_success
                (claimed,) = await proven(it, "orders")
                assert claimed.lower <= NOON - timedelta(days=7)
                claims.append(claimed)
        assert {claim.upper for claim in claims[9:20]} == {claims[9].upper}, "nothing is claimed while it is off"
        assert it.box.clock.now() - claims[-1].upper < timedelta(minutes=6)
        await it.advance(3600)  # orders that bear a time to come are shown when it has come
        await it.pull("orders")
        assert await it.value("SELECT count(*) FROM crm.orders") == 90
