"""Capture: what an application's edit becomes. Both sides of the contract, the triggers and the domain, are real."""

from __future__ import annotations

from datetime import date

import pytest

from syncd.domain.changes import (
    CHANGES,
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    EndSubscription,
    JoinGroup,
    LeaveGroup,
    LocalChange,
    RemoveTag,
    SetField,
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
)
from syncd.store import Store
from tests.support.edits import answer, captured, changes, edit, seed, tried

INSERT = "INSERT INTO crm.relations (account_id, email, last_name, gender) VALUES (1, 'New@example.nl', 'Nieuw', '-')"
ADD_TAG = "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 1)"
JOIN = "INSERT INTO crm.group_members (group_id, relation_id) VALUES (1, 1)"
SET = "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (1, 1, 'L')"
CONSENT = """
SELECT crm.subscribe_with_consent('ann@example.nl', 'News', 'p', true, 'u', 'c', false, '192.0.2.7', true, 'default')"""

EDITS: list[tuple[tuple[str, ...], LocalChange]] = [
    ((INSERT,), CreateRelation("New@example.nl", {"last_name": "Nieuw", "gender": "-"})),
    (
        ("UPDATE crm.relations SET email = 'a+b@example.nl' WHERE id = 1",),
        ChangeEmail("ann@example.nl", "a+b@example.nl"),
    ),
    (
        ("UPDATE crm.relations SET first_name = 'Anna', last_name = NULL, customer = 'y' WHERE id = 1",),
        UpdateProfile(
            {"first_name": "Ann", "last_name": "Jansen", "customer": None},
            {"first_name": "Anna", "last_name": None, "customer": "y"},
        ),
    ),
    ((ADD_TAG,), AddTag(1, "11", "VIP")),
    ((ADD_TAG, "DELETE FROM crm.relation_tags"), RemoveTag(1, "11", "VIP")),
    ((JOIN,), JoinGroup(1, "21", "Customers")),
    ((JOIN, "DELETE FROM crm.group_members"), LeaveGroup(1, "21", "Customers")),
    ((SET,), SetField(1, "7_FF1", None, "L")),
    ((SET, "UPDATE crm.relation_fields SET value = ''"), SetField(1, "7_FF1", "L", "")),
    ((SET, "UPDATE crm.relation_fields SET value = NULL"), SetField(1, "7_FF1", "L", None)),
    (("SELECT crm.subscribe('ann@example.nl', 'News', account => 'default')",), Subscribe(1, "31", False)),
    (("SELECT crm.unsubscribe('ann@example.nl', 'News', 'enough', 'default')",), Unsubscribe(1, "31", "enough")),
    ((CONSENT,), SubscribeWithConsent(1, "31", True, "p", True, "u", "c", False, "192.0.2.7")),
    (("SELECT crm.end_subscription('S9', '2026-12-31')",), EndSubscription("S9", date(2026, 12, 31))),
    (
        ("SELECT crm.create_field('Shoe', 'Shoe size', 'list', '{a,b}', 'default')",),
        CreateField("Shoe", "Shoe size", "list", ("a", "b")),
    ),
]


def test_every_kind_of_change_is_covered() -> None:
    """A kind without a statement here is a payload that nobody has ever decoded."""
    assert {type(change) for _, change in EDITS} == set(CHANGES)


@pytest.mark.parametrize(("statements", "change"), EDITS, ids=[type(change).__name__ for _, change in EDITS])
async def test_edit_is_captured_as_the_domain_reads_it(
    mirror: Store, statements: tuple[str, ...], change: LocalChange
) -> None:
    """A payload that Python cannot decode is a committed change that never reaches the CRM."""
    found = await tried(mirror, *statements)
    assert found[-1] == change
    assert len(found) == len(statements)


async def test_email_change_comes_before_the_profile_of_the_same_statement(store: Store) -> None:
    """The CRM finds relations by e-mail: told in the other order it would make a second relation."""
    await seed(store)
    await edit(store, "UPDATE crm.relations SET first_name = 'X', email = id || '@new.nl'")
    assert [
        (c.relation_id, type(c.change)) for c in sorted(await captured(store), key=lambda c: c.relation_id or 0)
    ] == [
        (1, ChangeEmail),
        (1, UpdateProfile),
        (2, ChangeEmail),
        (2, UpdateProfile),
    ]


PROFILE = {
    "first_name": "Anna",
    "suffix": "van",
    "last_name": "Bakker",
    "gender": "F",
    "type": "B",
    "customer": "y",
}


@pytest.mark.parametrize("rows", ["id = 1", "id < 3"], ids=["one row", "two rows"])
@pytest.mark.parametrize("column", PROFILE)
async def test_each_column_is_captured_by_itself(mirror: Store, column: str, rows: str) -> None:
    """A column that is forgotten, or told under the name of its neighbour, would be lost in silence; one row and many
    are captured by different statements."""
    found = await tried(mirror, f"UPDATE crm.relations SET {column} = '{PROFILE[column]}' WHERE {rows}")
    assert [change.new for change in found if isinstance(change, UpdateProfile)] == [
        {column: PROFILE[column]} for _ in range(1 if rows == "id = 1" else 2)
    ]
    assert len(found) == (1 if rows == "id = 1" else 2)


async def test_columns_of_one_statement_are_one_change(mirror: Store) -> None:
    """All at once: each under its own name, with its old value."""
    columns = ", ".join(f"{column} = '{value}'" for column, value in PROFILE.items())
    old = {**dict.fromkeys(PROFILE, None), "first_name": "Ann", "last_name": "Jansen"}
    assert await tried(mirror, f"UPDATE crm.relations SET {columns} WHERE id = 1") == [UpdateProfile(old, PROFILE)]


async def test_rows_of_one_statement_are_captured_apart(store: Store) -> None:
    """Two relations renamed by one statement are two changes of two relations, each with its own old value."""
    await seed(store)
    await edit(store, "UPDATE crm.relations SET first_name = first_name || 'a' WHERE id IN (1, 2)")
    assert sorted((c.relation_id, c.change) for c in await captured(store)) == [
        (1, UpdateProfile({"first_name": "Ann"}, {"first_name": "Anna"})),
        (2, UpdateProfile({"first_name": "Bob"}, {"first_name": "Boba"})),
    ]


async def test_only_the_rows_that_changed_are_captured(store: Store) -> None:
    """A statement over many rows that gives most of them what they have already."""
    await seed(store)
    await edit(store, "UPDATE crm.relations SET first_name = 'Ann'")
    assert [(c.relation_id, c.change) for c in await captured(store)] == [
        (2, UpdateProfile({"first_name": "Bob"}, {"first_name": "Ann"}))
    ]


async def test_values_of_one_statement_are_captured_apart(store: Store) -> None:
    """The same for field values: those that changed, each with its own old value."""
    await seed(store)
    await edit(
        store,
        "INSERT INTO crm.relation_fields (relation_id, field_id, value)"
        " VALUES (1, 1, 'L'), (2, 1, 'M'), (1, 2, 'true')",
        "UPDATE crm.relation_fields SET value = CASE field_id WHEN 1 THEN 'X' ELSE value END",
    )
    assert sorted(((c.relation_id, c.change) for c in (await captured(store))[3:]), key=str) == [
        (1, SetField(1, "7_FF1", "L", "X")),
        (2, SetField(1, "7_FF1", "M", "X")),
    ]


@pytest.mark.parametrize("edit_", ["first_name = 'X'", "email = 'x@new.nl'", "email = 'x@new.nl', gender = 'F'"])
async def test_capture_opens_no_transaction_of_its_own(mirror: Store, edit_: str) -> None:
    """A capture written in a block that catches errors would take a transaction number of its own for each edit."""
    async with mirror.engine.connect() as connection:
        await connection.exec_driver_sql(f"UPDATE crm.relations SET {edit_} WHERE id = 1")
        same = "SELECT bool_and(xmin::text = (xact::text::bigint % 4294967296)::text) FROM syncd.captures"
        assert (await connection.exec_driver_sql(same)).scalar_one() is True
        await connection.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE crm.relations SET first_name = first_name, email = email",
        "UPDATE crm.relations SET first_name = first_name, email = email WHERE id = 1",
        "UPDATE crm.relations SET suffix = NULL WHERE id = 2",
        "UPDATE crm.relation_fields SET value = 'X' WHERE false",
        "UPDATE crm.relations SET suffix = NULL",
        "UPDATE crm.relations SET first_name = 'X' WHERE false",
        "DELETE FROM crm.relation_tags",
        "INSERT INTO crm.relation_fields (relation_id, field_id) VALUES (1, 1)",
    ],
)
async def test_edit_that_changes_nothing_is_not_captured(mirror: Store, statement: str) -> None:
    """Object mappers write whole rows back: each such write would call the CRM for nothing, or start a campaign."""
    assert await tried(mirror, statement) == []


async def test_upsert_of_the_same_field_value_is_captured_once(mirror: Store) -> None:
    """An application that saves a form again has changed nothing."""
    upsert = f"{SET} ON CONFLICT (relation_id, field_id) DO UPDATE SET value = EXCLUDED.value"
    assert await tried(mirror, upsert, upsert) == [SetField(1, "7_FF1", None, "L")]


async def test_edits_before_delivery_are_captured_apart(mirror: Store) -> None:
    """The relation does not exist in the CRM yet, but its second edit must still arrive after its first."""
    found = await tried(mirror, INSERT, "UPDATE crm.relations SET gender = 'F' WHERE email = 'New@example.nl'")
    assert [type(change) for change in found] == [CreateRelation, UpdateProfile]


async def test_remote_writes_are_not_captured(mirror: Store) -> None:
    """Our own pulls sent back to the CRM would circle for ever."""
    writes = (
        INSERT,
        "UPDATE crm.relations SET email = 'x@example.nl', first_name = 'X' WHERE id = 1",
        ADD_TAG,
        JOIN,
        SET,
        "UPDATE crm.relation_fields SET value = 'M'",
        "DELETE FROM crm.relation_tags",
        "DELETE FROM crm.group_members",
    )
    assert len(await tried(mirror, *writes)) == len(writes) + 1
    assert await tried(mirror, *writes, remote=True) == []


async def test_edit_after_a_remote_transaction_on_the_same_connection_is_captured(store: Store) -> None:
    """The mark of a pull lingers in a pooled connection as an empty setting: it must not hide a local edit."""
    await seed(store)
    async with store.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT set_config('syncd.origin', 'remote', true)")
        await connection.commit()
        await connection.exec_driver_sql("UPDATE crm.relations SET first_name = 'X' WHERE id = 1")
        await connection.commit()
    assert len(await changes(store)) == 1


async def test_actor_and_reason_belong_to_one_transaction(store: Store) -> None:
    """In a connection pool the next request must not sign with the name of the last."""
    await seed(store)
    async with store.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT crm.set_actor('jan', 'phone call')")
        await connection.exec_driver_sql("UPDATE crm.relations SET first_name = 'X' WHERE id = 1")
        await connection.commit()
        await connection.exec_driver_sql("UPDATE crm.relations SET first_name = 'Y' WHERE id = 1")
        await connection.commit()
    role = await answer(store, "SELECT session_user")
    assert [(c.actor, c.reason) for c in await captured(store)] == [("jan", "phone call"), (role, None)]
