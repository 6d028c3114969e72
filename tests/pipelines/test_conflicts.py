"""Conflicts and the person who decides them: nothing moves before, and afterwards it goes the way of every edit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from syncd.domain.changes import UpdateProfile
from syncd.domain.errors import UserError
from syncd.policy.merge import Owner, Owners
from syncd.sandbox import World
from syncd.store import Store
from syncd.store.conflicts import Take, list_conflicts, resolve_conflict
from syncd.store.incidents import list_incidents
from syncd.store.outbox_reassert import remember
from tests.support.both_sides import BothSides, both_sides
from tests.support.outbox import stage_all
from tests.support.pulling import NOON

WHO = "SELECT id FROM crm.relations ORDER BY id LIMIT 1"
EDIT = f"UPDATE crm.relations SET last_name = 'Ours' WHERE id = ({WHO})"


@asynccontextmanager
async def contested(store: Store, owner: Owner = Owner.HOLD) -> AsyncIterator[BothSides]:
    """One relation whose last name both sides have changed; a pull and a drain have been told."""
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    (number,) = world.relations
    world.change_relation(number, last_name="Agreed")
    world.join(world.relations[number], next(iter(world.groups)))
    async with both_sides(store, world, owners=Owners(Owner.LOCAL, {"last_name": owner})) as both:
        await both.pull()
        await both.edit(EDIT)
        world.change_relation(number, last_name="Theirs")
        await both.pull("group_members")
        await both.drain()
        yield both


async def names(both: BothSides) -> tuple[str, str]:
    """Return the last name here and in the CRM."""
    return await both.value(f"SELECT last_name FROM crm.relations WHERE id = ({WHO})"), next(
        iter(both.world.relations.values())
    ).last_name


async def resolve(both: BothSides, take: Take, conflict_id: int = 1) -> bool:
    async with both.store.begin_remote() as connection:
        resolved = await resolve_conflict(connection, conflict_id, take, actor="ann", reason="asked them")
    return resolved.is_sent


async def test_a_held_field_is_neither_sent_nor_overwritten_while_the_rest_of_the_row_moves(store: Store) -> None:
    """Waiting for a person must cost the one field alone, in both directions, however long it takes."""
    async with contested(store) as both:
        (number,) = both.world.relations
        await both.edit(f"UPDATE crm.relations SET first_name = 'Sent' WHERE id = ({WHO})")
        both.world.change_relation(number, suffix="van")
        for _ in range(2):
            await both.drain()
            await both.pull("group_members")
        assert await names(both) == ("Ours", "Theirs")
        row = f"SELECT first_name, suffix FROM crm.relations WHERE id = ({WHO})"
        assert await both.rows(row) == [("Sent", "van")]
        assert both.world.relations[number].first_name == "Sent"
        async with store.begin() as connection:
            (conflict,) = await list_conflicts(connection)
            (incident,) = await list_incidents(connection)
        assert (conflict.base, conflict.local, conflict.remote) == ("Agreed", "Ours", "Theirs")
        assert (conflict.status, conflict.owner, incident.subject) == ("open", "hold", "conflict:1")


async def test_a_held_field_follows_what_both_sides_say_meanwhile(store: Store) -> None:
    """A person decides between what is said now, not between what was said a week ago."""
    async with contested(store) as both:
        (number,) = both.world.relations
        await both.edit(f"UPDATE crm.relations SET last_name = 'Ours again' WHERE id = ({WHO})")
        both.world.change_relation(number, last_name="Theirs again")
        await both.pull("group_members")
        await both.drain()
        assert await names(both) == ("Ours again", "Theirs again")
        said = "SELECT base, local, remote, status FROM syncd.conflicts"
        assert await both.rows(said) == [("Agreed", "Ours again", "Theirs again", "open")]
        both.world.change_relation(number, last_name="Ours again")
        await both.pull("group_members")
        assert await both.rows("SELECT status, decided, decided_by FROM syncd.conflicts") == [
            ("resolved", "agreed", "agreement")
        ]
        async with store.begin() as connection:
            assert await list_incidents(connection) == ()


@pytest.mark.parametrize(
    ("take", "name", "is_sent"),
    [(Take("local"), "Ours", True), (Take("remote"), "Theirs", False), (Take("value", "Both"), "Both", True)],
)
async def test_what_a_person_takes_is_what_both_sides_have(store: Store, take: Take, name: str, is_sent: bool) -> None:
    """The decision is on record with who took it and why, and nothing of it is left open."""
    async with contested(store) as both:
        assert await resolve(both, take) is is_sent
        await both.drain()
        await both.pull("group_members")
        assert await names(both) == (name, name)
        decided = "SELECT verb, actor, reason, conflict_id FROM syncd.decisions"
        assert await both.rows(decided) == [(f"resolve {take.side}", "ann", "asked them", 1)]
        assert await both.rows("SELECT status, decided, decided_by FROM syncd.conflicts") == [
            ("resolved", take.side, "person")
        ]
        captured = "SELECT actor, reason FROM syncd.entries WHERE status = 'verified' AND actor = 'ann'"
        assert len(await both.rows(captured)) == int(is_sent)


async def test_a_decision_goes_behind_what_the_relation_waits_for_already(store: Store) -> None:
    """A decision that overtook an edit would bring an older value over a newer one."""
    async with contested(store) as both:
        await both.edit(f"UPDATE crm.relations SET email = 'new@decided.example' WHERE id = ({WHO})")
        await resolve(both, Take("local"))
        await both.edit(f"UPDATE crm.relations SET last_name = 'Newest' WHERE id = ({WHO})")
        await both.drain()
        assert await names(both) == ("Newest", "Newest")
        assert await both.value("SELECT count(*) FROM syncd.conflicts WHERE status = 'open'") == 0


async def test_a_decision_is_about_the_newest_edit_and_nothing_of_it_is_sent_afterwards(store: Store) -> None:
    """An edit that waits already would be met again after the decision, when the mirror does not hold it any more."""
    async with contested(store) as both:
        await both.edit(f"UPDATE crm.relations SET last_name = 'Ours again' WHERE id = ({WHO})")
        with pytest.raises(UserError, match="on its way"):
            await resolve(both, Take("remote"))
        await stage_all(store)
        await resolve(both, Take("remote"))
        for _ in range(2):
            await both.drain()
            await both.pull("group_members")
        assert await names(both) == ("Theirs", "Theirs")
        told = "SELECT base, local, remote, status, decided FROM syncd.conflicts"
        assert await both.rows(told) == [("Agreed", "Ours again", "Theirs", "resolved", "remote")]


@pytest.mark.parametrize(("owner", "take", "name"), [("local", "remote", "Theirs"), ("remote", "local", "Ours")])
async def test_what_an_owner_decided_may_be_overruled_until_somebody_edits(
    store: Store, owner: str, take: str, name: str
) -> None:
    """A setting decides for all; a person may know better of one. After an edit the conflict is history."""
    async with contested(store, Owner(owner)) as both:
        await both.pull("group_members")
        before = "Ours" if owner == "local" else "Theirs"
        assert await names(both) == (before, before)
        await resolve(both, Take(take))
        await both.drain()
        await both.pull("group_members")
        assert await names(both) == (name, name)
        await both.edit(f"UPDATE crm.relations SET last_name = 'Later' WHERE id = ({WHO})")
        with pytest.raises(UserError, match="edit the row instead"):
            await resolve(both, Take(owner))
        with pytest.raises(UserError, match="there is no conflict 99"):
            await resolve(both, Take("local"), 99)


async def test_an_edit_after_one_that_was_given_up_meets_no_conflict(store: Store) -> None:
    """What was skipped stands in the mirror until a pull; taken for agreed, the CRM would seem to have moved."""
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    world.join(next(iter(world.relations.values())), next(iter(world.groups)))
    async with both_sides(store, world, owners=Owners(Owner.REMOTE)) as both:
        await both.pull("groups", "group_members")
        both.box.faults.add("error", operation="relation_upsert")
        await both.edit(EDIT)
        await both.drain()
        assert await both.value("SELECT status FROM syncd.entries") == "dead"
        await both.edit("UPDATE syncd.entries SET status = 'skipped', settled_at = now()")
        await both.edit(f"UPDATE crm.relations SET last_name = 'Second' WHERE id = ({WHO})")
        await both.drain()
        assert await names(both) == ("Second", "Second")
        assert await both.value("SELECT count(*) FROM syncd.conflicts") == 0


async def test_a_conflict_leaves_alone_what_waits_for_a_late_request(store: Store) -> None:
    """A skipped edit that may still land is remembered without a value of its own: no conflict has emptied it."""
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    (number,) = world.relations
    world.join(world.relations[number], next(iter(world.groups)))
    async with both_sides(store, world, owners=Owners(Owner.LOCAL, {"last_name": Owner.HOLD})) as both:
        await both.pull()
        await both.edit(f"UPDATE crm.relations SET first_name = 'Late' WHERE id = ({WHO})")
        await both.drain()
        late = UpdateProfile(old={"first_name": None}, new={"first_name": "Late"})
        async with both.store.begin() as connection:
            ((lane_id, root),) = (await connection.exec_driver_sql("SELECT lane_id, id FROM syncd.entries")).all()
            await remember(connection, lane_id, late, root, 3600)
        await both.edit(EDIT)
        world.change_relation(number, last_name="Theirs")
        await both.pull("group_members")
        await both.drain()
        told = f"SELECT reasserts IS NOT NULL, status FROM syncd.entries WHERE id <> {root} ORDER BY 1"
        assert await both.rows(told) == [(False, "skipped"), (True, "pending")]


OVERWRITTEN = {
    "text": ("relation_upsert", EDIT, "last_name", "Theirs", "Agreed", "Ours"),
    "address": (
        "relation_email",
        f"UPDATE crm.relations SET email = 'ours@lost.example' WHERE id = ({WHO})",
        "email",
        "theirs@lost.example",
        "agreed@lost.example",
        "ours@lost.example",
    ),
}


@asynccontextmanager
async def contested_in_doubt(store: Store, kind: str = "text") -> AsyncIterator[BothSides]:
    """One relation of which both sides have changed a column, and our request may still land; no drainer was told."""
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    (number,) = world.relations
    operation, edit, column, theirs, agreed, _ = OVERWRITTEN[kind]
    world.change_relation(number, **{column: agreed})
    world.join(world.relations[number], next(iter(world.groups)))
    async with both_sides(store, world, owners=Owners(Owner.LOCAL, {column: Owner.HOLD})) as both:
        both.limits = replace(both.limits, settle_window_s=3600.0)
        await both.pull()
        both.box.faults.add("late", operation=operation)
        await both.edit(edit)
        await both.drain(backoff_s=3600.0, backoff_max_s=3600.0)
        assert await both.rows("SELECT status, is_uncertain FROM syncd.entries") == [("pending", True)]
        world.change_relation(number, **{column: theirs})
        await both.pull("group_members")
        yield both


@pytest.mark.parametrize("take", [Take("value", "Chosen"), Take("local")])
async def test_an_edit_that_a_conflict_gave_up_in_doubt_does_not_undo_what_a_person_chose(
    store: Store, take: Take
) -> None:
    """Its request may land after the decision has been delivered, and nobody would ever send the decision again."""
    async with contested_in_doubt(store) as both:
        await both.drain()
        assert await both.value("SELECT status FROM syncd.entries WHERE reasserts IS NULL") == "skipped"
        await both.edit(f"UPDATE crm.relations SET last_name = 'Newer' WHERE id = ({WHO})")
        await stage_all(store)
        assert await resolve(both, take)
        await both.drain()
        chosen = "Chosen" if take.side == "value" else "Newer"
        assert await names(both) == (chosen, chosen)
        assert both.box.land() == 1
        assert await names(both) == (chosen, "Ours"), "the late request lands after the decision"
        await both.wake()
        await both.drain()
        assert await names(both) == (chosen, chosen)


async def test_an_address_that_a_conflict_gave_up_in_doubt_does_not_undo_what_a_person_chose(store: Store) -> None:
    """What waits for the late request is withheld a second time when the person decides, and must outlive that."""
    async with contested_in_doubt(store, "address") as both:
        (number,) = both.world.relations
        await both.drain()
        assert await resolve(both, Take("value", "chosen@lost.example"))
        await both.drain()
        assert both.world.relations[number].email == "chosen@lost.example"
        assert both.box.land() == 1
        assert both.world.relations[number].email == "ours@lost.example", "the late request lands after the decision"
        await both.wake()
        await both.drain()
        assert both.world.relations[number].email == "chosen@lost.example"


@pytest.mark.parametrize(("window_s", "again"), [(7200.0, 1), (0.0, 0)])
async def test_a_decision_remembers_for_as_long_as_the_settings_say(store: Store, window_s: float, again: int) -> None:
    """Decided before a drainer has withheld the edit; with no settle window nothing is ever said once more."""
    async with contested_in_doubt(store) as both:
        async with both.store.begin_remote() as connection:
            await resolve_conflict(connection, 1, Take("value", "Chosen"), actor="ann", settle_window_s=window_s)
        waiting = await both.rows(
            "SELECT next_attempt_at - now() > interval '1 hour' FROM syncd.entries WHERE reasserts IS NOT NULL"
        )
        assert waiting == [(True,)] * again


@pytest.mark.parametrize("loss", ["lost_answer", "lost_reset"])
@pytest.mark.parametrize("kind", OVERWRITTEN)
async def test_what_was_overwritten_is_told_though_the_answer_to_it_was_lost(
    store: Store, kind: str, loss: str
) -> None:
    """The next try finds our own value in the CRM: what its people had written can be read nowhere any more."""
    operation, edit, column, theirs, agreed, ours = OVERWRITTEN[kind]
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    (number,) = world.relations
    world.change_relation(number, **{column: agreed})
    world.join(world.relations[number], next(iter(world.groups)))
    async with both_sides(store, world) as both:
        await both.pull("groups", "group_members")
        await both.edit(edit)
        world.change_relation(number, **{column: theirs})
        both.box.faults.add(loss, operation=operation)
        for _ in range(2):
            await both.drain()
            await both.wake()
        assert getattr(world.relations[number], column) == ours
        told = "SELECT field, base, local, remote, status, decided, decided_by FROM syncd.conflicts"
        assert await both.rows(told) == [(column, agreed, ours, theirs, "resolved", "local", "owner")]
