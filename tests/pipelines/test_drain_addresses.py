"""Addresses that change hands: whoever takes one waits until the relation that had it has given it up in the CRM."""

from __future__ import annotations

from syncd.store import Store
from syncd.store.outbox import skip_entry
from tests.support.outbox import QUICK, Circle, circle, rows, run_sql
from tests.support.planning import planned

MOVE = "UPDATE crm.relations SET email = :email WHERE id = :id"
MAKE = "INSERT INTO crm.relations (account_id, email, first_name) VALUES (:account_id, :email, 'Newcomer')"


async def _moved(c: Circle, relation_id: int, email: str) -> None:
    await c.edit(MOVE, id=relation_id, email=email)


def _email(c: Circle, relation_id: int) -> str:
    return c.sandbox.world.relations[relation_id].email


def _people(c: Circle) -> dict[str, str | None]:
    return {relation.email: relation.first_name for relation in c.sandbox.world.relations.values()}


async def test_a_new_relation_under_an_address_that_another_one_left_waits_for_it(store: Store) -> None:
    """The CRM finds by address: sent first, the new one's name would be written over the other's."""
    async with circle(store) as c:
        one = next(iter(c.sandbox.world.relations.values()))
        address, name = one.email, one.first_name
        c.sandbox.faults.add("delay", operation="relation_email", delay_s=0.4)
        await _moved(c, one.id, "moved@x.example")
        await c.edit(MAKE, email=address.upper())
        report = await c.drain()
        assert (report.delivered, report.pending, report.is_empty) == (2, 0, True)
        assert _people(c)["moved@x.example"] == name
        assert {found.lower(): told for found, told in _people(c).items()}[address] == "Newcomer"
        assert len(await rows(store, "SELECT 1 FROM crm.relations WHERE remote_id IS NOT NULL")) == len(_people(c)) == 7


async def test_two_relations_may_exchange_their_addresses(store: Store) -> None:
    """By way of a third address: each step is taken when the one before it is done."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        before = (one.email, two.email)
        c.sandbox.faults.add("delay", operation="relation_email", delay_s=0.2)
        await _moved(c, one.id, "between@x.example")
        await _moved(c, two.id, before[0])
        await _moved(c, one.id, before[1])
        report = await c.drain(patience_s=5.0)
        assert (report.delivered, report.is_empty) == (3, True)
        assert (_email(c, one.id), _email(c, two.id)) == (before[1], before[0])


async def test_an_address_that_is_said_once_more_keeps_nobody_waiting(store: Store) -> None:
    """After a lost answer it is said again; the relation has moved all the same, and so may those behind it."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        before = (one.email, two.email)
        c.sandbox.faults.add("lost_answer", operation="relation_email", times=1)
        await _moved(c, one.id, "between@x.example")
        await c.drain()
        assert [entry["reasserts"] is not None for entry in await c.entries()] == [False, True]
        await _moved(c, two.id, before[0])
        await _moved(c, one.id, before[1])
        for _ in range(3):
            await c.drain()
            await c.wake()
        assert (_email(c, one.id), _email(c, two.id)) == (before[1], before[0])


async def test_a_change_that_waits_for_a_person_keeps_its_address_from_others(store: Store) -> None:
    """As long as nobody has decided, the address is the one relation's in the CRM. Everything else goes on."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        address = one.email
        c.sandbox.faults.add("status", status=400, operation="relation_email", times=1)
        await _moved(c, one.id, "moved@x.example")
        await c.drain()
        await _moved(c, two.id, address)
        await _moved(c, three.id, "three@x.example")
        report = await c.drain()
        assert (report.delivered, report.pending) == (1, 1)
        assert (_email(c, one.id), _email(c, three.id)) == (address, "three@x.example")
        plan = await planned(c)
        (wait,) = [wait for lane in plan.lanes for wait in lane.waits if wait.why == "address"]
        (dead,) = await rows(store, "SELECT id FROM syncd.entries WHERE status = 'dead'")
        assert wait.awaits is not None
        assert (wait.awaits.entry, plan.totals.by_reason) == (dead["id"], {"address": 1, "dead": 1})
        async with store.begin() as connection:
            await skip_entry(connection, dead["id"])
        c.sandbox.world.change_relation(one.id, email="mended@x.example")
        await c.wake()
        assert (await c.drain()).delivered == 1
        assert _email(c, two.id) == address


async def test_who_is_not_staged_yet_is_planned_as_it_will_be(store: Store) -> None:
    """Edits of this moment, and of relations in any order."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        first, second = one.email, two.email
        await _moved(c, one.id, "moved@x.example")
        await _moved(c, two.id, first)
        plan = await planned(c)
        assert plan.totals.by_reason == {"address": 1}
        await c.drain(QUICK, concurrency=1, patience_s=0.0)
        await run_sql(store, "UPDATE syncd.entries SET status = 'held' WHERE facet = 'identity'")
        await _moved(c, three.id, second)
        (wait,) = [wait for lane in (await planned(c)).lanes for wait in lane.waits if wait.why == "address"]
        marks = await rows(store, "SELECT id FROM syncd.entries WHERE relation_id = :id", id=two.id)
        assert wait.awaits is not None
        assert wait.awaits.entry == marks[0]["id"]


async def test_letters_alone_and_an_address_of_long_ago_wait_for_nobody(store: Store) -> None:
    """A relation does not wait for itself, nor for what was delivered."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await _moved(c, one.id, address.upper())
        await c.drain()
        await _moved(c, one.id, "moved@x.example")
        await c.drain()
        await _moved(c, two.id, address)
        report = await c.drain(patience_s=0.0)
        assert (report.delivered, _email(c, two.id)) == (1, address)
