"""Addresses whose leaving was given up: nobody waits for them, and nobody is taken for who has them in the CRM."""

from __future__ import annotations

import pytest

from syncd.policy.guard import Guard
from syncd.policy.merge import Owner, Owners
from syncd.policy.states import HoldStatus
from syncd.store import Store
from tests.support.addresses import MAKE, email_of, give_up, move, people, refused
from tests.support.erasing import erased
from tests.support.holds import decided, holds
from tests.support.outbox import Circle, circle, remote_sql, retry_entry, rows, run_sql
from tests.support.planning import planned


async def test_who_gave_up_first_does_not_wait_for_who_came_after_it(store: Store) -> None:
    """Two relations would wait for each other: what stands in the way is told instead."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        first, second = one.email, two.email
        await give_up(c, await refused(c, one.id, "typo@x.example"))
        await move(c, two.id, first)
        await move(c, one.id, second)
        await c.drain()
        (kept,) = await rows(store, "SELECT relation_id, error FROM syncd.entries WHERE status = 'dead'")
        assert kept["relation_id"] == two.id
        assert "on another relation" in kept["error"]


async def test_an_address_whose_leaving_was_given_up_is_not_taken_from_who_has_it(store: Store) -> None:
    """Skipped here, the relation has it in the CRM all the same: nothing may be written over that one."""
    async with circle(store) as c:
        await _takes_only_what_is_free(c, MAKE)


async def test_a_relation_does_not_move_to_an_address_whose_leaving_was_given_up(store: Store) -> None:
    """The CRM would refuse it, or make the two relations one."""
    async with circle(store) as c:
        _, two, *_ = c.sandbox.world.relations.values()
        await _takes_only_what_is_free(c, f"UPDATE crm.relations SET email = :email WHERE id = {two.id}")


async def _takes_only_what_is_free(c: Circle, taking: str) -> None:
    one, *_ = c.sandbox.world.relations.values()
    before, address, name = len(c.sandbox.world.relations), one.email, one.first_name
    dead = await refused(c, one.id, "typo@x.example")
    await c.edit(taking, email=address)
    await c.drain()
    await give_up(c, dead)
    (lane,) = (await planned(c)).lanes
    assert lane.calls[0].requests == 2, "the CRM is asked whose it is"
    assert (await c.drain(patience_s=0.0)).delivered == 0
    assert (email_of(c, one.id), c.sandbox.world.relations[one.id].first_name) == (address, name)
    assert len(c.sandbox.world.relations) == before
    (kept,) = await rows(c.store, "SELECT * FROM syncd.entries WHERE status = 'dead'")
    assert "on another relation" in kept["error"]
    assert address not in kept["error"]
    c.sandbox.world.change_relation(one.id, email="mended@x.example")
    async with c.store.begin() as connection:
        await retry_entry(connection, kept["id"])
    assert (await c.drain()).is_empty
    assert address in people(c)
    assert email_of(c, one.id) == "mended@x.example"


async def test_who_is_kept_from_an_address_may_be_given_another_one(store: Store) -> None:
    """Nothing was sent of it, so that the later address makes the relation."""
    async with circle(store) as c:
        one, *_ = c.sandbox.world.relations.values()
        address, name = one.email, one.first_name
        await give_up(c, await refused(c, one.id, "typo@x.example"))
        await c.edit(MAKE, email=address)
        await c.drain()
        await c.edit("UPDATE crm.relations SET email = 'fresh@x.example' WHERE email = :email", email=address)
        assert (await c.drain()).is_empty
        assert (people(c)[address], people(c)["fresh@x.example"]) == (name, "Newcomer")


@pytest.mark.parametrize("edit", ["email = 'fresh@x.example'", "first_name = 'Newcomer too'"])
async def test_a_relation_whose_create_was_given_up_is_not_taken_for_who_has_its_address(
    store: Store, edit: str
) -> None:
    """Without a remote id it is looked for by its address, and that leads to somebody else."""
    async with circle(store) as c:
        one, *_ = c.sandbox.world.relations.values()
        address, name = one.email, one.first_name
        await refused(c, one.id, "typo@x.example")
        await c.edit(MAKE, email=address)
        await c.drain(patience_s=0.0)
        (made,) = await rows(store, "SELECT id, relation_id FROM syncd.entries WHERE operation = 'create_relation'")
        await give_up(c, made["id"])
        await c.edit(f"UPDATE crm.relations SET {edit} WHERE id = :id", id=made["relation_id"])
        await c.drain(patience_s=0.0)
        assert (email_of(c, one.id), c.sandbox.world.relations[one.id].first_name) == (address, name)


async def test_a_relation_without_an_id_that_passes_a_taken_address_is_looked_for_by_its_own(store: Store) -> None:
    """It was never under the address that it only wanted to take."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await remote_sql(store, "UPDATE crm.relations SET remote_id = NULL WHERE id = :id", id=two.id)
        await refused(c, one.id, "typo@x.example")
        await move(c, two.id, address)
        await move(c, two.id, "fresh@x.example")
        await c.drain(patience_s=0.0)
        assert (email_of(c, one.id), email_of(c, two.id)) == (address, "fresh@x.example")


async def test_a_change_away_that_was_given_up_and_made_anew_is_waited_for(store: Store) -> None:
    """A typing error, skipped and mended: the relation has the first address in the CRM until the second is there."""
    async with circle(store) as c:
        one, *_ = c.sandbox.world.relations.values()
        address, name = one.email, one.first_name
        await give_up(c, await refused(c, one.id, "typo@x.example"))
        c.sandbox.faults.add("delay", operation="relation_email", delay_s=0.4)
        await move(c, one.id, "good@x.example")
        await c.edit(MAKE, email=address)
        assert (await planned(c)).totals.by_reason == {"address": 1}
        report = await c.drain()
        assert (report.delivered, report.is_empty) == (2, True)
        assert (people(c)["good@x.example"], people(c)[address]) == (name, "Newcomer")
        (made,) = await rows(store, "SELECT attempts FROM syncd.entries WHERE operation = 'create_relation'")
        assert made["attempts"] == 1, "it was not even tried while the address was taken"


async def test_a_change_made_anew_and_given_up_as_well_is_waited_for_no_longer(store: Store) -> None:
    """Whoever waits is woken for the address that the first of them left."""
    async with circle(store) as c:
        one, *_ = c.sandbox.world.relations.values()
        address = one.email
        await give_up(c, await refused(c, one.id, "typo@x.example"))
        dead = await refused(c, one.id, "again@x.example")
        await c.edit(MAKE, email=address)
        await c.drain(patience_s=0.0)
        c.sandbox.world.change_relation(one.id, email="mended@x.example")
        await give_up(c, dead)
        assert (await c.drain(patience_s=0.0)).delivered == 1


async def test_a_mass_change_that_was_rejected_is_waited_for_no_longer(store: Store) -> None:
    """Whoever waited is woken; and whoever has the address in the CRM keeps it."""
    async with circle(store) as c:
        one, two, three, *_ = c.sandbox.world.relations.values()
        guard = Guard(relations=2, share=0, window_s=60)
        address = one.email
        await c.edit("UPDATE crm.relations SET email = 'moved' || id || '@x.example' WHERE id <> :id", id=two.id)
        await c.drain(guard=guard)
        await move(c, two.id, address)
        await c.drain(guard=guard)
        (hold,) = await holds(store)
        c.sandbox.world.change_relation(one.id, email="elsewhere@x.example")
        await decided(store, hold["id"], HoldStatus.REJECTED)
        report = await c.drain(guard=guard, patience_s=0.0)
        assert (report.delivered, email_of(c, two.id)) == (1, address)
        assert email_of(c, three.id) == three.email


async def test_a_change_that_the_crms_own_makes_moot_is_waited_for_no_longer(store: Store) -> None:
    """Both sides gave the relation another address, and the CRM's counts: the old one is free."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        c.sandbox.world.change_relation(one.id, email="theirs@x.example")
        await move(c, one.id, "ours@x.example")
        await move(c, two.id, address)
        report = await c.drain(owners=Owners(Owner.LOCAL, {"email": Owner.REMOTE}), patience_s=1.0)
        assert (report.delivered, report.is_empty) == (1, True)
        assert (email_of(c, one.id), email_of(c, two.id)) == ("theirs@x.example", address)


async def test_a_change_that_a_pull_shows_after_all_is_waited_for_no_longer(store: Store) -> None:
    """The CRM said yes and showed another address for a while: whoever takes it goes when a read shows the change."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await move(c, one.id, "moved@x.example")
        await c.drain()
        await run_sql(store, "UPDATE syncd.entries SET status = 'diverged'")
        await move(c, two.id, address)
        await c.drain(patience_s=0.0)
        assert email_of(c, two.id) == two.email
        await c.pull("group_members")
        assert (await c.drain(patience_s=0.0)).delivered == 1
        assert email_of(c, two.id) == address


async def test_a_relation_that_is_gone_in_the_crm_keeps_no_address(store: Store) -> None:
    """Its change waits for a person; whether the address is free, the CRM can tell."""
    async with circle(store) as c:
        one, *_ = c.sandbox.world.relations.values()
        address = one.email
        c.sandbox.world.delete_relation(one.id)
        c.sandbox.faults.add("delay", operation="relation_email", delay_s=0.3)
        await move(c, one.id, "moved@x.example")
        await c.edit(MAKE, email=address)
        assert (await c.drain(patience_s=0.0)).delivered == 1
        assert people(c)[address] == "Newcomer"


async def test_a_diverged_change_that_is_moot_keeps_no_address(store: Store) -> None:
    """Overtaken by a later delivery in the moment in which it was found: nobody decides about it any more."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await move(c, one.id, "moved@x.example")
        await c.drain()
        await move(c, one.id, "further@x.example")
        await c.drain()
        await run_sql(store, "UPDATE syncd.entries SET status = 'diverged' WHERE seq = 1")
        await move(c, two.id, address)
        assert (await c.drain(patience_s=0.0)).delivered == 1
        assert email_of(c, two.id) == address


async def test_an_erased_relation_keeps_nobody_waiting(store: Store) -> None:
    """Its undelivered change goes with it; whoever waited for that is another person, who stays."""
    async with circle(store) as c:
        one, two, *_ = c.sandbox.world.relations.values()
        address = one.email
        await refused(c, one.id, "typo@x.example")
        await move(c, two.id, address)
        await c.drain()
        c.sandbox.world.delete_relation(one.id)
        await erased(store, "typo@x.example")
        assert (await c.drain(patience_s=0.0)).delivered == 1
        assert email_of(c, two.id) == address
