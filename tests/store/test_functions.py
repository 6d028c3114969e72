"""The functions that applications call: edits by e-mail and name, and calls that are no table edits."""

from __future__ import annotations

import pytest

from syncd.domain.changes import AddTag, JoinGroup, LeaveGroup, RemoveTag, SetField, Subscribe
from syncd.store import Store
from tests.support.edits import answer, changes, edit, refusal, run_script, seed

LONG = "x" * 60


async def test_edit_by_name_tells_whether_anything_changed(store: Store) -> None:
    """A caller may repeat itself: the second call must neither fail nor reach the CRM."""
    await seed(store)
    steps = [
        ("crm.add_tag('ANN@example.nl ', ' vip')", AddTag(1, "11", "VIP")),
        ("crm.remove_tag('ann@example.nl', 'VIP')", RemoveTag(1, "11", "VIP")),
        ("crm.set_field('ann@example.nl', '7_FF1', 'L')", SetField(1, "7_FF1", None, "L")),
        ("crm.set_field('ann@example.nl', 'size', 'M')", SetField(1, "7_FF1", "L", "M")),
        ("crm.join_group('ann@example.nl', 'customers')", JoinGroup(1, "21", "Customers")),
        ("crm.leave_group('ann@example.nl', 'Customers')", LeaveGroup(1, "21", "Customers")),
    ]
    for call, _ in steps:
        assert await answer(store, f"SELECT {call}") is True
        assert await answer(store, f"SELECT {call}") is False
    assert await changes(store) == [change for _, change in steps]


async def test_relation_made_in_the_same_transaction_is_found(store: Store) -> None:
    """A web form writes a customer and tags him in one go."""
    await seed(store)
    await edit(
        store,
        "INSERT INTO crm.relations (email) VALUES ('new@example.nl')",
        "SELECT crm.add_tag('new@example.nl', 'VIP')",
        "SELECT crm.subscribe('new@example.nl', '31')",
    )
    assert [type(change) for change in await changes(store)][1:] == [AddTag, Subscribe]


@pytest.mark.parametrize("name", ["News", "news ", "NWS", "31"])
async def test_list_is_found_by_name_code_or_remote_id(mirror: Store, name: str) -> None:
    assert await answer(mirror, f"SELECT syncd.find_list(1, '{name}')") == 1


async def test_exact_case_wins_over_other_cases(store: Store) -> None:
    await seed(store)
    await run_script(store, "INSERT INTO crm.tags (id, account_id, name) VALUES (9, 1, 'vip')", remote=True)
    assert await answer(store, "SELECT syncd.find_tag(1, 'vip')") == 9
    assert await answer(store, "SELECT syncd.find_tag(1, 'VIP')") == 1
    assert (await refusal(store, "SELECT syncd.find_tag(1, 'Vip')")).code == "SY014"


async def test_tag_that_the_crm_was_seen_without_is_added_anew(store: Store) -> None:
    """The link row is still there, marked missing: ON CONFLICT DO NOTHING alone would lose the wish."""
    await seed(store)
    rows = """INSERT INTO crm.relation_tags (relation_id, tag_id, missing_since) VALUES (1, 1, now());
        INSERT INTO crm.group_members (relation_id, group_id, missing_since) VALUES (1, 1, now())"""
    await run_script(store, rows, remote=True)
    await edit(store, "SELECT crm.add_tag('ann@example.nl', 'VIP'), crm.join_group('ann@example.nl', 'Customers')")
    found = await changes(store)
    assert found[1] == AddTag(1, "11", "VIP")
    assert found[3] == JoinGroup(1, "21", "Customers")


@pytest.mark.parametrize(
    ("call", "code", "message", "hint"),
    [
        ("add_tag('no@example.nl', 'VIP')", "SY013", "no@example.nl", "INSERT INTO crm.relations"),
        ("add_tag('ann@example.nl', 'VIP')", "SY014", "ids 1, 51", "account"),
        ("add_tag('ann@example.nl', 'VIP', 'third')", "SY013", "'third'", "crm.accounts"),
        ("add_tag('bob@example.nl', 'None')", "SY013", "no tag named 'None'", "syncd pull tags"),
        ("add_tag('bob@example.nl', 'Gone')", "SY013", "no tag named 'Gone'", "syncd pull tags"),
        ("add_tag('bob@example.nl', 'Twin')", "SY014", "remote ids 12, 13, local ids 2, 3", "crm.relation_tags"),
        ("remove_tag('bob@example.nl', 'None')", "SY013", "None", "syncd pull tags"),
        ("join_group('bob@example.nl', 'None')", "SY013", "None", "syncd pull groups"),
        ("leave_group('bob@example.nl', 'None')", "SY013", "None", "syncd pull groups"),
        ("subscribe('bob@example.nl', 'None')", "SY013", "None", "syncd pull lists"),
        ("set_field('bob@example.nl', 'None', 'x')", "SY013", "None", "crm.create_field"),
        ("set_field('bob@example.nl', 'relation_email', 'x')", "SY008", "relation_email", "crm.relations"),
        ("set_field('bob@example.nl', '7_FF1', NULL)", "SY015", "value", "empty text"),
        ("end_subscription('none', '2026-01-01')", "SY013", "none", "syncd pull orders"),
        ("end_subscription('S9', 'infinity')", "SY015", "ends_on", "last day"),
        ("unsubscribe('bob@example.nl', 'News', ' ')", "SY015", "reason", "reason"),
        ("subscribe('bob@example.nl', 'News', NULL)", "SY015", "skip_optin", "skip_optin"),
    ],
)
async def test_call_that_cannot_be_is_refused_with_the_next_step(
    mirror: Store, call: str, code: str, message: str, hint: str
) -> None:
    refused = await refusal(mirror, f"SELECT crm.{call}")
    assert (refused.code, message in refused.message, hint in refused.hint) == (code, True, True)


@pytest.mark.parametrize(
    "call",
    [
        "add_tag(NULL, 'VIP')",
        "add_tag('bob@example.nl', NULL)",
        "remove_tag('bob@example.nl', '')",
        "set_field('bob@example.nl', NULL, 'x')",
        "join_group('bob@example.nl', NULL)",
        "leave_group(NULL, NULL)",
        "subscribe('bob@example.nl', NULL)",
        "end_subscription(NULL, '2026-01-01')",
        "end_subscription('S9', NULL)",
        "create_field(NULL, 'l', 'string')",
        "create_field('n', NULL, 'string')",
        "create_field('n', 'l', NULL)",
    ],
)
async def test_missing_argument_is_named(mirror: Store, call: str) -> None:
    """A null that slips through is a call that returns null and does nothing: a lost change."""
    assert (await refusal(mirror, f"SELECT crm.{call}")).code == "SY015"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("'Size2', 'l', 'string'", "not accepted"),
        ("'Shoe size', 'l', 'string'", "not accepted"),
        (f"'{LONG}', 'l', 'string'", "not accepted"),
        ("'Shoe', 'l', 'number'", "is none"),
        ("'Shoe', 'l', 'list'", "at least one"),
        ("'Shoe', 'l', 'string', '{a}'", "has none"),
        ("'Shoe', 'l', 'list', ARRAY['a,b']", "comma"),
        ("'Shoe', 'l', 'list', ARRAY['a', NULL]", "null or empty"),
        ("'Shoe', 'l', 'list', ARRAY[['a'], ['b']]", "nested"),
        ("'Shoe', 'l', 'list', ARRAY[repeat('a', 2048)]", "2048"),
        ("'size', 'l', 'string', account => 'default'", "already"),
    ],
)
async def test_field_that_the_crm_would_refuse_is_refused(mirror: Store, arguments: str, problem: str) -> None:
    """Creating a field cannot be repeated safely: it must be right the first time."""
    refused = await refusal(mirror, f"SELECT crm.create_field({arguments})")
    assert (refused.code, problem in refused.message) == ("SY015", True)


@pytest.mark.parametrize("missing", range(8))
async def test_consent_without_one_of_its_parts_is_refused(mirror: Store, missing: int) -> None:
    """A consent record with a gap is no proof of consent."""
    arguments = ["'bob@example.nl'", "'News'", "'p'", "true", "'u'", "'c'", "true", "'192.0.2.7'"]
    arguments[missing] = "NULL"
    assert (await refusal(mirror, f"SELECT crm.subscribe_with_consent({', '.join(arguments)})")).code == "SY015"


async def test_public_may_not_call_functions(mirror: Store) -> None:
    """They run with the owner's rights: a role that may only read must not be able to tag people."""
    query = """SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE p.pronamespace IN ('crm'::regnamespace, 'syncd'::regnamespace) AND a.grantee = 0"""
    assert await answer(mirror, query) == 0


async def test_functions_with_the_owners_rights_pin_their_search_path(mirror: Store) -> None:
    """Else whoever may create a table or an operator decides what they do."""
    query = """SELECT count(*) FROM pg_proc
        WHERE pronamespace IN ('crm'::regnamespace, 'syncd'::regnamespace) AND prosecdef
          AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)"""
    assert await answer(mirror, query) == 0
