"""Late landings: a request whose answer never came is applied after a newer value was delivered.

Every scenario runs twice. Without reassertion the CRM ends wrong, which proves that the fault bites; with it, right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from syncd.providers.contract import ProviderOptions
from syncd.sandbox.records import Relation
from syncd.store import Store
from syncd.store.incidents import list_incidents
from tests.support.outbox import GUARDED, Circle, circle, retry_entry, rows, run_sql, skip_entry

WINDOW_S = 600.0
TAG = 301


@dataclass(frozen=True)
class Scenario:
    """Two edits of one facet; the call of the first lands late. ``value`` reads the CRM's side."""

    operation: str
    first: str
    second: str
    value: Callable[[Circle, Relation], Any]
    old: Any
    new: Any


def _field_value(c: Circle, relation: Relation) -> Any:
    return relation.fields.get(next(f.code for f in c.sandbox.world.fields.values() if f.id == _field(c)))


def _field(c: Circle) -> int:
    return next(f.id for f in c.sandbox.world.fields.values() if "_FF" in f.code and f.type not in ("boolean", "list"))


SCENARIOS = {
    "tag": Scenario(
        "tag_add",
        "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)",
        "DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 301",
        lambda c, r: TAG in r.tags,
        True,
        False,
    ),
    "field": Scenario(
        "field_set",
        "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (:who, :field, 'old')",
        "UPDATE crm.relation_fields SET value = 'new' WHERE relation_id = :who AND field_id = :field",
        _field_value,
        "old",
        "new",
    ),
    "group": Scenario(
        "group_add",
        "INSERT INTO crm.group_members (relation_id, group_id) VALUES (:who, :group)",
        "DELETE FROM crm.group_members WHERE relation_id = :who AND group_id = :group",
        lambda c, r: _group(c) in r.groups,
        True,
        False,
    ),
    "profile": Scenario(
        "relation_upsert",
        "UPDATE crm.relations SET first_name = 'Oud' WHERE id = :who",
        "UPDATE crm.relations SET first_name = 'Nieuw', last_name = 'Ander' WHERE id = :who",
        lambda c, r: r.first_name,
        "Oud",
        "Nieuw",
    ),
    "e-mail": Scenario(
        "relation_email",
        "UPDATE crm.relations SET email = 'old@x.example' WHERE id = :who",
        "UPDATE crm.relations SET email = 'new@x.example' WHERE id = :who",
        lambda c, r: r.email,
        "old@x.example",
        "new@x.example",
    ),
}


@pytest.fixture(params=SCENARIOS.values(), ids=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return request.param


def _who(c: Circle) -> Relation:
    return next(iter(c.sandbox.world.relations.values()))


def _group(c: Circle) -> int:
    return next(iter(c.sandbox.world.groups))


async def _edit(c: Circle, sql: str) -> None:
    given = {"who": _who(c).id, "field": _field(c), "group": _group(c)}
    await c.edit(sql, **{name: value for name, value in given.items() if f":{name}" in sql})


def _bare(c: Circle) -> None:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()
        for group in list(relation.groups):
            c.sandbox.world.leave(relation, group)


def _now(c: Circle) -> Relation:
    return c.sandbox.world.relations[_who(c).id]


async def _doubtful_then_newer(c: Circle, scenario: Scenario, window_s: float) -> None:
    """Deliver the first value by its second try, then the newer one; then the first try arrives."""
    _bare(c)
    c.sandbox.faults.add("late", operation=scenario.operation)
    await _edit(c, scenario.first)
    report = await c.drain(settle_window_s=window_s)
    assert (report.is_empty, report.reasserting) == (True, int(window_s > 0))
    await _edit(c, scenario.second)
    assert (await c.drain(settle_window_s=window_s)).is_empty
    assert scenario.value(c, _now(c)) == scenario.new
    assert c.sandbox.land() == 1
    assert scenario.value(c, _now(c)) == scenario.old, "the late request lands after the newer value"


async def test_without_reassertion_a_late_request_undoes_a_newer_value(store: Store, scenario: Scenario) -> None:
    """The witness: this is what happens when the settle window is switched off."""
    async with circle(store) as c:
        await _doubtful_then_newer(c, scenario, 0.0)
        await c.wake()
        assert (await c.drain(settle_window_s=0.0)).delivered == 0
        assert scenario.value(c, _now(c)) == scenario.old


async def test_with_reassertion_the_last_value_stands(store: Store, scenario: Scenario) -> None:
    """Once the settle window is over the last delivered value is said once more, and once only."""
    async with circle(store) as c:
        await _doubtful_then_newer(c, scenario, WINDOW_S)
        await c.wake()
        report = await c.drain(settle_window_s=WINDOW_S)
        assert scenario.value(c, _now(c)) == scenario.new
        assert (report.delivered, report.reasserting) == (1, 0)
        statuses = [e["status"] for e in await c.entries()]
        assert set(statuses) <= {"accepted", "verified"}
        assert len(statuses) == 3, "one reassertion, whatever was delivered inside its window"
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).requests == 0, (
            "a plainly delivered reassertion ends the matter"
        )


async def test_a_value_delivered_after_the_window_needs_no_reassertion(store: Store, scenario: Scenario) -> None:
    """It is itself what is said last."""
    async with circle(store) as c:
        _bare(c)
        c.sandbox.faults.add("late", operation=scenario.operation)
        await _edit(c, scenario.first)
        await c.drain()
        await _edit(c, scenario.second)
        await c.wake()
        report = await c.drain()
        assert (report.delivered, report.reasserting) == (1, 0)
        assert scenario.value(c, _now(c)) == scenario.new
        assert [e["status"] for e in await c.entries() if e["reasserts"]] == ["superseded"]


async def test_a_reassertion_whose_own_answer_is_lost_is_followed_by_another(store: Store) -> None:
    """Its first try may land late as well; the chain ends with the first plain delivery."""
    async with circle(store) as c:
        await _doubtful_then_newer(c, SCENARIOS["field"], WINDOW_S)
        c.sandbox.faults.add("late", operation="field_set")
        await c.wake()
        report = await c.drain()
        assert (report.delivered, report.reasserting) == (1, 1)
        await _edit(c, "UPDATE crm.relation_fields SET value = 'newest' WHERE relation_id = :who AND field_id = :field")
        await c.drain()
        c.sandbox.land()
        assert _field_value(c, _now(c)) == "new"
        await c.wake()
        report = await c.drain()
        assert (report.delivered, report.reasserting) == (1, 0)
        assert _field_value(c, _now(c)) == "newest"
        roots = {e["reasserts"] for e in await c.entries() if e["reasserts"]}
        assert len(roots) == 1, "all of them are about the one call that was in doubt first"


async def test_a_create_in_doubt_says_its_profile_again(store: Store) -> None:
    """The late upsert of the same address makes no second relation; it puts the old name back."""
    async with circle(store) as c:
        c.sandbox.faults.add("late", operation="relation_upsert")
        await c.edit(
            "INSERT INTO crm.relations (account_id, email, first_name) VALUES (:account_id, 'new@x.example', 'Oud')"
        )
        assert (await c.drain()).reasserting == 1
        await c.edit("UPDATE crm.relations SET first_name = 'Nieuw' WHERE email = 'new@x.example'")
        await c.drain()
        c.sandbox.land()
        there = c.sandbox.world.relation("new@x.example")
        assert there is not None
        assert there.first_name == "Oud"
        await c.wake()
        await c.drain()
        there = c.sandbox.world.relation("new@x.example")
        assert there is not None
        assert there.first_name == "Nieuw"


async def test_an_address_does_not_change_under_a_call_that_may_still_land(store: Store) -> None:
    """The CRM finds by address: a late upsert under the old one would make a relation that nobody asked for."""
    async with circle(store) as c:
        there = len(c.sandbox.world.relations)
        c.sandbox.faults.add("late", operation="relation_upsert")
        await _edit(c, "UPDATE crm.relations SET first_name = 'Nieuw' WHERE id = :who")
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        await _edit(c, "UPDATE crm.relations SET email = 'moved@x.example' WHERE id = :who")
        report = await c.drain(settle_window_s=WINDOW_S)
        assert (report.delivered, report.pending) == (0, 1)
        assert c.sandbox.land() == 1
        await c.wake()
        await c.drain(settle_window_s=WINDOW_S)
        moved = c.sandbox.world.relation("moved@x.example")
        assert moved is not None
        assert moved.first_name == "Nieuw"
        assert len(c.sandbox.world.relations) == there


_NO_PATIENCE = {"backoff_s": 3600.0, "backoff_max_s": 3600.0, "patience_s": 0.0}
_RENAME = "UPDATE crm.relations SET first_name = 'Nieuw' WHERE id = :who"
_MOVE = "UPDATE crm.relations SET email = 'moved@x.example' WHERE id = :who"


async def _moves_once_all_has_landed(c: Circle, there: int) -> None:
    """Let the window pass, and the address follow, to the one relation that there was."""
    await c.sandbox.journal.until(lambda j: len(j.of("relation.changed")) >= 1)
    for _ in range(2):
        await c.wake()
        await c.drain(settle_window_s=WINDOW_S)
    moved = c.sandbox.world.relation("moved@x.example")
    assert moved is not None
    assert moved.first_name == "Nieuw"
    assert len(c.sandbox.world.relations) == there


@pytest.mark.parametrize("fate", ["backing off", "refused"])
async def test_an_address_does_not_change_under_an_edit_that_was_not_delivered_and_may_land(
    store: Store, fate: str
) -> None:
    """No delivery, no reassertion that waits: the entry itself says how long its first try may still land."""
    async with circle(store) as c:
        there, given = len(c.sandbox.world.relations), {} if fate == "refused" else _NO_PATIENCE
        c.sandbox.faults.add("late", operation="relation_upsert")
        if fate == "refused":
            c.sandbox.faults.add("false", operation="relation_upsert")
        await _edit(c, _RENAME)
        report = await c.drain(settle_window_s=WINDOW_S, **given)
        assert (report.delivered, report.reasserting) == (0, 0)
        await _edit(c, _MOVE)
        assert (await c.drain(settle_window_s=WINDOW_S, **given)).pending == 1 + (fate == "backing off")
        assert c.sandbox.requests.by_operation["relation_email"] == 0
        assert c.sandbox.land() == 1
        await _moves_once_all_has_landed(c, there)


async def test_an_address_does_not_change_under_an_edit_that_a_dead_drainer_may_have_sent(store: Store) -> None:
    """Nobody has its answer. It is sent again and refused; what the dead one sent is still on its way."""
    async with circle(store) as c:
        there = len(c.sandbox.world.relations)
        await _edit(c, _RENAME)
        await _send_and_die(c, "hold", "relation_upsert")
        c.sandbox.faults.add("false", operation="relation_upsert")
        await _edit(c, _MOVE)
        for _ in range(2):
            await run_sql(c.store, "UPDATE syncd.lanes SET ready_at = now()")
            assert (await c.drain(settle_window_s=WINDOW_S)).pending == 1
        assert c.sandbox.requests.by_operation["relation_email"] == 0
        assert c.sandbox.release() == 1
        await _moves_once_all_has_landed(c, there)


async def test_an_address_does_not_change_under_a_create_that_may_still_land(store: Store) -> None:
    """There is no profile to be said again; the address alone would make a second relation."""
    async with circle(store) as c:
        there = len(c.sandbox.world.relations)
        c.sandbox.faults.add("late", operation="relation_upsert")
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'new@x.example')")
        report = await c.drain(settle_window_s=WINDOW_S)
        assert (report.delivered, report.reasserting) == (1, 0)
        await c.edit("UPDATE crm.relations SET email = 'moved@x.example' WHERE email = 'new@x.example'")
        assert (await c.drain(settle_window_s=WINDOW_S)).pending == 1
        assert c.sandbox.land() == 1
        await c.wake()
        asked = c.sandbox.requests.by_operation["relation_upsert"]
        assert (await c.drain(settle_window_s=WINDOW_S)).is_empty
        assert c.sandbox.requests.by_operation["relation_upsert"] == asked, "it has nothing to say"
        assert c.sandbox.world.relation("moved@x.example") is not None
        assert len(c.sandbox.world.relations) == there + 1


async def test_an_address_does_not_change_under_a_late_call_however_long_the_lane(store: Store) -> None:
    """What says the value again stands at the lane's end, where a claim of its head does not see it."""
    async with circle(store) as c:
        c.sandbox.faults.add("late", operation="relation_upsert")
        await _edit(c, _RENAME)
        await _edit(c, _MOVE)
        for number in range(5):
            await _edit(c, f"UPDATE crm.relation_fields SET value = '{number}' WHERE relation_id = :who AND :field > 0")
            await _edit(c, SCENARIOS["tag"].first if number % 2 == 0 else SCENARIOS["tag"].second)
        assert (await c.drain(settle_window_s=WINDOW_S, window=1)).pending > 0
        assert c.sandbox.requests.by_operation["relation_email"] == 0
        assert (await c.drain(settle_window_s=WINDOW_S, window=1)).pending > 0
        assert c.sandbox.requests.by_operation["relation_email"] == 0


async def test_an_address_does_not_change_under_a_late_call_that_was_given_up(store: Store) -> None:
    """A person gave it up; that does not call it back."""
    async with circle(store) as c:
        there = len(c.sandbox.world.relations)
        await _put_off_and_given_up(c, SCENARIOS["profile"])
        await _edit(c, _MOVE)
        assert (await c.drain(settle_window_s=WINDOW_S)).pending == 1
        assert c.sandbox.land() == 1
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).is_empty
        assert c.sandbox.world.relation("moved@x.example") is not None
        assert len(c.sandbox.world.relations) == there


async def test_a_profile_is_not_edited_while_its_address_may_still_change(store: Store) -> None:
    """The edit looks the address up and goes out under it: a late change in between, and it makes a relation."""
    async with circle(store) as c:
        c.sandbox.faults.add("late", operation="relation_email")
        await _edit(c, SCENARIOS["e-mail"].first)
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        await _edit(c, _RENAME)
        await _edit(c, SCENARIOS["tag"].first)
        report = await c.drain(settle_window_s=WINDOW_S)
        assert (report.delivered, report.pending) == (1, 1), "only what finds by address waits"
        assert c.sandbox.requests.by_operation["relation_upsert"] == 0
        c.sandbox.land()
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).is_empty
        assert _now(c).first_name == "Nieuw"


async def test_an_address_that_is_said_again_and_a_profile_edit_are_never_under_way_together(store: Store) -> None:
    """The edit would go out by the address that a late call put back; landing behind the right one, it makes another
    relation."""
    async with circle(store) as c:
        there = len(c.sandbox.world.relations)
        c.sandbox.faults.add("late", operation="relation_email")
        await _edit(c, SCENARIOS["e-mail"].first)
        await _edit(c, SCENARIOS["e-mail"].second)
        await _edit(c, _RENAME)
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        assert c.sandbox.land() == 1
        assert _now(c).email == "old@x.example", "the late request lands after the newer address"
        await c.wake()
        c.sandbox.faults.add("late", operation="relation_upsert")
        await c.drain(settle_window_s=WINDOW_S)
        assert c.sandbox.land() == 1
        assert len(c.sandbox.world.relations) == there
        assert (_now(c).email, _now(c).first_name) == ("new@x.example", "Nieuw")


async def test_an_address_does_not_change_under_a_create_that_a_person_said_was_not_made(store: Store) -> None:
    """Nobody can look at what is still on its way."""
    async with circle(store) as c:
        there = len(c.sandbox.world.relations)
        c.sandbox.faults.add("late", operation="relation_upsert")
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'new@x.example')")
        assert (await c.drain(settle_window_s=WINDOW_S, max_attempts=1)).parked == 1
        (create,) = await c.entries()
        async with store.begin() as connection:
            await retry_entry(connection, create["id"], as_new=True)
        assert (await c.drain(settle_window_s=WINDOW_S)).delivered == 1
        await c.edit("UPDATE crm.relations SET email = 'moved@x.example' WHERE email = 'new@x.example'")
        assert (await c.drain(settle_window_s=WINDOW_S)).pending == 1
        assert c.sandbox.land() == 1
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).is_empty
        assert c.sandbox.world.relation("moved@x.example") is not None
        assert len(c.sandbox.world.relations) == there + 1


async def test_a_late_call_that_is_seen_in_place_of_the_newer_value_leaves_nobody_to_ask(store: Store) -> None:
    """It lands between a call and the look at what came of it: the value is shown otherwise, then said once more."""
    async with circle(store, options=ProviderOptions(allowed_operations=GUARDED, verify_writes=True)) as c:
        c.sandbox.faults.add("late", operation="relation_email")
        await _edit(c, SCENARIOS["e-mail"].first)
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        c.sandbox.faults.add("hold", operation="relation_by_id", nth=2)
        await _edit(c, SCENARIOS["e-mail"].second)
        draining = asyncio.create_task(c.drain(settle_window_s=WINDOW_S))
        await c.sandbox.until_held()
        assert c.sandbox.land() == 1
        c.sandbox.release()
        assert (await draining).delivered == 1
        assert (await c.entries())[-1]["status"] == "diverged"
        await c.wake()
        await c.drain(settle_window_s=WINDOW_S)
        assert _now(c).email == "new@x.example"
        async with store.begin() as connection:
            assert await list_incidents(connection) == ()
        assert [e["status"] for e in await c.entries()] == ["verified", "verified", "superseded"]


async def test_what_was_settled_by_a_reassertion_in_doubt_is_what_the_next_one_says(store: Store) -> None:
    """The newest value was shown otherwise and is settled by the first; an older one must not come back by the next."""
    async with circle(store, options=ProviderOptions(allowed_operations=GUARDED, verify_writes=True)) as c:
        c.sandbox.faults.add("late", operation="relation_email")
        await _edit(c, SCENARIOS["e-mail"].first)
        await _edit(c, "UPDATE crm.relations SET email = 'between@x.example' WHERE id = :who")
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        c.sandbox.faults.add("hold", operation="relation_by_id", nth=2)
        await _edit(c, SCENARIOS["e-mail"].second)
        draining = asyncio.create_task(c.drain(settle_window_s=WINDOW_S))
        await c.sandbox.until_held()
        assert c.sandbox.land() == 1
        c.sandbox.release()
        assert (await draining).delivered == 1
        assert (await c.entries())[-1]["status"] == "diverged"
        await c.wake()
        c.sandbox.faults.add("lost_answer", operation="relation_email")
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        assert _now(c).email == "new@x.example"
        await c.wake()
        await c.drain(settle_window_s=WINDOW_S)
        assert _now(c).email == "new@x.example"


async def test_an_address_that_stands_is_not_sent_again(store: Store) -> None:
    """Reading back first: changing an address may mail somebody."""
    async with circle(store) as c:
        c.sandbox.faults.add("lost_answer", operation="relation_email")
        await _edit(c, "UPDATE crm.relations SET email = 'new@x.example' WHERE id = :who")
        await c.drain()
        asked = c.sandbox.requests.by_operation["relation_email"]
        await c.wake()
        assert (await c.drain()).delivered == 1
        assert c.sandbox.requests.by_operation["relation_email"] == asked
        assert [e["status"] for e in await c.entries()] == ["verified", "verified"]


async def test_columns_of_two_doubtful_edits_are_said_again_together(store: Store) -> None:
    """One reassertion per facet, whatever happened to it."""
    async with circle(store) as c:
        for column in ("first_name", "last_name"):
            c.sandbox.faults.add("late", operation="relation_upsert")
            await _edit(c, f"UPDATE crm.relations SET {column} = 'Oud' WHERE id = :who")
            assert (await c.drain()).reasserting == 1
        await _edit(c, "UPDATE crm.relations SET first_name = 'Nieuw', last_name = 'Nieuw' WHERE id = :who")
        await c.drain()
        assert c.sandbox.land() == 2
        assert (_now(c).first_name, _now(c).last_name) == ("Oud", "Oud")
        await c.wake()
        assert (await c.drain()).delivered == 1
        assert (_now(c).first_name, _now(c).last_name) == ("Nieuw", "Nieuw")


async def test_what_a_killed_drainer_may_have_sent_is_said_again(store: Store) -> None:
    """Its connection is gone, its request may be on the way: a lost lease is a doubt like any other."""
    async with circle(store) as c:
        _bare(c)
        c.sandbox.faults.add("hold", operation="tag_add")
        await _edit(c, SCENARIOS["tag"].first)
        task = asyncio.create_task(c.drainer().run(asyncio.Event()))
        await c.sandbox.until_held()
        task.cancel()
        await asyncio.wait([task])
        await c.wake()
        assert (await c.drain()).reasserting == 1
        await _edit(c, SCENARIOS["tag"].second)
        await c.drain()
        c.sandbox.release()
        await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 2)
        await c.wake()
        assert (await c.drain()).delivered == 1
        assert TAG not in _now(c).tags


async def test_a_refused_reassertion_is_shown_and_blocks_nobody(store: Store) -> None:
    """The tag was deleted meanwhile: a person should know, and the relation goes on."""
    async with circle(store) as c:
        await _doubtful_then_newer(c, SCENARIOS["e-mail"], WINDOW_S)
        c.sandbox.world.add_relation("taken@x.example")
        c.sandbox.faults.add("error", operation="relation_email")
        await c.wake()
        report = await c.drain()
        assert (report.dead, report.blocked, report.pending) == (1, 1, 0)
        await _edit(c, "UPDATE crm.relations SET first_name = 'Ander' WHERE id = :who")
        await _edit(c, "UPDATE crm.relations SET email = 'third@x.example' WHERE id = :who")
        report = await c.drain()
        assert (report.delivered, report.blocked) == (2, 0)
        assert _now(c).email == "third@x.example"


async def test_a_newer_value_that_is_refused_takes_no_reassertion_with_it(store: Store) -> None:
    """It carried the reassertion's turn, and changed nothing: the value before it still has to be said once more."""
    async with circle(store) as c:
        _bare(c)
        c.sandbox.faults.add("late", operation="tag_add")
        await _edit(c, SCENARIOS["tag"].first)
        await c.drain()
        c.sandbox.world.untag(_now(c), TAG)
        c.sandbox.faults.add("error", operation="tag_remove")
        await _edit(c, SCENARIOS["tag"].second)
        await c.wake()
        report = await c.drain()
        assert (report.dead, report.delivered, report.reasserting) == (1, 1, 0)
        assert TAG in _now(c).tags


async def _doubtful_and_put_off(c: Circle, sql: str) -> None:
    """Send a value once; the request is still on its way, and the entry waits for its next try."""
    c.sandbox.faults.add("late", operation="field_set")
    await _edit(c, sql)
    report = await c.drain(settle_window_s=WINDOW_S, backoff_s=3600.0, backoff_max_s=3600.0, patience_s=0.0)
    assert (report.retried, report.pending) == (1, 1)


async def test_a_doubt_passes_on_to_the_refused_value_that_took_its_place(store: Store) -> None:
    """The first value may still land, the second was refused in its place: the third has to be said once more."""
    async with circle(store) as c:
        await _doubtful_and_put_off(c, SCENARIOS["field"].first)
        c.sandbox.faults.add("false", operation="field_set")
        await _edit(c, SCENARIOS["field"].second)
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).dead == 1
        await _newest_stands(c)


async def test_a_doubt_outlives_a_barrier_that_waits_for_a_person(store: Store) -> None:
    """What was given up before it is not folded across it, and may land after what is delivered behind it."""
    async with circle(store) as c:
        await _doubtful_and_put_off(c, SCENARIOS["field"].first)
        for operation in ("field_set", "list_subscribe"):
            c.sandbox.faults.add("false", operation=operation)
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).dead == 1
        await _subscribe(c)
        assert (await c.drain(settle_window_s=WINDOW_S)).dead == 1
        await _newest_stands(c)
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).requests == 0, "once more is enough"


async def _newest_stands(c: Circle) -> None:
    """Deliver a third value, let the first land after it, and wait the settle window out."""
    await _edit(c, "UPDATE crm.relation_fields SET value = 'newest' WHERE relation_id = :who AND field_id = :field")
    assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
    assert c.sandbox.land() == 1
    assert _field_value(c, _now(c)) == "old"
    await c.wake()
    await c.drain(settle_window_s=WINDOW_S)
    assert _field_value(c, _now(c)) == "newest"


async def test_an_old_value_is_not_said_again_before_a_newer_one_that_a_retried_call_holds_up(store: Store) -> None:
    """The newer one went past a refused subscription, and its answer was lost. Retried, the subscription stands before
    it; the old value, due again, must not be said first: it would undo what the CRM has."""
    async with circle(store) as c:
        c.sandbox.faults.add("late", operation="field_set")
        await _edit(c, SCENARIOS["field"].first)
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        c.sandbox.faults.add("false", operation="list_subscribe")
        await _subscribe(c)
        assert (await c.drain(settle_window_s=WINDOW_S)).dead == 1
        await _edit(c, SCENARIOS["field"].second)
        await _send_and_die(c, "hold_answer")
        async with store.begin() as connection:
            await retry_entry(connection, next(e["id"] for e in await c.entries() if e["status"] == "dead"))
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).is_empty
        assert [effect.after for effect in c.sandbox.journal.of("field.set")] == ["old", "new"]
        c.sandbox.land()
        await c.wake()
        await c.drain(settle_window_s=WINDOW_S)
        assert _field_value(c, _now(c)) == "new"


async def _put_off_and_given_up(c: Circle, scenario: Scenario) -> None:
    """Send the first value once; a person gives it up while the request is still on its way."""
    _bare(c)
    c.sandbox.faults.add("late", operation=scenario.operation)
    await _edit(c, scenario.first)
    report = await c.drain(settle_window_s=WINDOW_S, backoff_s=3600.0, backoff_max_s=3600.0, patience_s=0.0)
    assert report.pending == 1
    await _skip(c)


async def test_a_value_that_was_given_up_may_land_and_does_not_stay(store: Store, scenario: Scenario) -> None:
    """Skipped is not undone: it may land behind whatever is delivered next, and that is said once more."""
    async with circle(store) as c:
        await _put_off_and_given_up(c, scenario)
        await _edit(c, scenario.second)
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        assert c.sandbox.land() == 1
        assert scenario.value(c, _now(c)) == scenario.old
        await c.wake()
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 0
        assert scenario.value(c, _now(c)) == scenario.new


async def test_a_value_that_was_given_up_is_never_said_again_itself(store: Store, scenario: Scenario) -> None:
    """Where nothing followed it there is nothing to say: the matter ends by itself, and a retry is not in its way."""
    async with circle(store) as c:
        await _put_off_and_given_up(c, scenario)
        await c.wake()
        report = await c.drain(settle_window_s=WINDOW_S)
        assert (report.requests, report.reasserting, report.is_empty) == (0, 0, True)
        assert [e["status"] for e in await c.entries()] == ["skipped", "superseded"]


async def test_a_value_that_was_given_up_in_mid_sending_may_land_and_does_not_stay(store: Store) -> None:
    """Nobody has the answer of a drainer that died; the intent that it left tells of its request."""
    async with circle(store) as c:
        await _edit(c, SCENARIOS["field"].first)
        await _send_and_die(c, "hold")
        await c.wake()
        await _skip(c)
        await _edit(c, "UPDATE crm.relation_fields SET value = 'newest' WHERE relation_id = :who AND field_id = :field")
        assert (await c.drain(settle_window_s=WINDOW_S)).reasserting == 1
        c.sandbox.release()
        await c.sandbox.journal.until(lambda j: len(j.of("field.set")) == 2)
        assert _field_value(c, _now(c)) == "old"
        await c.wake()
        await c.drain(settle_window_s=WINDOW_S)
        assert _field_value(c, _now(c)) == "newest"


async def _skip(c: Circle) -> None:
    async with c.store.begin() as connection:
        await skip_entry(connection, (await c.entries())[0]["id"], settle_window_s=WINDOW_S)


async def _send_and_die(c: Circle, fault: str, operation: str = "field_set") -> None:
    """Let a drainer be killed while a call of its is on the way (``hold``) or its answer (``hold_answer``)."""
    c.sandbox.faults.add(fault, operation=operation)
    task = asyncio.create_task(c.drainer(settle_window_s=WINDOW_S).run(asyncio.Event()))
    await c.sandbox.until_held()
    task.cancel()
    await asyncio.wait([task])


async def _subscribe(c: Circle) -> None:
    number = str(next(iter(c.sandbox.world.lists)))
    sql = "SELECT crm.subscribe(email, CAST(:list AS text)) FROM crm.relations WHERE id = :who"
    await c.edit(sql, who=_who(c).id, list=number)


async def test_no_reassertion_follows_a_plain_delivery(store: Store) -> None:
    """A 503 was answered: whatever it was, it is over."""
    async with circle(store) as c:
        _bare(c)
        c.sandbox.faults.add("status", operation="tag_add", status=503)
        await _edit(c, SCENARIOS["tag"].first)
        assert (await c.drain()).reasserting == 0
        c.sandbox.faults.add("html", operation="tag_remove", status=504)
        await _edit(c, SCENARIOS["tag"].second)
        assert (await c.drain()).reasserting == 1, "a gateway gave up on a server that may be at work still"


async def test_a_pull_leaves_the_mirror_alone_while_a_reassertion_waits(store: Store) -> None:
    """The late value in the CRM is not news; it is about to be put right."""
    async with circle(store) as c:
        await _doubtful_then_newer(c, SCENARIOS["profile"], WINDOW_S)
        assert (await c.pull("relation_details")).is_success
        assert await rows(store, "SELECT first_name FROM crm.relations WHERE id = :who", who=_who(c).id) == [
            {"first_name": "Nieuw"}
        ]
        await c.wake()
        await c.drain()
        assert (await c.pull("relation_details")).is_success
        assert _now(c).first_name == "Nieuw"
