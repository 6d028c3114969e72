"""The register of what may hold a person against the database: no column may come into being unclassified."""

from __future__ import annotations

from syncd.store import Store
from syncd.store.erasure.columns import REGISTER, How, Never, texts
from syncd.store.erasure.kept import TABLES as KEPT
from syncd.store.erasure.relation import STEPS
from syncd.store.erasure.rows import TABLES
from tests.support.outbox import rows

# What can hold words of anybody. Numbers, times and flags of a row go or stay with it and name nobody; a view holds
# nothing of its own.
_COLUMNS = """
    SELECT format('%s.%s.%s', table_schema, table_name, column_name) AS name
    FROM information_schema.columns JOIN information_schema.tables t USING (table_schema, table_name)
    WHERE table_schema IN ('crm', 'syncd') AND t.table_type = 'BASE TABLE'
      AND data_type IN ('text', 'jsonb', 'json', 'bytea', 'xml', 'character varying', 'character', 'name', 'ARRAY',
                        'inet', 'cidr', 'USER-DEFINED')
      AND udt_name NOT IN ('_xid8')
    ORDER BY 1
"""


async def test_every_column_that_can_hold_words_is_classified(store: Store) -> None:
    """Whoever adds one must say here how an erasure deals with it, or why it never holds a person."""
    there = {row["name"] for row in await rows(store, _COLUMNS)}
    assert sorted(there - set(REGISTER)) == [], "add it to syncd/store/erasure/columns.py"
    assert sorted(set(REGISTER) - there) == [], "it is gone from the database: take it out of the register"
    assert len(there) > 80


async def test_a_new_column_fails_the_register(store: Store) -> None:
    """Or the test above would pass because it sees nothing."""
    async with store.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE syncd.runs ADD COLUMN remark text")
        found = {row[0] for row in await connection.exec_driver_sql(_COLUMNS)}
    assert found - set(REGISTER) == {"syncd.runs.remark"}


def test_every_table_whose_rows_are_a_persons_is_emptied_of_them() -> None:
    """A column may be classified as going with its row only where somebody removes the row."""
    personal = {name.rsplit(".", 1)[0] for name, fate in REGISTER.items() if fate in (How.ROW, How.OTHERS)}
    by_cascade = {"crm.order_lines"}
    assert personal - set(STEPS) - TABLES - KEPT - by_cascade == set()


def test_every_exception_says_why() -> None:
    """ "Never" without a reason is a guess."""
    assert all(len(fate.why) > 8 for fate in REGISTER.values() if isinstance(fate, Never))


def test_what_is_looked_through_is_what_the_register_says() -> None:
    """The scrubbing reads the register: a column classified as text is looked through without further code."""
    looked = {f"{table}.{column}" for table, columns in texts().items() for column in columns}
    assert looked == {name for name, fate in REGISTER.items() if fate in (How.TEXT, How.OTHERS)}
    assert {"syncd.runs.warnings", "syncd.incidents.detail", "syncd.attempts.detail"} <= looked
