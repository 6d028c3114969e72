"""The feed: whatever transactions commit when, a consumer sees each change once, and none out of its order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text

from syncd.domain.account import Account
from syncd.domain.errors import UserError
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.store.feed import FeedRow, feed_head, read_feed
from syncd.store.history_prune import prune_history
from tests.support.outbox import rows, run_sql
from tests.support.proving import Say, is_long, seed

PATIENCE_S = 60.0
NOTE = (
    "INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin) "
    "VALUES (1, 'orders', {}, 'insert', 'remote')"
)
Reader = Callable[[asyncpg.Connection, object, int], Awaitable[list[tuple[object, int]]]]


async def by_horizon(connection: asyncpg.Connection, cursor: object, most: int) -> list[tuple[object, int]]:
    found = await connection.fetch("SELECT next_cursor, row_id FROM crm.changes_since($1, $2)", cursor, most)
    return [(row[0], row[1]) for row in found]


async def by_number(connection: asyncpg.Connection, cursor: object, most: int) -> list[tuple[object, int]]:
    """What everybody writes first, and what is wrong."""
    query = "SELECT id, row_id FROM syncd.changes WHERE id > $1 ORDER BY id LIMIT $2"
    return [(row[0], row[1]) for row in await connection.fetch(query, cursor or 0, most)]


async def shown(read: Callable[[], Awaitable[list[tuple[object, int]]]], wanted: list[int]) -> None:
    """Read until exactly these rows are shown: transactions of other databases of this server hold the horizon too."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if [row for _, row in await read()] == wanted:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def connections(url: str, number: int) -> AsyncIterator[list[asyncpg.Connection]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(number):
            connection = await asyncpg.connect(url.replace("+asyncpg", ""))
            stack.push_async_callback(connection.close)
            opened.append(connection)
        yield opened


async def followed(url: str, read: Reader, dice: random.Random, steps: int) -> tuple[list[int], set[int]]:
    """Let writers begin, write, commit and give up in any order beside a consumer; return what it saw and what is."""
    seen: list[int] = []
    cursor: object = None
    async with connections(url, 6) as (consumer, *writers):
        open_: dict[int, asyncpg.transaction.Transaction] = {}
        for step in range(steps):
            which = dice.randrange(len(writers))
            if which not in open_:
                transaction = writers[which].transaction()
                await transaction.start()
                open_[which] = transaction
            match dice.randrange(5):
                case 0 | 1 | 2:
                    await writers[which].execute(NOTE.format(step))
                case 3:
                    await open_.pop(which).commit()
                case _:
                    await open_.pop(which).rollback()
            found = await read(consumer, cursor, dice.randrange(1, 4))
            seen.extend(row for _, row in found)
            cursor = found[-1][0] if found else cursor
        for transaction in open_.values():
            await transaction.commit()
        committed = {row["row_id"] for row in await consumer.fetch("SELECT row_id FROM syncd.changes")}
        async with asyncio.timeout(PATIENCE_S):  # transactions of other databases of this server hold the horizon too
            while True:
                found = await read(consumer, cursor, 1000)
                seen.extend(row for _, row in found)
                cursor = found[-1][0] if found else cursor
                if committed <= set(seen) or (not found and read is by_number):
                    return seen, committed
                await asyncio.sleep(0.02)


@pytest.fixture
async def account(store: Store) -> Account:
    async with store.begin_remote() as connection:
        return await ensure_account(connection, "default", "autorespond")


async def test_a_consumer_sees_every_commit_once(database: str, store: Store, account: Account, proof: Say) -> None:
    """A change that commits late, long after later ones were read, is the one that every such feed loses."""
    steps = 3000 if is_long() else 250
    seen, committed = await followed(database, by_horizon, random.Random(seed()), steps)
    assert sorted(seen) == sorted(committed)
    proof(f"feed: {len(committed)} changes of {steps} steps by seed {seed()}, each seen once")


async def test_the_order_of_numbers_would_lose_some(database: str, store: Store, account: Account) -> None:
    """The same play against "id greater than the last": if it lost nothing, the test above would prove nothing."""
    seen, committed = await followed(database, by_number, random.Random(seed()), 250)
    assert len(committed - set(seen)) > 5


async def test_a_transaction_that_stays_open_holds_the_feed_and_does_not_tear_it(
    database: str, account: Account
) -> None:
    """Later changes wait for it: a consumer that had read on could never come back."""
    async with connections(database, 3) as (consumer, slow, quick):
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(NOTE.format(1))
        await quick.execute(NOTE.format(2))
        assert await by_horizon(consumer, None, 10) == []
        await transaction.commit()
        await shown(lambda: by_horizon(consumer, None, 10), [1, 2])


async def test_following_from_the_head_misses_nothing_of_an_open_transaction(database: str, account: Account) -> None:
    """Take the head, read the tables, follow: what the tables did not show yet must come."""
    async with connections(database, 2) as (consumer, slow):
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(NOTE.format(1))
        head = await consumer.fetchval("SELECT crm.changes_head()")
        await transaction.commit()
        await shown(lambda: by_horizon(consumer, head, 10), [1])


@pytest.mark.parametrize("cursor", ["x", "5", "5:", "1:2:3", "99999999999999:1"])
async def test_a_cursor_that_is_none_is_refused(store: Store, account: Account, cursor: str) -> None:
    """A typing error that began at the first change, or at the end, would look like an answer."""
    async with store.begin() as connection:
        with pytest.raises(UserError, match="cursor"):
            await read_feed(connection, cursor)


async def test_what_is_not_kept_any_more_is_refused_and_the_rest_goes_on(store: Store, account: Account) -> None:
    """A consumer that was away for too long must read anew; one that was not must not notice."""
    for row in range(6):
        await run_sql(store, NOTE.format(row))
    await run_sql(store, "UPDATE syncd.changes SET changed_at = now() - interval '10 days' WHERE row_id < 3")
    await shown(lambda: _rows(store), [0, 1, 2, 3, 4, 5])
    before = await _read(store)
    total, after = 0, 0
    while True:
        async with store.begin() as connection:
            done = await prune_history(connection, account.id, keep_days=7, after=after, most=2)
        total += done.changes
        if done.after is None:
            break
        after = done.after
    assert total == 3
    with pytest.raises(UserError, match="not kept any more"):
        await _read(store, before[1].cursor)
    assert [row.row_id for row in await _read(store, before[2].cursor)] == [3, 4, 5]
    assert [row.row_id for row in await _read(store)] == [3, 4, 5]
    refused = await rows(store, "SELECT kept_since < now() - interval '9 days' AS is_old FROM syncd.history_horizons")
    assert refused == [{"is_old": True}]


async def test_the_first_showing_of_an_invoice_stays(store: Store, account: Account) -> None:
    """Pulls call invoices as witnesses by the run that first showed them."""
    await run_sql(store, NOTE.format(1).replace("orders", "invoices"))
    await run_sql(store, NOTE.format(2))
    await run_sql(store, "UPDATE syncd.changes SET changed_at = now() - interval '10 days'")
    async with store.begin() as connection:
        assert (await prune_history(connection, account.id, keep_days=7)).changes == 1
    assert await rows(store, "SELECT table_name FROM syncd.changes") == [{"table_name": "invoices"}]


async def test_a_restored_history_says_so_until_it_has_settled_in(store: Store, account: Account) -> None:
    """Transaction numbers of another server would hide its rows for years, without a word."""
    await run_sql(store, NOTE.format(1))
    await run_sql(store, "UPDATE syncd.changes SET xact = '9000000000000000000'")
    with pytest.raises(UserError, match="restored or moved"):
        await _read(store)
    await run_sql(store, "CALL syncd.settle_in()")
    await shown(lambda: _rows(store), [1])


async def _rows(store: Store) -> list[tuple[object, int]]:
    return [(row.cursor, row.row_id) for row in await _read(store)]


async def _read(store: Store, since: str | None = None) -> tuple[FeedRow, ...]:
    async with store.begin() as connection:
        assert ":" in await feed_head(connection)
        return await read_feed(connection, since)


async def test_plain_roles_may_follow_and_look_back(store: Store, account: Account) -> None:
    """Reports and applications are who asks; neither has a right on the machinery."""
    await run_sql(store, NOTE.format(1))
    for role in ("syncd_app", "syncd_reader"):
        async with store.begin() as connection:
            await connection.execute(text(f"SET LOCAL ROLE {role}"))
            for function in ("orders", "relations", "relation_tags", "invoice_lines"):
                await connection.execute(text(f"SELECT * FROM crm.{function}_as_of(now())"))
            await connection.execute(text("SELECT * FROM crm.changes_since(crm.changes_head())"))
            assert (await connection.execute(text("SELECT count(*) FROM crm.history"))).scalar_one() == 1
