"""Capture costs the application's transaction almost nothing and takes no lock that another could wait for (G8)."""

from __future__ import annotations

import uuid

from sqlalchemy import text

from syncd.store import Connection, Store
from tests.support.edits import answer, edit, run_script, seed, tried

COUNT_INSERTS = """
CREATE TABLE public.inserts (rows bigint);
CREATE FUNCTION public.count_insert() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.inserts SELECT count(*) FROM rows; RETURN NULL; END';
CREATE TRIGGER count_insert AFTER INSERT ON syncd.captures REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION public.count_insert()"""
MANY = """
INSERT INTO crm.relations (account_id, remote_id, email)
SELECT 1, 'r' || g, g || '@many.nl' FROM generate_series(1, {}) g"""
VALUES = "INSERT INTO crm.relation_fields (relation_id, field_id, value) SELECT id, 1, 'x' FROM crm.relations"
CALLS = """
SELECT coalesce(sum(calls), 0) FROM pg_stat_xact_user_functions
WHERE schemaname = 'syncd' AND funcname LIKE 'capture%'"""
# The capture that this one is not.
ROW_BY_ROW = """
CREATE FUNCTION public.capture_row() RETURNS trigger LANGUAGE plpgsql AS '
BEGIN INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
VALUES (NEW.account_id, NEW.id, ''update_profile'', ''profile'', ''{}''); RETURN NULL; END';
CREATE OR REPLACE TRIGGER capture_update AFTER UPDATE ON crm.relations FOR EACH ROW
    EXECUTE FUNCTION public.capture_row()"""
BULK = "UPDATE crm.relations SET first_name = 'all' WHERE remote_id LIKE 'r%'"


async def test_statement_of_10000_rows_makes_one_insert(store: Store) -> None:
    """Row by row capture would make a bulk edit thousands of times slower; so would comparing all rows with all."""
    await seed(store)
    await run_script(store, MANY.format(10_000), remote=True)
    await run_script(store, COUNT_INSERTS)
    await edit(
        store,
        "UPDATE crm.relations SET first_name = 'one' WHERE id = 1",  # the session's plan is made for one row
        "SET LOCAL statement_timeout = '5s'",
        "UPDATE crm.relations SET first_name = 'all', email = 'x' || email WHERE remote_id LIKE 'r%'",
        "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 1 FROM crm.relations",
    )
    assert await answer(store, "SELECT array_agg(rows) FROM public.inserts") == [1, 20000, 10002]


async def test_statement_of_10000_values_makes_one_insert(store: Store) -> None:
    """Field values are joined old to new as relations are: no session's plan may compare them all with all."""
    await seed(store)
    await run_script(store, MANY.format(10_000), remote=True)
    await run_script(store, VALUES, remote=True)
    await run_script(store, COUNT_INSERTS)
    await edit(
        store,
        "UPDATE crm.relation_fields SET value = 'one' WHERE relation_id = 1",  # the session's plan is made for one row
        "SET LOCAL statement_timeout = '5s'",
        "UPDATE crm.relation_fields SET value = 'all' WHERE relation_id > 2",
    )
    assert await answer(store, "SELECT array_agg(rows) FROM public.inserts") == [1, 10000]


async def test_bulk_update_of_100000_relations_is_captured_in_one_statement(store: Store) -> None:
    """One call, one INSERT: what a bulk edit pays for capture is a share of its own time, not a multiple of it."""
    await seed(store)
    await run_script(store, MANY.format(100_000), remote=True)
    await run_script(store, COUNT_INSERTS)
    async with store.begin() as connection:
        await connection.exec_driver_sql("SET LOCAL track_functions = 'pl'")
        await connection.exec_driver_sql("SET LOCAL statement_timeout = '60s'")
        await connection.exec_driver_sql(BULK)
        calls = (await connection.exec_driver_sql(CALLS)).scalar_one()
    assert calls == 1
    assert await answer(store, "SELECT array_agg(rows) FROM public.inserts") == [100_000]
    assert await answer(store, "SELECT count(DISTINCT relation_id) FROM syncd.captures") == 100_000


async def test_row_by_row_capture_is_seen(store: Store) -> None:
    """The count of inserts must tell the bug that it is there for."""
    await seed(store)
    await run_script(store, MANY.format(20), remote=True)
    await run_script(store, COUNT_INSERTS)
    await run_script(store, ROW_BY_ROW)
    await edit(store, BULK)
    assert await answer(store, "SELECT array_agg(rows) FROM public.inserts") == [1] * 20


async def set_short_wait(connection: Connection) -> None:
    await connection.execute(text("SET LOCAL lock_timeout = '200ms'"))


async def test_open_transaction_makes_no_other_wait(store: Store) -> None:
    """A lane or counter locked in the application's transaction would queue all applications behind the slowest."""
    await seed(store)
    async with store.begin() as slow, store.begin() as other:
        await set_short_wait(other)
        await slow.exec_driver_sql("UPDATE crm.relations SET first_name = 'slow' WHERE id = 1")
        await slow.exec_driver_sql("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 1)")
        await other.exec_driver_sql("UPDATE crm.relations SET first_name = 'quick' WHERE id = 2")
        await other.exec_driver_sql("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (2, 1)")
        await other.exec_driver_sql("SELECT crm.subscribe('bob@example.nl', 'News')")
    assert await answer(store, "SELECT count(*) FROM syncd.captures") == 5


async def test_same_relations_in_opposite_order_do_not_meet(store: Store) -> None:
    """Two transactions that touch different rows of the same two relations never wait, so they cannot deadlock."""
    await seed(store)
    async with store.begin() as one, store.begin() as two:
        await set_short_wait(one)
        await set_short_wait(two)
        await one.exec_driver_sql("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 1)")
        await two.exec_driver_sql("INSERT INTO crm.group_members (group_id, relation_id) VALUES (1, 2)")
        await one.exec_driver_sql("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (2, 1)")
        await two.exec_driver_sql("INSERT INTO crm.group_members (group_id, relation_id) VALUES (1, 1)")
    assert await answer(store, "SELECT count(*) FROM syncd.captures") == 4


async def test_late_commit_of_an_early_capture_is_still_there(store: Store) -> None:
    """Ids are taken before commit: who reads by "greater than the last id" would lose the first of these (G1)."""
    await seed(store)
    async with store.begin() as early:
        await early.exec_driver_sql("UPDATE crm.relations SET first_name = 'early' WHERE id = 1")
        await edit(
            store, "SET LOCAL lock_timeout = '200ms'", "UPDATE crm.relations SET first_name = 'late' WHERE id = 2"
        )
        assert await answer(store, "SELECT array_agg(relation_id) FROM syncd.captures") == [2]
    assert await answer(store, "SELECT array_agg(relation_id ORDER BY id) FROM syncd.captures") == [1, 2]


async def test_application_needs_no_right_on_the_outbox(mirror: Store) -> None:
    """An application that could write the outbox could forge calls; one that must be able to would be a mistake."""
    role = f"syncd_test_{uuid.uuid4().hex[:12]}"
    found = await tried(
        mirror,
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA crm TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA crm TO {role}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA crm TO {role}",
        f"SET LOCAL ROLE {role}",
        "INSERT INTO crm.relations (account_id, email) VALUES (1, 'new@example.nl')",
        "UPDATE crm.relations SET email = 'anna@example.nl', gender = 'F' WHERE id = 1",
        "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 1)",
        "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (1, 2, 'true')",
        "SELECT crm.join_group('anna@example.nl', 'customers')",
        "SELECT crm.subscribe('anna@example.nl', 'News')",
        "RESET ROLE",
    )
    assert len(found) == 7
