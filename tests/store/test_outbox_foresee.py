"""Foresee: what is told of a captured mass change is what staging then does with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from syncd.domain.account import Account
from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.store import Store
from syncd.store.outbox import set_guard
from syncd.store.outbox_foresee import ForeseenHold, foresee
from syncd.store.outbox_plan import snapshot
from tests.support.holds import TIGHT, burst, decided, guarded, holds, staged_all
from tests.support.outbox import rows


async def _foreseen(store: Store, account: Account, guard: Guard | None = TIGHT) -> ForeseenHold | None:
    async with snapshot(store) as connection:
        return await foresee(connection, account.id, guard)


async def _one_by_one(store: Store, first: int, last: int, *, ago_s: float = 0.0) -> None:
    for relation in range(first, last + 1):
        await burst(store, relation, relation, ago_s=ago_s)


async def _large(store: Store) -> None:
    """One transaction, and an ordinary one beside it."""
    await burst(store, 1, 20)
    await burst(store, 40, 45, tag=2)


async def _loop(store: Store) -> None:
    """A loop of single statements, some minutes ago, and an ordinary edit of now."""
    await _one_by_one(store, 1, 15, ago_s=600)
    await burst(store, 40, 45)


async def _half_staged(store: Store) -> None:
    """The loop was not crowded when its first part was staged; that part would be held beside the rest."""
    await _one_by_one(store, 1, 8)
    await staged_all(store)
    await _one_by_one(store, 9, 14)


async def _joining(store: Store) -> None:
    """A hold is open; more is changed at once."""
    await burst(store, 1, 20)
    await staged_all(store)
    await burst(store, 21, 40, tag=2)


async def _of_a_held_transaction(store: Store) -> None:
    """Half of a transaction is staged and held; the other half follows it."""
    await burst(store, 1, 20)
    async with store.begin() as connection:
        await connection.exec_driver_sql("CREATE TEMPORARY TABLE rest ON COMMIT DROP AS SELECT * FROM syncd.captures")
        await connection.exec_driver_sql("DELETE FROM syncd.captures WHERE relation_id > 12")
        await connection.exec_driver_sql("DELETE FROM rest WHERE relation_id <= 12")
        await connection.exec_driver_sql("CREATE TABLE public.rest AS TABLE rest")
    await staged_all(store)
    async with store.begin() as connection:
        columns = "account_id, relation_id, operation, facet, payload, before, after, xact, captured_at"
        await connection.exec_driver_sql(f"INSERT INTO syncd.captures ({columns}) SELECT {columns} FROM public.rest")
        await connection.exec_driver_sql("DROP TABLE public.rest")


async def _mixed(store: Store) -> None:
    """A large transaction, and a loop in the same minute."""
    await burst(store, 1, 20)
    await _one_by_one(store, 21, 35)


@pytest.mark.parametrize("edits", [_large, _loop, _half_staged, _joining, _of_a_held_transaction, _mixed])
async def test_what_is_foreseen_is_what_staging_holds(store: Store, edits: Callable[[Store], Awaitable[None]]) -> None:
    """A plan that says otherwise than the drain does is worse than none."""
    account = await guarded(store)
    await edits(store)
    before = (await rows(store, "SELECT coalesce(max(id), 0) AS last FROM syncd.entries"))[0]["last"]
    found = await _foreseen(store, account)
    await staged_all(store)
    (held,) = await rows(
        store,
        "SELECT count(*) AS changes, count(DISTINCT relation_id) AS relations FROM syncd.entries "
        "WHERE status = 'held' AND id > :before",
        before=before,
    )
    assert found is not None
    assert {"changes": found.changes, "relations": found.relations} == held
    assert found.limit == 10
    (hold,) = await holds(store)
    assert found.hold_id in (None, hold["id"])
    assert found.hold_id is not None or found.reason == hold["reason"]


async def test_nothing_is_foreseen_of_ordinary_edits(store: Store) -> None:
    """Nor of a day's edits that waited for a daemon, nor without a guard, nor of what was approved."""
    account = await guarded(store)
    assert await _foreseen(store, account) is None
    await burst(store, 1, 10)
    for relation in range(20, 40):
        await burst(store, relation, relation, ago_s=3600.0 * relation)
    assert await _foreseen(store, account) is None
    await burst(store, 40, 60)
    assert await _foreseen(store, account, None) is None
    assert await _foreseen(store, account) is not None


async def test_a_burst_that_goes_on_from_what_was_approved_is_not_foreseen(store: Store) -> None:
    """A person has said yes to it."""
    account = await guarded(store)
    await _one_by_one(store, 1, 15)
    await staged_all(store)
    await decided(store, (await holds(store))[0]["id"], HoldStatus.APPROVED)
    await _one_by_one(store, 16, 20)
    assert await _foreseen(store, account) is None


async def test_the_share_of_the_relations_counts_as_it_does_at_staging(store: Store) -> None:
    """A small account has a lower limit."""
    guard = Guard(relations=500, share=0.25, window_s=60, floor=5)
    account = await guarded(store, 60, guard)
    async with store.begin() as connection:
        await set_guard(connection, account.id, guard)
    await burst(store, 1, 16)
    found = await _foreseen(store, account, guard)
    assert found == ForeseenHold(16, 16, 15, "16 relations changed in one transaction")
