"""Pruning: what was settled long ago goes, and nothing that anybody still needs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from syncd.domain.account import Account
from syncd.store import Store
from syncd.store.outbox import prune
from tests.support.claims import account_with, changed, claimed, claimed_one, delivered, entry_of, failed, settled
from tests.support.lanes import add, field
from tests.support.outbox import Circle, circle, retry_entry, rows, run_sql

OLD = "now() - interval '100 days'"


async def _pruned(store: Store, account: Account, *, keep_days: float = 90, most: int = 1000) -> int:
    total, after = 0, 0
    while True:
        async with store.begin() as connection:
            done = await prune(connection, account.id, keep_days=keep_days, after=after, most=most)
        total += done.entries
        if done.after is None:
            return total
        after = done.after


async def _aged(store: Store, **given: Any) -> None:
    """Let everything there is be a hundred days old; settled entries were settled then."""
    await run_sql(
        store,
        f"""UPDATE syncd.entries SET captured_at = {OLD}, staged_at = {OLD},
                   settled_at = CASE WHEN settled_at IS NOT NULL THEN {OLD} END""",
        **given,
    )


async def _left(store: Store) -> list[tuple[int, int, str]]:
    found = await rows(store, "SELECT relation_id, seq, status FROM syncd.entries ORDER BY 1, 2")
    return [tuple(row.values()) for row in found]  # type: ignore[misc]


@pytest.mark.parametrize("most", [1, 3, 1000])
async def test_old_settled_entries_go_with_their_tries(store: Store, most: int) -> None:
    """A table that only grows is a disk that fills."""
    account = await account_with(store, 4)
    for relation in range(1, 5):
        await changed(store, account, relation, field("a"), field("b"))
    await settled(store, account, *map(delivered, (await claimed(store, account)).lanes))
    await _aged(store)
    await changed(store, account, 1, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    assert await _pruned(store, account, most=most) == 8
    assert await _left(store) == [(1, 3, "accepted")]
    assert len(await rows(store, "SELECT 1 FROM syncd.attempts")) == 1


@pytest.mark.parametrize("status", ["pending", "held", "dead", "parked", "diverged"])
async def test_what_is_not_delivered_stays_however_old(store: Store, status: str) -> None:
    """It is the only place where the change is."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await run_sql(store, "UPDATE syncd.entries SET status = :s, settled_at = now()", s=status)
    await _aged(store)
    assert await _pruned(store, account) == 0


async def test_what_an_undelivered_entry_names_stays(store: Store) -> None:
    """A re-assertion without what it re-asserts could not be explained, nor a superseded entry without its carrier."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2), add(3), add(4))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, add(5))
    named = (await entry_of(store, 1, 1))["id"]
    await run_sql(store, "UPDATE syncd.entries SET reasserts = :id WHERE seq = 5", id=named)
    await run_sql(store, "UPDATE syncd.entries SET status = 'superseded', superseded_by = 5 WHERE seq = 2")
    await run_sql(store, "UPDATE syncd.entries SET superseded_by = 3 WHERE seq = 5")
    await _aged(store)
    assert await _pruned(store, account) == 1
    assert [seq for _, seq, _ in await _left(store)] == [1, 2, 3, 5]


async def test_what_forbids_an_older_value_stays(store: Store) -> None:
    """Without the delivered one, a retry of the dead one before it would be allowed, and undo it."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"), field("b"), add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE seq = 1")
    await _aged(store)
    assert await _pruned(store, account) == 1
    assert [seq for _, seq, _ in await _left(store)] == [1, 2]
    with pytest.raises(Exception, match="was delivered"):
        async with store.begin() as connection:
            await retry_entry(connection, (await entry_of(store, 1, 1))["id"])


async def test_what_awaits_its_proof_stays(store: Store) -> None:
    """A pull that shows it must still find it."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET prove_until = now() + interval '1 day'")
    await _aged(store)
    assert await _pruned(store, account) == 0


async def test_a_day_is_kept_whatever_is_asked(store: Store) -> None:
    """A pull protects what was settled after it asked; it must find it."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET settled_at = now() - interval '23 hours', staged_at = settled_at")
    assert await _pruned(store, account, keep_days=0) == 0


async def test_another_accounts_entries_are_its_own(store: Store) -> None:
    """Each account keeps for as long as its settings say."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await _aged(store)
    await run_sql(store, "UPDATE syncd.entries SET account_id = account_id + 1")
    assert await _pruned(store, account) == 0


async def test_the_walk_ends_at_what_is_kept(store: Store) -> None:
    """A table of five million recent entries must not be read through every hour."""
    account = await account_with(store, 20)
    for relation in range(1, 21):
        await changed(store, account, relation, add())
    async with store.begin() as connection:
        done = await prune(connection, account.id, keep_days=90, most=5)
    assert (done.entries, done.after) == (0, None)


async def test_pruning_waits_for_no_lane_and_no_lane_for_it(store: Store) -> None:
    """Claims, settles and stages go on while a batch is being deleted."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await _aged(store)
    async with asyncio.timeout(10), store.begin() as pruner:
        assert (await prune(pruner, account.id, keep_days=90)).entries == 1
        await changed(store, account, 1, add(2))
        lane = await claimed_one(store, account)
        await settled(store, account, failed(lane, delay_s=0.0))
    async with asyncio.timeout(10), store.begin() as holder:
        await holder.execute(text("SELECT 1 FROM syncd.lanes FOR UPDATE"))
        await _aged_row(store)
        assert await _pruned(store, account) == 0


async def _aged_row(store: Store) -> None:
    await run_sql(store, f"UPDATE syncd.entries SET staged_at = {OLD}")


async def test_a_drain_goes_on_while_thousands_are_pruned(store: Store) -> None:
    """The daemon does both at once, every hour."""
    async with circle(store, relations=20) as c:
        await _history(c, 3000)
        for who in list(c.sandbox.world.relations):
            await c.edit("UPDATE crm.relations SET last_name = 'X' WHERE id = :who", who=who)
        async with asyncio.timeout(60):
            pruned, report = await asyncio.gather(_pruned(store, c.account, most=100), c.drain())
        assert pruned == 3000
        assert (report.delivered, report.is_empty) == (20, True)
        assert {entry["status"] for entry in await c.entries()} <= {"accepted", "verified"}


async def _history(c: Circle, number: int) -> None:
    """So many entries of a hundred days ago, delivered, with one try each, over all relations."""
    await run_sql(
        c.store,
        f"""WITH lanes AS (
                INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, acked_seq)
                SELECT account_id, id, :number, :number FROM crm.relations RETURNING id, account_id, relation_id
            ), added AS (
                INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status,
                                           xact, captured_at, staged_at, settled_at)
                SELECT l.id, n, l.account_id, l.relation_id, 'add_tag', 'tag:1', '{{}}', 'accepted',
                       pg_current_xact_id(), {OLD}, {OLD}, {OLD}
                FROM lanes l CROSS JOIN generate_series(1, CAST(:number AS integer)) n
                ORDER BY n, l.id LIMIT :number RETURNING id, lane_id, account_id
            )
            INSERT INTO syncd.attempts (account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s,
                                        requests, outcome)
            SELECT account_id, lane_id, 1, id, 'add_tag', :then, 0.1, 1, 'accepted' FROM added""",
        number=number,
        then=datetime.now(UTC),
    )
