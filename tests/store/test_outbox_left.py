"""What a lane left behind its cursor: a claim finds all of it, and walks past nothing that was delivered."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from syncd.policy.states import ENTRY_TRANSITIONS, EntryStatus
from syncd.store import Store
from syncd.store.outbox import stage
from syncd.store.outbox_claim import _DUE, _ENTRIES
from tests.support.claims import (
    account_with,
    changed,
    claimed,
    claimed_one,
    delivered,
    entry_of,
    failed,
    lane_of,
    settled,
)
from tests.support.lanes import add, email, remove, sent
from tests.support.outbox import retry_entry, rows, run_sql
from tests.support.pages import pages

OPEN = (EntryStatus.PENDING, EntryStatus.HELD)


async def _left(store: Store, status: str) -> Any:
    """Leave the first of two entries behind in a state, the cursor beyond both."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET status = :status WHERE seq = 1", status=status)
    return account


@pytest.mark.parametrize("status", ["dead", "diverged"])
async def test_a_later_value_supersedes_what_was_left_behind_the_cursor(store: Store, status: str) -> None:
    """One that is not seen would stand there as if it still mattered."""
    account = await _left(store, status)
    await changed(store, account, 1, remove(1))
    (step,) = (await claimed_one(store, account)).plan.steps
    assert [entry.seq for entry in (*step.superseded, step.carrier)] == [1, 3]


async def test_what_is_parked_behind_the_cursor_keeps_its_facet(store: Store) -> None:
    """Nobody knows whether it was applied: what follows must not be sent before that is decided."""
    account = await _left(store, "parked")
    await changed(store, account, 1, remove(1))
    assert (await claimed(store, account)).lanes == ()


async def test_an_identity_that_was_refused_behind_the_cursor_keeps_all_that_follows(store: Store) -> None:
    """The CRM finds a relation by its address: what follows would be written to somebody else's."""
    account = await account_with(store)
    await changed(store, account, 1, email("b@x.example"))
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await run_sql(store, "UPDATE syncd.lanes SET acked_seq = tail_seq")
    await changed(store, account, 1, add(1))
    assert (await claimed(store, account)).lanes == ()


@pytest.mark.parametrize("status", ["dead", "parked", "diverged"])
async def test_what_is_retried_behind_the_cursor_is_sent(store: Store, status: str) -> None:
    """Nobody else would ever look there again."""
    account = await _left(store, status)
    async with store.begin() as connection:
        await retry_entry(connection, (await entry_of(store, 1))["id"])
    lane = await claimed_one(store, account)
    assert sent(lane.plan) == [add(1)]
    await settled(store, account, delivered(lane))
    assert (await entry_of(store, 1))["status"] == "accepted"
    assert (await claimed(store, account)).lanes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [(old, new) for old, arrows in ENTRY_TRANSITIONS.items() for new in arrows if new in OPEN and old not in OPEN],
)
async def test_whoever_opens_an_entry_again_has_it_marked(store: Store, before: str, after: str) -> None:
    """Every arrow of the machine that leads back, by a statement that knows nothing of the mark."""
    account = await _left(store, before)
    await run_sql(store, "UPDATE syncd.entries SET status = :status WHERE seq = 1", status=str(after))
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    assert (await entry_of(store, 1))["is_reopened"]
    assert sent((await claimed_one(store, account)).plan) == [add(1)]


async def test_what_is_simply_delivered_is_never_marked(store: Store) -> None:
    """The index of what was left behind stays as small as what waits for a person."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await settled(store, account, failed(await claimed_one(store, account), delay_s=0))
    await settled(store, account, delivered(await claimed_one(store, account)))
    assert await rows(store, "SELECT id FROM syncd.entries WHERE is_reopened") == []


async def test_a_claim_does_not_walk_past_what_was_delivered_while_a_transaction_stays_open(store: Store) -> None:
    """Hundreds of deliveries of one lane in an hour of somebody's report: in pages, which no noise moves."""
    account = await account_with(store)
    async with store.begin() as held:
        await held.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await held.execute(text("SELECT count(*) FROM syncd.entries"))
        for _ in range(40):
            await changed(store, account, 1, *(add(tag) for tag in range(1, 6)))
            await settled(store, account, delivered(await claimed_one(store, account)))
        await changed(store, account, 1, add(1))
        (lane,) = await rows(store, "SELECT id, acked_seq FROM syncd.lanes")
        bounded, whole = await _pages(store, lane["id"], lane["acked_seq"]), await _pages(store, lane["id"], 0)
    assert bounded * 3 < whole, (bounded, whole)


async def test_a_lane_is_found_at_its_newest_version_while_a_transaction_stays_open(store: Store) -> None:
    """Each of four looks at a lane, for every delivery, went past all that the lane ever was. (So many versions that
    their index had to make room, and would have put them together.)"""
    account = await account_with(store, 200)
    for relation in range(1, 201):
        await changed(store, account, relation, add(1))
    async with store.begin() as held:
        await held.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await held.execute(text("SELECT count(*) FROM syncd.lanes"))
        for _ in range(260):
            await run_sql(store, "UPDATE syncd.lanes SET failures = failures + 1, ready_at = now()")
        lane = await lane_of(store, 1)
        async with store.begin() as connection:
            await stage(connection)
            asked = {"account_id": account.id, "ready_at": lane["ready_at"], "most": 200}
            touched = await pages(connection, _DUE.text, asked)
    assert touched < 200 * 6, touched


async def _pages(store: Store, lane_id: int, acked: int) -> int:
    """Return how many pages the read of one lane touches, where a drainer reads it: behind its staging."""
    async with store.begin() as connection:
        await stage(connection)
        return await pages(connection, _ENTRIES.text, {"lane_ids": [lane_id], "acked": [acked], "window": 100})
