"""Invoices of a database that gave a detail up at its first refusal."""

from __future__ import annotations

from sqlalchemy import text

from syncd.store.migrate import upgrade
from tests.support.throwaway import older_database

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
    async with older_database(server_url, "0004") as store:
        async with store.begin() as connection:
            await connection.execute(text("SELECT set_config('syncd.origin', 'remote', true)"))
            for statement in BEFORE:
                await connection.execute(text(statement))
        await upgrade(store)
        async with store.begin() as connection:
            found = {q: [tuple(row) for row in await connection.execute(text(q))] for q in (DETAILS, FETCHES, TOLD)}
    assert found[DETAILS] == [("F1", "pending"), ("F2", "failed"), ("F3", "done")]
    assert found[FETCHES] == [(1, True), (2, None), (3, False)]
    assert found[TOLD] == [(1, "failed", "pending")]
