"""The backlog: what still goes out and what waits for a person, counted in one walk."""

from __future__ import annotations

from sqlalchemy import text

from syncd.store import Store
from syncd.store.outbox import Backlog, count_backlog
from tests.support.claims import account_with, changed
from tests.support.lanes import add, email, remove
from tests.support.outbox import run_sql


async def _backlog(store: Store, account_id: int) -> Backlog:
    async with store.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '2s'"))
        return await count_backlog(connection, account_id)  # type: ignore[arg-type]


async def test_one_endless_lane_is_counted_at_once(store: Store) -> None:
    """Every one-shot drain ends with this count: asking of each entry what is before it took minutes."""
    account = await account_with(store)
    await run_sql(
        store,
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
           SELECT :a, 1, 'add_tag', 'tag:' || n, '{}' FROM generate_series(1, 5000) n""",
        a=account.id,
    )
    await changed(store, account, 1, add())
    assert await _backlog(store, account.id) == Backlog(5001, 0)


async def test_what_waits_behind_something_waits_as_well(store: Store) -> None:
    """A facet behind its own parked entry, a relation behind its identity; never the lane next to it."""
    account = await account_with(store, 3)
    await changed(store, account, 1, add(1), remove(1), add(2))
    await changed(store, account, 2, email("b@x.example"), add(1), email("c@x.example"))
    await changed(store, account, 3, add(1))
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked' WHERE seq = 1 AND relation_id IN (1, 2)")
    assert await _backlog(store, account.id) == Backlog(pending=2, blocked=5)


async def test_a_mended_address_gets_past_what_the_crm_refused_and_nothing_else_does(store: Store) -> None:
    """The claim plans so; counted otherwise, a drain would wait for what is never sent, or not for what is."""
    account = await account_with(store)
    await changed(store, account, 1, email("b@x.example"), add(1), email("c@x.example"))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE seq = 1")
    assert await _backlog(store, account.id) == Backlog(pending=0, blocked=3)
    await run_sql(
        store,
        """INSERT INTO syncd.attempts (account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s, requests,
                                       outcome)
           SELECT account_id, lane_id, 1, id, operation, now(), 0, 1, 'rejected' FROM syncd.entries WHERE seq = 1""",
    )
    assert await _backlog(store, account.id) == Backlog(pending=1, blocked=2)
