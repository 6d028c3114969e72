"""Explain: the chain of a local change from its transaction to its proof, and who is meant by what is typed."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.domain.account import Account
from syncd.policy.facet_choice import Choice, NamedFacet
from syncd.store import Store
from syncd.store.explain import read_edit
from syncd.store.explain_find import (
    RelationFound,
    find_by_former_address,
    find_entry,
    find_relations,
    named_facets,
    near_addresses,
)
from syncd.store.explain_story import Story, read_story
from tests.support.claims import account_with, changed, claimed_one, delivered, entry_of, failed, settled
from tests.support.lanes import add, create, email, field, profile, remove
from tests.support.outbox import new_account, remote_sql, rows, run_sql, stage_all


async def _find(store: Store, key: str, account: str | None = None) -> tuple[RelationFound, ...]:
    async with store.begin() as connection:
        return await find_relations(connection, key, account)


async def _story(store: Store, relation_id: int, *facets: str, column: str | None = None, most: int = 100) -> Story:
    chosen = Choice(facets, column) if facets or column else None
    async with store.begin() as connection:
        (relation,) = await find_relations(connection, f"id:{relation_id}", None)
        return await read_story(connection, relation, chosen, most=most)


async def test_a_relation_is_found_by_address_local_and_remote_id(store: Store) -> None:
    """Whatever the operator has at hand; a bare number is ours before it is the CRM's."""
    account = await account_with(store, 3)
    await remote_sql(store, "UPDATE crm.relations SET remote_id = '100002' WHERE id = 2")
    await remote_sql(store, "UPDATE crm.relations SET remote_id = '2' WHERE id = 3")
    assert [found.id for found in await _find(store, "1@X.example")] == [1]
    assert [found.id for found in await _find(store, "2")] == [2]
    assert [found.id for found in await _find(store, "id:2")] == [2]
    assert [found.id for found in await _find(store, "remote:2")] == [3]
    assert [found.id for found in await _find(store, "100002")] == [2]
    assert [found.id for found in await _find(store, "1@x.example", account.name)] == [1]
    for key in ("nobody@x.example", "9" * 30, "id:x", "id:", "remote:", "²"):
        assert await _find(store, key) == ()
    assert await _find(store, "1@x.example", "other") == ()


async def test_an_address_that_two_accounts_know_finds_both(store: Store) -> None:
    """The command asks which; it must not pick one."""
    await account_with(store, 1)
    other = await new_account(store, "other")
    await remote_sql(
        store,
        "INSERT INTO crm.relations (id, account_id, remote_id, email) VALUES (9, :a, '7', '1@x.example')",
        a=other.id,
    )
    assert {found.account for found in await _find(store, "1@x.example")} == {"default", "other"}


async def _find_former(store: Store, address: str, account: str | None = None) -> list[int]:
    async with store.begin() as connection:
        return [found.id for found in await find_by_former_address(connection, address, account)]


async def test_a_relation_is_found_by_an_address_that_it_had(store: Store) -> None:
    """Customers name the address that they wrote from: it is known while the change away from it is captured, waits,
    or was given up."""
    account = await account_with(store, 3)
    await run_sql(store, "UPDATE crm.relations SET email = 'new@x.example' WHERE id = 1")
    assert await _find_former(store, "1@X.example") == [1]
    await stage_all(store)
    await run_sql(store, "DELETE FROM syncd.changes")
    for status in ("pending", "dead", "skipped"):
        await run_sql(store, "UPDATE syncd.entries SET status = :status", status=status)
        assert await _find_former(store, "1@X.example") == [1]
    assert await _find_former(store, "1@x.example", account.name) == [1]
    assert await _find_former(store, "1@x.example", "other") == []
    assert await _find_former(store, "new@x.example") == []


async def test_a_relation_found_by_a_former_address_shows_its_record_without_secrets(store: Store) -> None:
    """Whichever way it is found, what its record holds of keys and passwords is nobody's business."""
    await account_with(store, 1)
    await remote_sql(store, """UPDATE crm.relations SET raw = '{"password": "hunter2"}' WHERE id = 1""")
    await run_sql(store, "UPDATE crm.relations SET email = 'new@x.example' WHERE id = 1")
    async with store.begin() as connection:
        (former,) = await find_by_former_address(connection, "1@x.example", None)
    (now,) = await _find(store, "new@x.example")
    assert former.answer == now.answer == '{"password": "<redacted>"}'


async def test_a_delivered_address_change_is_found_in_the_history(store: Store) -> None:
    """The outbox forgets what was delivered; the history of relations is kept by a setting of its own."""
    account = await account_with(store, 3)
    await run_sql(store, "UPDATE crm.relations SET email = 'new@x.example' WHERE id = 1")
    await stage_all(store)
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "DELETE FROM syncd.entries")
    assert await _find_former(store, "1@x.example") == [1]


async def test_several_that_had_an_address_are_all_found(store: Store) -> None:
    """An address of a whole family goes round; the command asks which."""
    await account_with(store, 3)
    await run_sql(store, "UPDATE crm.relations SET email = 'a@x.example' WHERE id = 1")
    await run_sql(store, "UPDATE crm.relations SET email = '1@x.example' WHERE id = 2")
    await stage_all(store)
    await run_sql(store, "UPDATE crm.relations SET email = 'b@x.example' WHERE id = 2")
    assert await _find_former(store, "1@x.example") == [1, 2]
    assert await _find_former(store, "2@x.example") == [2]


async def test_a_mistyped_address_has_neighbours(store: Store) -> None:
    """One line that mends the typing error; wildcards in it are no wildcards."""
    account = await new_account(store)
    for address in ("jan.jansen@post.example", "Joke@post.example", "piet@elders.example"):
        await remote_sql(
            store,
            "INSERT INTO crm.relations (account_id, remote_id, email) VALUES (:a, :e, :e)",
            a=account.id,
            e=address,
        )
    async with store.begin() as connection:
        assert await near_addresses(connection, "jan.janssen@post.example", None) == ("jan.jansen@post.example",)
        assert await near_addresses(connection, "%_", None) == ()
        assert await near_addresses(connection, "qq@nowhere.example", None) == ()


async def test_the_chain_of_a_change_is_told_whole(store: Store) -> None:
    """Transaction, actor, reason, entry, tries, decision, end: what support asks for when a customer calls."""
    account = await account_with(store)
    async with store.begin() as connection:
        await connection.exec_driver_sql("SELECT crm.set_actor('shop', 'import 12')")
        xact = (await connection.exec_driver_sql("SELECT pg_current_xact_id()::text")).scalar_one()
        await connection.exec_driver_sql("UPDATE crm.relations SET last_name = 'Nieuw' WHERE id = 1")
    await stage_all(store)
    await settled(store, account, _tried(failed(await claimed_one(store, account), "dead"), "retryable"))
    entry_id = (await entry_of(store, 1))["id"]
    await run_sql(store, "UPDATE syncd.entries SET status = 'pending'")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    await _decided(store, account, entry_id)
    await settled(store, account, delivered(await claimed_one(store, account)))
    (edit,) = (await _story(store, 1, "profile")).edits
    assert (edit.id, edit.actor, edit.reason, edit.xact) == (entry_id, "shop", "import 12", xact)
    assert [(attempt.outcome) for attempt in edit.tries] == ["retryable", "accepted"]
    assert [(decision.verb, decision.actor) for decision in edit.decisions] == [("retry", "joost")]
    assert edit.status == "accepted"
    assert edit.staged_at is not None
    assert edit.settled_at is not None


def _tried(settlement: Any, outcome: str) -> Any:
    from datetime import UTC, datetime

    from syncd.store.outbox import AttemptRow

    (row,) = [entry.seq for entry in settlement.entries]
    settlement.attempts.append(AttemptRow(row, "update_profile", datetime.now(UTC), 0.1, 1, 503, outcome, "503"))
    return settlement


async def _decided(store: Store, account: Account, entry_id: int) -> None:
    await run_sql(
        store,
        "INSERT INTO syncd.decisions (account_id, verb, entry_id, actor) VALUES (:a, 'retry', :e, 'joost')",
        a=account.id,
        e=entry_id,
    )


async def test_a_hold_and_its_decision_belong_to_each_entry_it_held(store: Store) -> None:
    """Why it waited an hour, and who let it go."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await run_sql(store, "INSERT INTO syncd.holds (account_id, reason) VALUES (:a, 'a burst')", a=account.id)
    await run_sql(store, "UPDATE syncd.entries SET status = 'held', hold_id = (SELECT max(id) FROM syncd.holds)")
    await run_sql(
        store,
        "INSERT INTO syncd.decisions (account_id, verb, hold_id, actor) "
        "SELECT :a, 'approve', max(id), 'joost' FROM syncd.holds",
        a=account.id,
    )
    (edit,) = (await _story(store, 1)).edits
    assert edit.hold is not None
    assert edit.hold.reason == "a burst"
    assert [(decision.verb, decision.hold_id) for decision in edit.decisions] == [("approve", edit.hold.id)]


async def test_a_facet_tells_its_own_changes_alone(store: Store) -> None:
    """One tag's story is not that of the whole relation; one column's is not that of the profile."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), profile(last_name="a"), add(2), profile(first_name="b"), remove(1))
    assert [edit.operation for edit in (await _story(store, 1, "tag:1")).edits] == ["add_tag", "remove_tag"]
    named = await _story(store, 1, "profile", "identity", column="last_name")
    assert [edit.seq for edit in named.edits] == [2]
    assert [value.name for value in named.values] == ["last_name"]
    assert len((await _story(store, 1)).edits) == 5


async def test_an_edit_that_is_not_staged_is_part_of_the_story_and_protects_its_value(store: Store) -> None:
    """The newest edit is what people ask about, and why a pull did not overwrite it."""
    account = await account_with(store)
    await run_sql(store, "UPDATE crm.relations SET last_name = 'Nu' WHERE id = 1")
    story = await _story(store, 1)
    (edit,) = story.edits
    assert (edit.status, edit.id, edit.seq) == ("captured", None, None)
    protected = {value.name: value.protected_by for value in story.values if value.protected_by}
    assert protected == {"last_name": (f"capture {edit.capture_id}",)}
    await stage_all(store)
    await settled(store, account, delivered(await claimed_one(store, account)))
    after = await _story(store, 1)
    (value,) = [value for value in after.values if value.name == "last_name"]
    assert (value.protected_by, value.origin, value.entry_id) == ((), "local", after.edits[0].id)


async def test_only_the_newest_are_read_of_a_long_story(store: Store) -> None:
    """A relation with fifty thousand edits is explained in a second too."""
    account = await account_with(store)
    await changed(store, account, 1, *[field(str(number)) for number in range(30)])
    assert [edit.seq for edit in (await _story(store, 1, most=5)).edits] == [26, 27, 28, 29, 30]


async def test_one_entry_comes_with_what_it_superseded(store: Store) -> None:
    """The chain of one delivered call is all the edits that became it."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"), field("b"), add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    carrier = (await entry_of(store, 1, 2))["id"]
    async with store.begin() as connection:
        told = await read_edit(connection, carrier)
        assert await find_entry(connection, carrier) == (1, account.id, "field:1")
        assert await find_entry(connection, 10**9) is None
    assert [(edit.seq, edit.status) for edit in told] == [(1, "superseded"), (2, "accepted")]
    assert told[0].superseded_by == carrier


async def test_conflicts_are_told_with_both_values(store: Store) -> None:
    """Who moved what, and which side is kept."""
    account = await account_with(store)
    await run_sql(
        store,
        "INSERT INTO syncd.conflicts (account_id, table_name, row_id, field, base, local, remote, owner) "
        "VALUES (:a, 'relations', 1, 'last_name', 'was', 'here', 'there', 'local')",
        a=account.id,
    )
    (conflict,) = (await _story(store, 1, "profile", column="last_name")).conflicts
    assert (conflict.base, conflict.local, conflict.remote, conflict.owner) == ("was", "here", "there", "local")
    assert (await _story(store, 1, "profile", column="first_name")).conflicts == ()
    assert (await _story(store, 1, "tag:1")).conflicts == ()


async def test_names_of_all_kinds_are_known_with_their_others(store: Store) -> None:
    """What people may call a facet."""
    account = await account_with(store)
    await remote_sql(
        store, "INSERT INTO crm.fields (id, account_id, code, name) VALUES (3, :a, '4711_FF1', 'Kleur')", a=account.id
    )
    async with store.begin() as connection:
        named = await named_facets(connection, account.id)
    assert NamedFacet("field", 3, "Kleur", ("4711_FF1",)) in named
    assert NamedFacet("tag", 1, "tag 1", ("1",)) in named


@pytest.mark.parametrize("status", ["pending", "held", "dead", "parked", "diverged"])
async def test_every_undelivered_state_protects(store: Store, status: str) -> None:
    """G5: as the merge does, so does the explanation say."""
    account = await account_with(store)
    await remote_sql(store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 1)")
    await changed(store, account, 1, add(1))
    await run_sql(store, f"UPDATE syncd.entries SET status = '{status}'")
    entry_id = (await rows(store, "SELECT id FROM syncd.entries"))[0]["id"]
    (value,) = (await _story(store, 1, "tag:1")).values
    assert (value.name, value.value, value.protected_by) == ("tag:tag 1", "yes", (f"entry {entry_id}",))


async def test_a_create_protects_its_address_and_columns(store: Store) -> None:
    """A new relation's own values wait with it."""
    account = await account_with(store, 0, unbound=1)
    await changed(store, account, 1, create("1@x.example", last_name="N"), email("2@x.example"))
    protected = {value.name: len(value.protected_by) for value in (await _story(store, 1)).values}
    assert {name: count for name, count in protected.items() if count} == {"email": 2, "last_name": 1}
