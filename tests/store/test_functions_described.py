"""The database explains itself: whoever opens it with psql finds what every name means."""

from __future__ import annotations

import pytest

from syncd.store import Store

UNSAID = {
    "schemas": """SELECT nspname FROM pg_namespace
        WHERE nspname IN ('crm', 'syncd') AND obj_description(oid, 'pg_namespace') IS NULL""",
    "tables": """SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relname <> 'alembic_version'
        AND relnamespace IN ('crm'::regnamespace, 'syncd'::regnamespace)
        AND obj_description(oid, 'pg_class') IS NULL""",
    "columns": """SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relkind = 'r' AND c.relnamespace = 'crm'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
          AND col_description(c.oid, a.attnum) IS NULL""",
    "functions": """SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace IN ('crm'::regnamespace, 'syncd'::regnamespace)
          AND obj_description(oid, 'pg_proc') IS NULL""",
}
NAMES = """
SELECT name FROM (
    SELECT relname FROM pg_class WHERE relnamespace = 'crm'::regnamespace
    UNION ALL SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE c.relnamespace = 'crm'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'crm'::regnamespace
    UNION ALL SELECT unnest(proargnames) FROM pg_proc WHERE pronamespace = 'crm'::regnamespace
) AS names (name) WHERE quote_ident(name) <> name AND name NOT IN ('position')"""


@pytest.mark.parametrize("kind", UNSAID)
async def test_nothing_is_without_a_comment(mirror: Store, kind: str) -> None:
    async with mirror.begin() as connection:
        assert list((await connection.exec_driver_sql(UNSAID[kind])).scalars()) == []


async def test_no_name_needs_quotes(mirror: Store) -> None:
    """A name that must be quoted is a trap in every query that people write by hand.

    ``position`` is a name of the contract: it needs no quotes as a column, only quote_ident is that careful.
    """
    async with mirror.begin() as connection:
        assert list((await connection.exec_driver_sql(NAMES)).scalars()) == []
        await connection.exec_driver_sql("SELECT position, l.position FROM crm.order_lines l ORDER BY position")
