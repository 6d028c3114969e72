"""Invoices of a database that gave a detail up at its first refusal."""

from __future__ import annotations

from alembic import command
from sqlalchemy import text

from syncd.store import Store
from syncd.store.migrate import _config, upgrade
from tests.support.throwaway import empty_database

BEFORE = (
    "INSERT INTO crm.accounts (id, name, provider) VALUES (1, 'default', 'autorespond')",
    """
    INSERT INTO crm.invoices (id, account_id, number, is_credit, detail_status, detail_attempts)
    VALUES (1, 1, 'F1', false, 'failed', 1), (2, 1, 'F2', false, 'failed', 12), (3, 1, 'F3', false, 'done', 1)
    """,
    """
    INSERT INTO syncd.invoice_fetches (invoice_id, attempts, next_at)
    VALUES (1, 1, NULL), (2, 12, NULL), (3, 1, now() + interval '1 day')
    """,
)
DETAILS = "SELECT number, detail_status FROM crm.invoices WHERE detail_next_at <= now() ORDER BY number"
FETCHES = "SELECT invoice_id, next_at <= now() FROM syncd.invoice_fetches ORDER BY invoice_id"
TOLD = "SELECT row_id, before ->> 'detail_status', after ->> 'detail_status' FROM syncd.changes"


async def test_what_one_refusal_ended_is_asked_for_again(server_url: str) -> None:
    """Under the old rule nobody would ever ask again; what was tried often enough stays given up, and is not told."""
    async with empty_database(server_url) as url:
        store = Store.open(url, pool_size=1)
        async with store.begin() as connection:
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS syncd"))
            await connection.run_sync(lambda sync: command.upgrade(_config(sync), "0004"))
        async with store.begin() as connection:
            await connection.execute(text("SELECT set_config('syncd.origin', 'remote', true)"))
            for statement in BEFORE:
                await connection.execute(text(statement))
        await upgrade(store)
        async with store.begin() as connection:
            found = {q: [tuple(row) for row in await connection.execute(text(q))] for q in (DETAILS, FETCHES, TOLD)}
        await store.close()
    assert found[DETAILS] == [("F1", "pending"), ("F2", "failed"), ("F3", "done")]
    assert found[FETCHES] == [(1, True), (2, None), (3, False)]
    assert found[TOLD] == [(1, "failed", "pending")]
