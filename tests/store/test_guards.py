"""Guards: an edit that cannot reach the CRM is refused where it is made, and the error says what to do instead."""

from __future__ import annotations

import pytest

from syncd.store import Store
from tests.support.edits import Refusal, answer, edit, refusal, run_script, seed, tried

NEW = "INSERT INTO crm.relations (account_id, email{columns}) VALUES (1, {values})"
READ_ONLY_TABLES = [
    *("accounts", "tags", "fields", "groups", "lists", "list_subscriptions"),
    *("orders", "order_lines", "invoices", "invoice_lines", "invoice_files"),
]
READ_ONLY_COLUMNS = {
    "id": "900",
    "account_id": "2",
    "remote_id": "'9'",
    "funnel_state": "'x'",
    "raw": "'{}'",
    "content_hash": "'x'",
    "first_seen_at": "'2000-01-01'",
    "last_seen_at": "'2000-01-01'",
    "changed_at": "'2000-01-01'",
    "missing_since": "now()",
    "detail_at": "now()",
}


async def tables(store: Store) -> list[str]:
    async with store.begin() as connection:
        rows = await connection.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'crm'")
        return [row[0] for row in rows]


async def test_truncate_is_refused_on_every_table(mirror: Store) -> None:
    """TRUNCATE fires no row trigger: the mirror would be empty and the CRM would never hear of it."""
    for table in await tables(mirror):
        refused = await refusal(mirror, f"TRUNCATE crm.{table} CASCADE")
        assert refused.code == "SY001"
        assert "syncd backfill" in refused.hint


@pytest.mark.parametrize("table", READ_ONLY_TABLES)
async def test_table_that_only_syncd_writes_is_refused_with_the_right_way(mirror: Store, table: str) -> None:
    """An edit that only the mirror has would look saved and be overwritten by the next pull."""
    for statement in (
        f"INSERT INTO crm.{table} DEFAULT VALUES",
        f"UPDATE crm.{table} SET {'name' if table == 'accounts' else await answer(mirror, FIRST.format(table))} = NULL",
        f"DELETE FROM crm.{table}",
    ):
        refused = await refusal(mirror, statement)
        assert (refused.code, table in refused.message) == ("SY002", True)
        assert any(way in refused.hint for way in ("syncd pull", "crm."))


FIRST = """SELECT column_name FROM information_schema.columns
    WHERE table_schema = 'crm' AND table_name = '{}' AND is_identity = 'NO' LIMIT 1"""


async def test_every_table_is_guarded_or_editable(mirror: Store) -> None:
    """A table that a later migration forgets would silently take edits that go nowhere."""
    editable = {"relations", "relation_tags", "group_members", "relation_fields"}
    assert set(await tables(mirror)) == editable | set(READ_ONLY_TABLES)


@pytest.mark.parametrize("column", READ_ONLY_COLUMNS)
async def test_edit_of_a_read_only_column_is_refused_by_name(mirror: Store, column: str) -> None:
    refused = await refusal(mirror, f"UPDATE crm.relations SET {column} = {READ_ONLY_COLUMNS[column]} WHERE id = 2")
    assert (refused.code, column in refused.message) == ("SY003", True)
    assert "Editable are email" in refused.hint


async def test_read_only_column_written_back_unchanged_is_no_edit(mirror: Store) -> None:
    """Object mappers name every column in an UPDATE."""
    statement = "UPDATE crm.relations SET remote_id = remote_id, raw = raw, gender = 'F' WHERE id = 1"
    assert len(await tried(mirror, statement)) == 1


@pytest.mark.parametrize("column", ["remote_id", "funnel_state", "raw", "content_hash", "missing_since", "detail_at"])
async def test_new_relation_with_a_read_only_column_is_refused(mirror: Store, column: str) -> None:
    statement = NEW.format(columns=f", {column}", values=f"'n@example.nl', {READ_ONLY_COLUMNS[column]}")
    refused = await refusal(mirror, statement)
    assert (refused.code, column in refused.message) == ("SY003", True)


@pytest.mark.parametrize(
    "email",
    [
        "NULL",
        "''",
        "' '",
        "'ann'",
        "'a@b@c'",
        "'@b'",
        "'a@'",
        "'a b@c'",
        "E'a\\n@c'",
        "E'a@c\\x01'",
        "repeat('a', 250) || '@b.nl'",
    ],
)
async def test_malformed_email_is_refused(mirror: Store, email: str) -> None:
    """The CRM makes relations by e-mail: a malformed one is an entry that can only die."""
    assert (await refusal(mirror, NEW.format(columns="", values=email))).code == "SY005"
    assert (await refusal(mirror, f"UPDATE crm.relations SET email = {email} WHERE id = 1")).code == "SY005"


@pytest.mark.parametrize("email", ["'a+b@example.nl'", "'ünï@example.nl'", "E'o\\'hara@x'"])
async def test_unusual_email_is_accepted(mirror: Store, email: str) -> None:
    assert len(await tried(mirror, NEW.format(columns="", values=email))) == 1


async def test_known_email_is_refused_with_the_id_that_has_it(mirror: Store) -> None:
    """The CRM would fold the new relation into the old one, and the mirror would hold two for one."""
    refused = await refusal(mirror, NEW.format(columns="", values="'ANN@Example.nl'"))
    assert refused.code == "SY006"
    assert "relation 1 " in refused.message
    assert refused.hint == "It exists: UPDATE crm.relations SET ... WHERE id = 1."


async def test_email_of_a_relation_that_is_not_delivered_yet_is_known_too(mirror: Store) -> None:
    new = NEW.format(columns="", values="'new@example.nl'")
    assert (await refusal(mirror, new, new)).code == "SY006"


async def test_email_of_another_relation_is_refused(mirror: Store) -> None:
    """Merging two relations is for a person: the API answers "in use" and the lane would block."""
    refused = await refusal(mirror, "UPDATE crm.relations SET email = 'BOB@example.nl' WHERE id = 1")
    assert (refused.code, "relation 2 " in refused.message, "merge" in refused.hint) == ("SY006", True, True)


async def test_case_of_the_own_email_may_change(mirror: Store) -> None:
    assert len(await tried(mirror, "UPDATE crm.relations SET email = 'Ann@example.nl' WHERE id = 1")) == 1


@pytest.mark.parametrize(("column", "value"), [("gender", "X"), ("gender", "m"), ("type", "ab"), ("customer", "Y")])
async def test_value_that_the_crm_does_not_know_is_refused(mirror: Store, column: str, value: str) -> None:
    for statement in (
        NEW.format(columns=f", {column}", values=f"'n@example.nl', '{value}'"),
        f"UPDATE crm.relations SET {column} = '{value}' WHERE id = 1",
    ):
        refused = await refusal(mirror, statement)
        assert (refused.code, column in refused.message, value in refused.message) == ("SY007", True, True)


async def test_odd_value_of_the_crm_does_not_stand_in_the_way(store: Store) -> None:
    """What the CRM itself says is no fault of the application that edits another column."""
    await seed(store)
    await run_script(store, "UPDATE crm.relations SET gender = 'X' WHERE id = 1", remote=True)
    await edit(store, "UPDATE crm.relations SET gender = gender, first_name = 'Y' WHERE id = 1")


async def test_relation_is_not_deleted(mirror: Store) -> None:
    refused = await refusal(mirror, "DELETE FROM crm.relations WHERE id = 1")
    assert (refused.code, "missing_since" in refused.hint) == ("SY004", True)


@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        ("UPDATE crm.relation_tags SET tag_id = 2", "DELETE the row"),
        ("UPDATE crm.group_members SET group_id = 2", "DELETE the row"),
        ("UPDATE crm.relation_fields SET field_id = 2", "SET value"),
        ("DELETE FROM crm.relation_fields", "SET value = ''"),
    ],
)
async def test_verb_that_the_crm_does_not_have_is_refused(mirror: Store, statement: str, advice: str) -> None:
    refused = await refusal(mirror, statement)
    assert (refused.code, advice in refused.hint) == ("SY012", True)


LINK = "INSERT INTO crm.{} VALUES ({})"


@pytest.mark.parametrize(
    ("table", "values", "code"),
    [
        ("relation_tags (relation_id, tag_id)", "1, 51", "SY009"),
        ("group_members (relation_id, group_id)", "1, 51", "SY009"),
        ("relation_fields (relation_id, field_id, value)", "1, 51, 'x'", "SY009"),
        ("relation_tags (relation_id, tag_id)", "1, 4", "SY010"),
        ("relation_fields (relation_id, field_id, value)", "1, 4, 'x'", "SY008"),
        ("relation_fields (relation_id, field_id, value)", "1, 2, 'yes'", "SY007"),
        ("relation_fields (relation_id, field_id, value)", "1, 3, 'green'", "SY007"),
        ("relation_fields (relation_id, field_id, value)", "1, 3, 'red,blue'", "SY007"),
    ],
)
async def test_link_or_value_that_cannot_be_is_refused(mirror: Store, table: str, values: str, code: str) -> None:
    """Each would be accepted here and die at the CRM; a link across accounts would speak about a stranger."""
    assert (await refusal(mirror, LINK.format(table, values))).code == code


async def test_update_of_a_value_is_checked_like_an_insert(mirror: Store) -> None:
    given = LINK.format("relation_fields (relation_id, field_id, value)", "1, 3, 'red'")
    refused = await refusal(mirror, given, "UPDATE crm.relation_fields SET value = 'green'")
    assert (refused.code, "red, blue" in refused.hint) == ("SY007", True)
    assert len(await tried(mirror, given, "UPDATE crm.relation_fields SET value = ''")) == 2


async def test_account_is_filled_in_where_there_is_one_only(store: Store) -> None:
    """Most people have one account and should not have to know that there could be more."""
    insert = "INSERT INTO crm.relations (email) VALUES ('new@example.nl')"
    assert await refusal(store, insert) == Refusal(
        "SY011",
        "which account is meant? none is known yet",
        "Run `syncd pull` once: it writes the account of the settings.",
    )
    await seed(store)
    await edit(store, insert)
    assert await answer(store, "SELECT account_id FROM crm.relations WHERE email = 'new@example.nl'") == 1


async def test_account_must_be_named_where_there_are_two(mirror: Store) -> None:
    refused = await refusal(mirror, "INSERT INTO crm.relations (email) VALUES ('new@example.nl')")
    assert (refused.code, refused.message) == ("SY011", "which account is meant? there are 2: 'default', 'second'")


async def test_remote_writes_pass_every_guard(mirror: Store) -> None:
    """The CRM's word is written as it is, odd values and all."""
    await tried(
        mirror,
        "INSERT INTO crm.relations (account_id, remote_id, email, gender) VALUES (1, '9', 'ANN@example.nl', 'odd')",
        "UPDATE crm.relations SET remote_id = '8', email = 'no address', type = 'long' WHERE id = 1",
        "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 4)",
        "UPDATE crm.relation_tags SET missing_since = now()",
        "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (1, 3, 'green')",
        "DELETE FROM crm.relation_fields",
        "DELETE FROM crm.orders",
        "DELETE FROM crm.relations WHERE id = 2",
        remote=True,
    )
