"""An application at the mirror: a small seeded account, plain SQL edits, what was captured, what was refused."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from syncd.domain.changes import LocalChange, decode_change, facet_of
from syncd.store import Connection, Store

_SEED = """
INSERT INTO crm.accounts (id, name, provider) VALUES (1, 'default', 'autorespond');
INSERT INTO crm.relations (id, account_id, remote_id, email, first_name, last_name) VALUES
    (1, 1, '101', 'ann@example.nl', 'Ann', 'Jansen'), (2, 1, '102', 'bob@example.nl', 'Bob', NULL);
INSERT INTO crm.tags (id, account_id, remote_id, name, missing_since) VALUES
    (1, 1, '11', 'VIP', NULL), (2, 1, '12', 'Twin', NULL), (3, 1, '13', 'Twin', NULL), (4, 1, '14', 'Gone', now());
INSERT INTO crm.groups (id, account_id, remote_id, title) VALUES (1, 1, '21', 'Customers');
INSERT INTO crm.lists (id, account_id, remote_id, name, code) VALUES (1, 1, '31', 'News', 'NWS');
INSERT INTO crm.fields (id, account_id, remote_id, code, name, type, options, is_writable) VALUES
    (1, 1, '41', '7_FF1', 'Size', 'string', '{}', true), (2, 1, '42', '7_FF2', 'Member', 'boolean', '{}', true),
    (3, 1, '43', '7_FF3', 'Colour', 'list', '{red,blue}', true),
    (4, 1, '44', 'relation_email', 'E-mail', 'string', '{}', false);
INSERT INTO crm.orders (id, account_id, remote_id, relation_id) VALUES (1, 1, '51', 1);
INSERT INTO crm.order_lines (order_id, position, subscription_id) VALUES (1, 1, 'S9');
"""

_SECOND_ACCOUNT = """
INSERT INTO crm.accounts (id, name, provider) VALUES (2, 'second', 'autorespond');
INSERT INTO crm.relations (id, account_id, remote_id, email) VALUES (51, 2, '101', 'ann@example.nl');
INSERT INTO crm.tags (id, account_id, remote_id, name) VALUES (51, 2, '11', 'VIP');
INSERT INTO crm.groups (id, account_id, remote_id, title) VALUES (51, 2, '21', 'Customers');
INSERT INTO crm.fields (id, account_id, remote_id, code, type) VALUES (51, 2, '41', '7_FF1', 'string');
"""

# Rows made after the seed must not meet its ids.
_SEQUENCES = "ALTER TABLE crm.relations ALTER id RESTART 1000"


@dataclass(frozen=True, slots=True)
class Capture:
    relation_id: int | None
    change: LocalChange
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    message: str
    hint: str


async def run_script(store: Store, script: str, *, remote: bool = False) -> None:
    """Run a script of several statements in one transaction, as a pull would or as an application would."""
    async with store.begin_remote() if remote else store.begin() as connection:
        await _execute_script(connection, script)


async def _execute_script(connection: Connection, script: str) -> None:
    for statement in filter(str.strip, script.split(";\n")):
        await connection.exec_driver_sql(statement.rstrip(";\n "))


async def seed(store: Store, *, second_account: bool = False) -> None:
    """Mirror two relations, tags, a group, a list, fields and a subscription, as a pull would have."""
    await run_script(store, _SEED + (_SECOND_ACCOUNT if second_account else "") + _SEQUENCES, remote=True)


async def edit(store: Store, *statements: str) -> None:
    """Commit statements in one transaction of an application."""
    async with store.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def answer(store: Store, query: str) -> object:
    """Return the first column of the first row, and commit."""
    async with store.begin() as connection:
        return (await connection.exec_driver_sql(query)).scalar()


async def captured(store: Store) -> list[Capture]:
    """Decode every committed capture, in the order of their ids."""
    async with store.begin() as connection:
        return await _captures(connection)


async def tried(store: Store, *statements: str, remote: bool = False) -> list[LocalChange]:
    """Run statements in one transaction, return what they captured, and roll back."""
    async with store.engine.connect() as connection:
        if remote:
            await connection.exec_driver_sql("SELECT set_config('syncd.origin', 'remote', true)")
        for statement in statements:
            await connection.exec_driver_sql(statement)
        found = await _captures(connection)
        await connection.rollback()
        return [capture.change for capture in found]


async def _captures(connection: Connection) -> list[Capture]:
    """Decode by the contract; the stored facet must be the one that the domain computes."""
    rows = await connection.exec_driver_sql(
        "SELECT relation_id, account_id, operation, facet, actor, reason,"
        " syncd.payload_of(operation, facet, payload, before, after)::text AS payload"
        " FROM syncd.captures ORDER BY id"
    )
    decoded = []
    for row in rows.mappings():
        change = decode_change(row["operation"], row["payload"])
        assert row["facet"] == facet_of(change)
        assert row["account_id"] == 1
        decoded.append(Capture(row["relation_id"], change, row["actor"], row["reason"]))
    return decoded


async def changes(store: Store) -> list[LocalChange]:
    return [capture.change for capture in await captured(store)]


async def refusal(store: Store, *statements: str) -> Refusal:
    """Return how the last of the statements was refused; nothing of the transaction stays."""
    async with store.engine.connect() as connection:
        for statement in statements[:-1]:
            await connection.exec_driver_sql(statement)
        with pytest.raises(DBAPIError) as caught:
            await connection.exec_driver_sql(statements[-1])
        await connection.rollback()
    cause = caught.value.orig.__cause__ if caught.value.orig else None
    assert isinstance(cause, asyncpg.PostgresError)
    return Refusal(str(cause.sqlstate), str(cause.args[0]), str(cause.hint))
