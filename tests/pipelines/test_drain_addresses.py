"""Addresses that change hands: whoever takes one waits until the relation that had it has given it up in the CRM."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import text

from syncd.store import Store
from tests.support.addresses import MAKE, email_of, give_up, move, people, refused, until_found
from tests.support.outbox import QUICK, circle, rows, run_sql
from tests.support.planning import planned


async def test_a_new_relation_under_an_address_that_another_one_left_waits_for_it(store: Store) -> None:
    """The CRM finds by address: sent first, the new one's name would be written over the other's."""
    async with circle(store) as c:
        one = next(iter(c.sandbox.world.relations.values()))
        address, name = one.email, one.first_name
        c.sandbox.faults.add("delay", operation="relation_email", delay_s=0.4)
        await move(c, one.id, "moved@x.example")
        await c.edit(MAKE, email=address.upper())
        report = await c.drain()
        assert (report.delivered, report.pending, report.is_empty) == (2, 0, True)
        assert people(c)["moved@x.example"] == name
        assert {found.lower(): told for found, told in people(c).items()}[address] == "Newcomer"
        assert len(await rows(store, "SELECT 1 FROM crm.relations WHERE remote_id IS NOT NULL")) == len(people(c)) == 7


async def test_two_relations_may_exchange_their_addresses(store: Store) -> None:
    """By way of a third address: each step is taken when the one before it is done."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        before = (one.email, two.email)
        c.sandbox.faults.add("delay", operation="relation_email", delay_s=0.2)
        await move(c, one.id, "between@x.example")
        await move(c, two.id, before[0])
        await move(c, one.id, before[1])
        report = await c.drain(patience_s=5.0)
        assert (report.delivered, report.is_empty) == (3, True)
        assert (email_of(c, one.id), email_of(c, two.id)) == (before[1], before[0])


async def test_an_address_that_is_said_once_more_keeps_nobody_waiting(store: Store) -> None:
    """After a lost answer it is said again; the relation has moved all the same, and so may those behind it."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        before = (one.email, two.email)
        c.sandbox.faults.add("lost_answer", operation="relation_email", times=1)
        await move(c, one.id, "between@x.example")
        await c.drain()
        assert [entry["reasserts"] is not None for entry in await c.entries()] == [False, True]
        await move(c, two.id, before[0])
        await move(c, one.id, before[1])
        for _ in range(3):
            await c.drain()
            await c.wake()
        assert (email_of(c, one.id), email_of(c, two.id)) == (before[1], before[0])


async def test_a_change_that_waits_for_a_person_keeps_its_address_from_others(store: Store) -> None:
    """As long as nobody has decided, the address is the one relation's in the CRM. Everything else goes on."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        address = one.email
        dead = await refused(c, one.id, "moved@x.example")
        await move(c, two.id, address)
        await move(c, three.id, "three@x.example")
        report = await c.drain()
        assert (report.delivered, report.pending, report.blocked) == (1, 0, 2)
        assert (email_of(c, one.id), email_of(c, three.id)) == (address, "three@x.example")
        plan = await planned(c)
        (wait,) = [wait for lane in plan.lanes for wait in lane.waits if wait.why == "address"]
        assert wait.awaits is not None
        assert (wait.awaits.entry, plan.totals.by_reason) == (dead, {"address": 1, "dead": 1})
        c.sandbox.world.change_relation(one.id, email="mended@x.example")
        await give_up(c, dead)
        assert (await c.drain()).delivered == 1
        assert email_of(c, two.id) == address


async def test_who_is_not_staged_yet_is_planned_as_it_will_be(store: Store) -> None:
    """Edits of this moment, and of relations in any order."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        first, second = one.email, two.email
        await move(c, one.id, "moved@x.example")
        await move(c, two.id, first)
        plan = await planned(c)
        assert plan.totals.by_reason == {"address": 1}
        await c.drain(QUICK, concurrency=1, patience_s=0.0)
        await run_sql(store, "UPDATE syncd.entries SET status = 'held' WHERE facet = 'identity'")
        await move(c, three.id, second)
        (wait,) = [wait for lane in (await planned(c)).lanes for wait in lane.waits if wait.why == "address"]
        marks = await rows(store, "SELECT id FROM syncd.entries WHERE relation_id = :id", id=two.id)
        assert wait.awaits is not None
        assert wait.awaits.entry == marks[0]["id"]


async def test_letters_alone_and_an_address_of_long_ago_wait_for_nobody(store: Store) -> None:
    """A relation does not wait for itself, nor for what was delivered."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await move(c, one.id, address.upper())
        await c.drain()
        await move(c, one.id, "moved@x.example")
        await c.drain()
        await move(c, two.id, address)
        report = await c.drain(patience_s=0.0)
        assert (report.delivered, email_of(c, two.id)) == (1, address)


async def test_who_waits_is_sent_right_after_the_other_one(store: Store) -> None:
    """A chain of three, the first of them late: each is woken by the one before it, and nobody's patience is needed."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        first, second = one.email, two.email
        c.sandbox.faults.add("status", status=503, operation="relation_email", times=1)
        await move(c, one.id, "moved@x.example")
        await c.edit("UPDATE crm.relations SET first_name = 'Before' WHERE id = :id", id=two.id)
        await move(c, two.id, first)
        await move(c, three.id, second)
        report = await c.drain(backoff_s=0.3, backoff_max_s=0.3, patience_s=1.0)
        assert (report.delivered, report.pending, report.is_empty) == (4, 0, True)
        assert [email_of(c, who.id) for who in (one, two, three)] == ["moved@x.example", first, second]


async def test_a_wake_that_meets_a_claim_is_made_up_for_in_a_moment(store: Store) -> None:
    """Somebody looks at who waits, and so has it locked, in the moment in which the other relation is settled."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        c.sandbox.faults.add("hold", operation="relation_email", times=1)
        await move(c, one.id, "moved@x.example")
        draining = asyncio.create_task(c.drain(patience_s=5.0))
        await c.sandbox.until_held()
        await move(c, two.id, address)
        await until_found(store, "SELECT 1 FROM syncd.entries WHERE relation_id = :id", id=two.id)
        async with store.begin() as connection:
            await connection.execute(
                text("SELECT 1 FROM syncd.lanes WHERE relation_id = :id FOR UPDATE"), {"id": two.id}
            )
            c.sandbox.release()
            await until_found(store, "SELECT 1 FROM syncd.entries WHERE settled_at IS NOT NULL")
        report = await draining
        assert (report.delivered, email_of(c, two.id)) == (2, address)


async def test_a_command_ends_where_only_a_person_can_help(store: Store) -> None:
    """Whoever runs it is told what waits instead of sitting there until its patience is used up."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await refused(c, one.id, "typo@x.example")
        await move(c, two.id, address)
        started = time.monotonic()
        report = await c.drain(patience_s=20.0)
        assert time.monotonic() - started < 5.0
        assert (report.delivered, report.pending, report.blocked) == (0, 0, 2)


async def test_a_command_does_not_sit_out_another_ones_long_back_off(store: Store) -> None:
    """Who waits is looked at after the other one's next try, and not before."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        c.sandbox.faults.add("status", status=503, operation="relation_email", times=1)
        await move(c, one.id, "moved@x.example")
        await move(c, two.id, one.email)
        started = time.monotonic()
        report = await c.drain(backoff_s=1e6, backoff_max_s=1e6, patience_s=20.0)
        assert time.monotonic() - started < 5.0
        assert (report.delivered, report.pending) == (0, 2)


async def test_a_command_ends_where_the_other_one_stands_behind_what_a_person_must_decide(store: Store) -> None:
    """Its lane is asleep as a whole, and so is who waits for it."""
    async with circle(store) as c:
        c.sandbox.faults.add("reset", operation="relation_upsert", times=2)
        await c.edit(MAKE, email="first@x.example")
        await c.drain(max_attempts=2)
        await c.edit("UPDATE crm.relations SET email = 'moved@x.example' WHERE email = 'first@x.example'")
        await c.edit(MAKE, email="first@x.example")
        started = time.monotonic()
        report = await c.drain(patience_s=20.0)
        assert time.monotonic() - started < 5.0
        assert [entry["status"] for entry in await c.entries()] == ["parked", "pending", "pending"]
        assert (report.delivered, report.pending, report.blocked) == (0, 0, 3)


async def test_lanes_that_wait_in_a_circle_are_freed_by_an_address_that_nobody_has(store: Store) -> None:
    """Two relations exchange addresses, and the CRM refuses the first step: one of them must go elsewhere first."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        first, second = one.email, two.email
        await refused(c, one.id, "bad@x.example")
        await move(c, two.id, first)
        await move(c, one.id, second)
        assert (await c.drain(patience_s=0.0)).delivered == 0
        assert (await planned(c)).totals.by_reason == {"address": 2, "dead": 1}
        for number in range(5):  # it stands beyond what one claim reads
            await c.edit("UPDATE crm.relations SET first_name = :n WHERE id = :id", n=f"N{number}", id=one.id)
        await move(c, one.id, "fresh@x.example")
        assert (await c.drain(window=4)).is_empty
        assert (email_of(c, one.id), email_of(c, two.id)) == ("fresh@x.example", first)
