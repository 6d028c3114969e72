"""Runs: who may write off whose."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from syncd.store import Store, runs
from syncd.store.accounts import ensure_account


@pytest.mark.parametrize(
    ("trigger", "age", "is_abandoned"),
    [
        ("schedule", "1 second", True),
        ("start", "1 second", True),
        ("manual", "1 second", False),
        ("backfill", "3 hours", False),
        ("backfill", "25 hours", True),
    ],
)
async def test_a_daemon_writes_off_its_own_kind_and_what_is_a_day_old(
    store: Store, trigger: str, age: str, is_abandoned: bool
) -> None:
    """A daemon that starts beside a backfill must not throw away hours of its reading."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")
        run = await runs.start(connection, account.id, "orders", trigger, None)
        aged = text(
            "UPDATE syncd.runs SET started_at = started_at - CAST(CAST(:age AS text) AS interval) WHERE id = :id"
        )
        await connection.execute(aged, {"age": age, "id": run.id})
    async with store.begin() as connection:
        assert await runs.abandon(connection, account.id) == int(is_abandoned)
