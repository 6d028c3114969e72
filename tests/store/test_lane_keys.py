"""One lane for each relation: said by a table that no delivery writes, and held to by whoever makes a lane."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from syncd.store import Store
from syncd.store.by_index import plan_by_index
from tests.support.claims import account_with, changed, claimed_one, delivered, settled
from tests.support.lanes import add
from tests.support.locks import until_blocked
from tests.support.outbox import rows, run_sql
from tests.support.ready import unkeyed

MAKE = "INSERT INTO syncd.lanes (account_id, relation_id) VALUES (:account_id, :relation_id)"


@pytest.mark.parametrize("relation_id", [1, None])
async def test_a_second_lane_of_a_relation_or_of_an_account_is_refused(store: Store, relation_id: int | None) -> None:
    """Two lanes would be sent side by side: a relation's changes would have no order."""
    account = await account_with(store, 1)
    await run_sql(store, MAKE, account_id=account.id, relation_id=relation_id)
    with pytest.raises(IntegrityError, match="lane_keys_relation_id_key"):
        await run_sql(store, MAKE, account_id=account.id, relation_id=relation_id)
    assert len(await rows(store, "SELECT id FROM syncd.lanes")) == 1
    assert await unkeyed(store) == []


async def test_of_two_who_make_the_same_lane_at_once_one_is_refused(store: Store) -> None:
    """Neither sees the other's before it commits, whatever its snapshot."""
    account = await account_with(store, 1)
    given = {"account_id": account.id, "relation_id": 1}
    async with store.begin() as first:
        await first.execute(text(MAKE), given)
        second = asyncio.create_task(run_sql(store, MAKE, **given))
        await until_blocked(store)
    with pytest.raises(IntegrityError, match="lane_keys_relation_id_key"):
        await asyncio.wait_for(second, 10)


async def test_a_number_of_a_lane_is_given_once(store: Store) -> None:
    """Entries find their lane by its number."""
    account = await account_with(store, 2)
    await run_sql(store, MAKE, account_id=account.id, relation_id=1)
    again = "INSERT INTO syncd.lanes (id, account_id, relation_id) SELECT id, account_id, 2 FROM syncd.lanes"
    with pytest.raises(IntegrityError, match="lane_keys_pkey"):
        await run_sql(store, again)


async def test_a_lane_that_went_or_became_another_ones_leaves_room(store: Store) -> None:
    """A relation may come back after its lane was deleted, and a row that was merged gives its number away."""
    account = await account_with(store, 3)
    for relation in (1, 2):
        await run_sql(store, MAKE, account_id=account.id, relation_id=relation)
    await run_sql(store, "UPDATE syncd.lanes SET relation_id = 3 WHERE relation_id = 2")
    await run_sql(store, "DELETE FROM syncd.lanes WHERE relation_id = 1")
    assert await unkeyed(store) == []
    for relation in (1, 2):
        await run_sql(store, MAKE, account_id=account.id, relation_id=relation)
    assert await unkeyed(store) == []
    await run_sql(store, "TRUNCATE syncd.lanes")
    assert await unkeyed(store) == []


async def test_a_delivery_writes_no_key(store: Store) -> None:
    """Three writes of a lane for each delivery: what they do not touch need not be compared with older versions."""
    account = await account_with(store, 1)
    await changed(store, account, 1, add(1))
    (before,) = await rows(store, "SELECT CAST(xmin AS text), CAST(ctid AS text) FROM syncd.lane_keys")
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, add(2))
    assert await rows(store, "SELECT CAST(xmin AS text), CAST(ctid AS text) FROM syncd.lane_keys") == [before]


async def test_a_held_transaction_does_not_lengthen_the_writes_of_a_lane(store: Store) -> None:
    """A unique index compares what it takes in with all versions that are there: in pages, which no noise moves."""
    account = await account_with(store, 2)
    async with store.begin() as held:
        await held.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await held.execute(text("SELECT count(*) FROM syncd.lanes"))
        await changed(store, account, 1, add(1))
        await _written(store, 1, 30_000)
        await changed(store, account, 2, add(1))
        old, fresh = await _written(store, 1, 200), await _written(store, 2, 200)
    assert old < 1.25 * fresh, (old, fresh)


async def _written(store: Store, relation_id: int, times: int) -> int:
    """Write a lane so often, each time where it is; return how many of the table's pages that touched."""
    sql = """
        DO $$ DECLARE place tid; BEGIN
            SELECT ctid INTO place FROM syncd.lanes
            WHERE account_id = 1 AND relation_id BETWEEN {0} AND {0} ORDER BY relation_id DESC LIMIT 1;
            FOR n IN 1..{1} LOOP
                UPDATE syncd.lanes SET failures = n WHERE ctid = place RETURNING ctid INTO place;
            END LOOP;
        END $$
    """
    before = await _touched(store)
    async with store.begin() as connection:
        await plan_by_index(connection)
        await connection.execute(text(sql.format(relation_id, times)))
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    return await _touched(store) - before


async def _touched(store: Store) -> int:
    counted = "SELECT heap_blks_hit + heap_blks_read AS n FROM pg_statio_user_tables WHERE relname = 'lanes'"
    (found,) = await rows(store, counted)
    return int(found["n"])
