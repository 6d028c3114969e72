"""The coverage ledger in the database agrees with the arithmetic of the policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.domain.errors import Fenced
from syncd.domain.ids import RunId
from syncd.policy.coverage import Interval, union
from syncd.policy.states import RunStatus
from syncd.store import Store, coverage, runs
from syncd.store.accounts import ensure_account
from syncd.store.runs import Ending

START = datetime(2024, 5, 1, tzinfo=UTC)
PARTS = [Interval(START + timedelta(hours=a), START + timedelta(hours=b)) for a, b in ((5, 7), (0, 2), (2, 3), (6, 9))]


async def test_what_is_proven_adds_up_in_any_order(store: Store) -> None:
    """Pulls prove time in the order in which holes are found, not in that of time."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")
        for part in PARTS:
            await coverage.prove(connection, account.id, "orders", part, RunId(1))
        assert await coverage.proven(connection, account.id, "orders") == union(PARTS)
        assert await coverage.proven(connection, account.id, "invoices") == ()


async def test_proof_goes_with_the_transaction_that_wrote_the_rows(store: Store) -> None:
    """Proof without rows is a window lost for good."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")

    async def fails() -> None:
        async with store.begin_remote() as connection:
            await coverage.prove(connection, account.id, "orders", PARTS[0], RunId(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fails()
    async with store.begin() as connection:
        assert await coverage.proven(connection, account.id, "orders") == ()


async def test_a_run_is_closed_once(store: Store) -> None:
    """Whoever comes second has been fenced and must roll back."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")
        run = await runs.start(connection, account.id, "orders", "manual", None)
        await runs.finish(connection, run, Ending(RunStatus.SUCCEEDED))
        with pytest.raises(Fenced):
            await runs.finish(connection, run, Ending(RunStatus.FAILED))


async def test_time_that_cannot_have_come_is_taken_back_and_nothing_else(store: Store) -> None:
    """A clock that ran ahead has claimed the future: it must be read when it has come."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")
        for part in PARTS:
            await coverage.prove(connection, account.id, "orders", part, RunId(1))
        young = Interval(START + timedelta(hours=7), START + timedelta(hours=8))
        await coverage.prove(connection, account.id, "orders", young, RunId(1), START + timedelta(hours=8))
        assert await coverage.proven(connection, account.id, "orders") == (
            Interval(START, START + timedelta(hours=3)),
            Interval(START + timedelta(hours=5), START + timedelta(hours=8)),
        )
