"""Addresses that are passed: a later address of the relation goes out before one that waits for another relation."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from syncd.policy.merge import Owner, Owners
from syncd.store import Store
from syncd.store.outbox import skip_entries
from tests.support.addresses import email_of, give_up, move, refused
from tests.support.locks import until_blocked
from tests.support.outbox import Circle, circle, rows, run_sql
from tests.support.planning import planned


async def test_an_address_that_was_passed_is_never_sent_after_the_later_one_was_shown(store: Store) -> None:
    """Nobody knew whether the later one was there; a pull shows it. What it has passed would undo it."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        dead = await _passed_in_doubt(c, one.id, two.id)
        await c.pull("group_members")
        assert [entry["status"] for entry in await c.entries()] == ["dead", "superseded", "verified"]
        c.sandbox.world.change_relation(one.id, email="mended@x.example")
        await give_up(c, dead)
        await c.drain(patience_s=1.0)
        assert email_of(c, two.id) == "fresh@x.example"


async def test_a_proof_waits_for_nobody_who_holds_what_was_passed(store: Store) -> None:
    """A person may be skipping it: a pull that waited could wait in a circle. The next one proves it."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        await _passed_in_doubt(c, one.id, two.id)
        (passed,) = await rows(store, "SELECT id FROM syncd.entries WHERE status = 'pending'")
        async with store.begin() as person:
            lock = text("SELECT 1 FROM syncd.entries WHERE id = :id FOR UPDATE")
            await person.execute(lock, {"id": passed["id"]})
            async with asyncio.timeout(10):
                await c.pull("group_members")
        assert [entry["status"] for entry in await c.entries()] == ["dead", "pending", "parked"]
        await c.pull("group_members")
        assert [entry["status"] for entry in await c.entries()] == ["dead", "superseded", "verified"]


async def test_nothing_is_proved_of_a_lane_that_a_worker_holds(store: Store) -> None:
    """The worker goes by its plan, and nobody would look again at what waits behind the parked one."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        await _passed_in_doubt(c, one.id, two.id)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:id, 301)", id=two.id)
        hold = "UPDATE syncd.lanes SET claimed_by = :by, ready_at = now() + interval '1 hour' WHERE relation_id = :id"
        await run_sql(store, hold, by="somebody", id=two.id)
        await c.pull("group_members")
        assert [entry["status"] for entry in await c.entries()] == ["dead", "pending", "parked"]
        await run_sql(store, hold, by=None, id=two.id)
        await c.pull("group_members")
        assert (await c.drain()).delivered == 1
        assert [entry["status"] for entry in await c.entries()][1:3] == ["superseded", "verified"]


async def test_an_address_that_was_passed_stays_so_beyond_what_one_claim_reads(store: Store) -> None:
    """The later one may be there, and stands behind more entries than a claim looks at."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        dead = await _passed_in_doubt(c, one.id, two.id, between=40)
        c.sandbox.world.change_relation(one.id, email="mended@x.example")
        await give_up(c, dead)
        await c.drain(patience_s=0.0, window=4)
        assert email_of(c, two.id) == "fresh@x.example"


async def _passed_in_doubt(c: Circle, one_id: int, two_id: int, *, between: int = 0) -> int:
    """Let the CRM refuse a first relation's address, a second one wait for it, and be given another that arrives while
    its answer is lost; return the first one's entry, which waits for a person."""
    address = email_of(c, one_id)
    dead = await refused(c, one_id, "bad@x.example")
    await move(c, two_id, address)
    await c.drain(patience_s=0.0)
    for number in range(between):
        await c.edit("UPDATE crm.relations SET first_name = :n WHERE id = :id", n=f"N{number}", id=two_id)
    c.sandbox.faults.add("lost_answer", operation="relation_email", times=1)
    await move(c, two_id, "fresh@x.example")
    await c.drain(patience_s=0.0, max_attempts=1, window=4)
    assert email_of(c, two_id) == "fresh@x.example"
    return dead


async def test_after_a_proved_address_the_next_one_is_compared_with_that(store: Store) -> None:
    """A refused one before it is over: taken for the base, it would make our own address the CRM's doing."""
    async with circle(store) as c:
        one, *_ = c.sandbox.world.relations.values()
        await refused(c, one.id, "bad@x.example")
        c.sandbox.faults.add("lost_answer", operation="relation_email", times=1)
        await move(c, one.id, "good@x.example")
        await c.drain(patience_s=0.0, max_attempts=1)
        await c.pull("group_members")
        await move(c, one.id, "third@x.example")
        await c.drain(patience_s=0.5, owners=Owners(Owner.LOCAL, {"email": Owner.REMOTE}))
        assert email_of(c, one.id) == "third@x.example"
        told = await rows(store, "SELECT before FROM syncd.changes WHERE origin = 'local' ORDER BY id")
        assert told[-1]["before"] == {"email": "good@x.example"}
        assert await rows(store, "SELECT 1 FROM syncd.conflicts") == []


async def test_a_person_who_skips_several_entries_meets_no_stager_in_a_circle(store: Store) -> None:
    """Their lanes are locked in the order of all others, and who waits for one of them is locked last."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        first = await refused(c, three.id, "bad@x.example")
        second = await refused(c, one.id, "worse@x.example")
        await move(c, two.id, three.email)
        await c.drain(patience_s=0.0)
        lock = text("SELECT 1 FROM syncd.lanes WHERE relation_id = :id FOR UPDATE NOWAIT")
        async with store.begin() as stager:
            await stager.execute(lock, {"id": one.id})
            skipping = asyncio.create_task(_skip_all(store, first, second))
            await until_blocked(store)
            for later in (two, three):
                await stager.execute(lock, {"id": later.id})
        await skipping
        report = await c.drain(patience_s=0.0)
        assert (report.dead, email_of(c, three.id)) == (1, three.email), "it was woken, and asked whose the address is"


async def _skip_all(store: Store, *entry_ids: int) -> None:
    async with store.begin() as connection:
        assert await skip_entries(connection, entry_ids) == []


async def test_what_was_passed_is_still_sent_when_the_later_address_is_refused(store: Store) -> None:
    """Superseded by what nobody took it would be lost."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        dead = await refused(c, one.id, "bad@x.example")
        await move(c, two.id, address)
        await refused(c, two.id, "fresh@x.example")
        c.sandbox.world.change_relation(one.id, email="mended@x.example")
        await give_up(c, dead)
        assert (await c.drain()).delivered == 1
        assert email_of(c, two.id) == address


async def test_what_was_passed_waits_for_the_later_address_that_may_be_there(store: Store) -> None:
    """Nobody can tell whether it is: the plan says what has to be decided."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        dead = await refused(c, one.id, "bad@x.example")
        await move(c, two.id, one.email)
        c.sandbox.faults.add("reset", operation="relation_email", times=2)
        await move(c, two.id, "fresh@x.example")
        await c.drain(patience_s=1.0, max_attempts=2)
        await give_up(c, dead)
        report = await c.drain(patience_s=0.0)
        assert (report.pending, report.blocked) == (0, 2)
        (lane,) = (await planned(c)).lanes
        assert [(wait.why, wait.behind is not None) for wait in lane.waits] == [("behind", True), ("parked", False)]
