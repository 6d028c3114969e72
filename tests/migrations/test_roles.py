"""What each role may do, tried as that role; and a database whose migrating role may not make roles at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from syncd.store import Connection, Store
from syncd.store.grants import Granted, grant_script
from syncd.store.migrate import upgrade
from tests.conftest import admin
from tests.migrations.test_upgrade import as_role
from tests.support.embedded import running_server
from tests.support.throwaway import empty_database

EDITS = (
    "INSERT INTO crm.relations (account_id, email, first_name) VALUES (1, 'new@example.com', 'New') RETURNING id",
    "UPDATE crm.relations SET email = 'moved@example.com', last_name = 'Moved' WHERE id = 1",
    "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 1)",
    "DELETE FROM crm.relation_tags WHERE relation_id = 1",
    "INSERT INTO crm.group_members (group_id, relation_id) VALUES (1, 1)",
    "DELETE FROM crm.group_members WHERE relation_id = 1",
    "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (1, 1, 'blue') "
    "ON CONFLICT (relation_id, field_id) DO UPDATE SET value = excluded.value",
    "UPDATE crm.relation_fields SET value = 'red' WHERE relation_id = 1",
)
FORBIDDEN = (
    "UPDATE crm.relations SET remote_id = '7' WHERE id = 1",
    "INSERT INTO crm.relations (account_id, email, remote_id) VALUES (1, 'new@example.com', '7')",
    "DELETE FROM crm.relations WHERE id = 1",
    "TRUNCATE crm.relations CASCADE",
    "UPDATE crm.relation_tags SET missing_since = now()",
    "DELETE FROM crm.relation_fields",
    "INSERT INTO crm.tags (account_id, name) VALUES (1, 'mine')",
    "UPDATE crm.orders SET is_paid = true",
    "UPDATE crm.accounts SET name = 'other'",
    "INSERT INTO syncd.captures (account_id, operation, facet, payload) VALUES (1, 'add_tag', 'tag:1', '{}')",
    "SELECT * FROM syncd.captures",
    "DELETE FROM syncd.entries",
    "UPDATE syncd.lanes SET ready_at = NULL",
    "UPDATE syncd.alembic_version SET version_num = '9'",
)
SEED = (
    "INSERT INTO crm.accounts (id, name, provider) VALUES (1, 'default', 'autorespond')",
    "INSERT INTO crm.relations (id, account_id, remote_id, email) VALUES (1, 1, '100', 'one@example.com')",
    "INSERT INTO crm.tags (id, account_id, remote_id, name) VALUES (1, 1, '200', 'buyer')",
    "INSERT INTO crm.groups (id, account_id, remote_id, title) VALUES (1, 1, '300', 'Buyers')",
    "INSERT INTO crm.fields (id, account_id, remote_id, code) VALUES (1, 1, '400', 'colour')",
    "SELECT setval(pg_get_serial_sequence('crm.relations', 'id'), 10)",
)


@pytest.fixture
async def seeded(store: Store) -> Store:
    """A mirror with one row of each kind that an application may link."""
    async with store.begin_remote() as connection:
        for statement in SEED:
            await connection.execute(text(statement))
    return store


async def test_application_may_make_every_documented_edit(seeded: Store) -> None:
    """Capture must work for a role without any right on the outbox, or people would hand out the owner's."""
    async with seeded.begin() as connection:
        await _become(connection, "syncd_app")
        for statement in EDITS:
            await connection.execute(text(statement))
        await connection.execute(text("RESET ROLE"))
        captured = (await connection.execute(text("SELECT DISTINCT operation FROM syncd.captures"))).scalars()
        assert {"create_relation", "change_email", "update_profile", "add_tag", "remove_tag"} <= set(captured)


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_application_may_do_nothing_else(seeded: Store, statement: str) -> None:
    """Whatever the CRM would overwrite, or could send mail, is refused by the database and not by good manners."""
    with pytest.raises(ProgrammingError, match="permission denied"):
        await _run_as(seeded, "syncd_app", statement)


async def test_reader_sees_mirror_and_history_and_writes_nothing(seeded: Store) -> None:
    """Reports need everything that is known and no way to change a customer."""
    async with seeded.begin() as connection:
        tables = text("SELECT tablename FROM pg_tables WHERE schemaname = 'crm'")
        mirrored = (await connection.execute(tables)).scalars().all()
        await _become(connection, "syncd_reader")
        for table in mirrored:
            await connection.execute(text(f"SELECT * FROM crm.{table}"))
        for table in ("changes", "conflicts", "runs", "coverage"):
            await connection.execute(text(f"SELECT * FROM syncd.{table}"))
    for statement in (*EDITS, "SELECT * FROM syncd.entries", "SELECT * FROM syncd.captures"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            await _run_as(seeded, "syncd_reader", statement)


async def test_owner_role_may_write_every_table(seeded: Store) -> None:
    """The daemon can run without owning the schemas: its role writes everywhere and changes no shape."""
    async with seeded.begin() as connection:
        writable = text("""
            SELECT bool_and(has_table_privilege('syncd_owner', format('%I.%I', schemaname, tablename),
                                                'SELECT, INSERT, UPDATE, DELETE'))
            FROM pg_tables WHERE schemaname IN ('crm', 'syncd')""")
        assert (await connection.execute(writable)).scalar_one() is True
    with pytest.raises(ProgrammingError, match="must be owner"):
        await _run_as(seeded, "syncd_owner", "ALTER TABLE crm.relations ADD COLUMN nickname text")


async def test_grant_script_can_be_run_again(seeded: Store) -> None:
    """An administrator who is not sure whether it was run must be able to run it."""
    assert (await upgrade(seeded)).grants is Granted.ALREADY
    async with seeded.begin() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.execute(grant_script())


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own: roles belong to a whole server, and other tests have made them on the shared one."""
    with running_server(tmp_path_factory) as url:
        yield url


async def test_role_without_rights_migrates_and_leaves_the_roles_to_an_administrator(bare_server: str) -> None:
    """Hosted databases rarely let a tenant make roles: all works without them, and one script makes up for it."""
    async with empty_database(bare_server) as url:
        await admin(url, "CREATE ROLE tenant LOGIN")
        name = url.split("/")[-1].split("?")[0]
        await admin(url, f'ALTER DATABASE "{name}" OWNER TO tenant')
        tenant = Store.open(as_role(url, "tenant"), pool_size=1)
        assert (await upgrade(tenant)).grants is Granted.LEFT_TO_ADMINISTRATOR
        assert (await upgrade(tenant)).grants is Granted.LEFT_TO_ADMINISTRATOR
        administrator = Store.open(url, pool_size=1)
        async with administrator.begin() as connection:
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute(grant_script())
        await administrator.close()
        assert (await upgrade(tenant)).grants is Granted.ALREADY
        await tenant.close()
    await admin(bare_server, "DROP ROLE tenant")


async def _become(connection: Connection, role: str) -> None:
    await connection.execute(text(f"SET LOCAL ROLE {role}"))


async def _run_as(store: Store, role: str, statement: str) -> None:
    async with store.begin() as connection:
        await _become(connection, role)
        await connection.execute(text(statement))
