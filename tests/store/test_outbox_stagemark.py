"""Where staging begins: what is over is not walked through, and no earlier change is left behind a later one."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from syncd.domain.account import Account
from syncd.policy.stagemark import LOWEST, StageMark
from syncd.store import Store, outbox_stage
from syncd.store.by_index import plan_by_index
from syncd.store.engine import Connection
from syncd.store.outbox import Stager, stage
from tests.support.claims import account_with
from tests.support.locks import until_blocked
from tests.support.outbox import rows, run_sql
from tests.support.pages import pages

RENAME = "UPDATE crm.relations SET first_name = '{}' WHERE id = {}"


async def _staged(store: Store, stager: Stager, now: float, *, most: int = 5000) -> int:
    async with store.begin() as connection:
        staged = await stage(connection, stager, most=most, now=now)
    stager.committed(now)
    assert staged is not None
    return staged


async def _rename(connection: Connection, name: str, relation: int = 1) -> None:
    await connection.execute(text(RENAME.format(name, relation)))


async def _busy(store: Store, stager: Stager, start: float) -> None:
    """Let others edit and be staged for some seconds, so that the mark moves."""
    for turn in range(4):
        await run_sql(store, RENAME.format(f"name {start + turn}", 2))
        assert await _staged(store, stager, start + turn) == 1


async def _names(store: Store) -> list[str]:
    """The names of relation 1 in the order in which they will be sent."""
    sql = "SELECT payload #>> '{new,first_name}' AS name FROM syncd.entries WHERE relation_id = 1 ORDER BY seq"
    return [row["name"] for row in await rows(store, sql)]


async def test_the_last_of_two_edits_is_staged_last_however_long_the_first_took(store: Store) -> None:
    """The first number is far below where others are staged from. Left behind, it would be sent last, and stay."""
    await account_with(store, 2)
    stager = Stager()
    async with store.begin() as slow:
        await _rename(slow, "first")
        await _busy(store, stager, 0.0)
    await run_sql(store, RENAME.format("last", 1))
    assert stager.marks.starts_from(4.0).capture_id > 1
    assert await _staged(store, stager, 4.0) == 2
    assert await _names(store) == ["first", "last"]


async def test_a_transaction_that_lies_half_below_the_mark_is_staged_in_its_order(store: Store) -> None:
    """One transaction may edit a relation at its beginning and again at its end."""
    await account_with(store, 2)
    stager = Stager()
    async with store.begin() as slow:
        await _rename(slow, "first")
        await _busy(store, stager, 0.0)
        await _rename(slow, "last")
    assert await _staged(store, stager, 4.0) == 2
    assert await _names(store) == ["first", "last"]


async def test_a_transaction_that_no_snapshot_lists_is_known_too(store: Store) -> None:
    """Until a later one has ended, a snapshot ends below it: only our own number tells that it had begun."""
    await account_with(store, 2)
    stager = Stager()
    await run_sql(store, RENAME.format("somebody", 2))
    async with store.begin() as slow:
        await _rename(slow, "first")
        assert await _staged(store, stager, 0.0) == 1
        ((_, mark),) = stager.marks.noted
        assert mark.capture_id > 2
        assert len(mark.open_xacts) == 1
        assert await _staged(store, stager, 1.0) == 0
        await _rename(slow, "last")
    assert await _staged(store, stager, 2.0) == 2
    assert await _names(store) == ["first", "last"]


async def test_a_stage_that_is_rolled_back_leaves_no_mark(store: Store) -> None:
    """What it took is there again, below where it would have gone on from."""
    await account_with(store, 2)
    stager = Stager()
    await run_sql(store, RENAME.format("first", 1))
    async with store.engine.connect() as connection:
        assert await stage(connection, stager, now=0.0) == 1
        await connection.rollback()
        assert await stage(connection) == 1, "somebody else stages"
        async with store.begin() as another:
            assert await stage(another, stager, now=0.5) is None
        stager.committed(0.5)
        await connection.rollback()
    assert await _staged(store, stager, 1.0) == 1
    assert await _names(store) == ["first"]


async def test_a_stage_that_is_not_the_first_of_its_transaction_leaves_no_mark(store: Store) -> None:
    """Its number is older than what it knows of ids: somebody between the two may show something below them."""
    await account_with(store, 2)
    stager = Stager()
    await run_sql(store, RENAME.format("other", 2))
    async with store.begin() as staging, store.begin() as slow:
        await staging.execute(text("SELECT pg_current_xact_id()"))
        await _rename(slow, "first")
        assert await stage(staging, stager, now=0.0) == 1
        await staging.commit()
        stager.committed(0.0)
        assert await _staged(store, stager, 1.0) == 0
        await slow.commit()
        await run_sql(store, RENAME.format("last", 1))
        assert await _staged(store, stager, 2.0) == 2
    assert await _names(store) == ["first", "last"]


async def test_a_call_of_an_account_has_its_transactions_number_before_its_own(store: Store) -> None:
    """It may be the first thing that its transaction writes. Here it stands still where it takes its own number."""
    account = await account_with(store, 1)
    call = "SELECT crm.create_field('shoe_size', 'Shoe size', 'string', account => :account)"
    async with store.begin() as somebody:
        await somebody.execute(text("ALTER SEQUENCE syncd.captures_id_seq INCREMENT 1"))
        calling = asyncio.create_task(run_sql(store, call, account=account.name))
        await until_blocked(store)
        sql = "SELECT query, backend_xid IS NOT NULL AS has_number FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        (waiting,) = await rows(store, sql)
    await asyncio.wait_for(calling, 10)
    assert "create_field" in waiting["query"]
    assert waiting["has_number"]


async def test_a_server_that_took_over_is_read_from_the_lowest(store: Store) -> None:
    """It may never have been told of what was staged last: then that is there again, below the mark."""
    await account_with(store, 2)
    stager = Stager()
    await _busy(store, stager, 0.0)
    await run_sql(store, "SELECT setval('syncd.captures_id_seq', 2)")
    await run_sql(store, RENAME.format("first", 1))
    await run_sql(store, "SELECT setval('syncd.captures_id_seq', 1000)")
    assert stager.marks.starts_from(4.0).capture_id > 3
    assert await _staged(store, stager, 4.0) == 0, "as long as the server is the same, nothing can be there"
    stager.server = "the one before"
    assert await _staged(store, stager, 5.0) == 1


async def test_a_stage_that_is_cut_short_goes_on_where_it_stopped(store: Store) -> None:
    """A mark beyond what was taken would lose the rest."""
    await account_with(store, 2)
    stager = Stager()
    await _busy(store, stager, 0.0)
    for name in ("first", "second", "third", "last"):
        await run_sql(store, RENAME.format(name, 1))
    assert [await _staged(store, stager, at, most=3) for at in (4.0, 5.0, 6.0)] == [3, 1, 0]
    assert await _names(store) == ["first", "second", "third", "last"]


async def test_a_capture_that_moved_while_it_was_staged_is_staged_next(store: Store) -> None:
    """Two rows of a relation are merged by writing its captures: such a one is not taken, and must not be passed. Who
    merges may have begun after the stager."""
    await account_with(store, 3)
    stager = Stager()
    await _busy(store, stager, 0.0)
    await run_sql(store, RENAME.format("other", 2))
    await run_sql(store, RENAME.format("first", 3))
    async with store.begin() as somebody:
        await somebody.execute(text("SELECT 1 FROM syncd.captures WHERE relation_id = 2 FOR UPDATE"))
        staging = asyncio.create_task(_staged(store, stager, 4.0))
        await until_blocked(store)
        await run_sql(store, "UPDATE syncd.captures SET relation_id = 1 WHERE relation_id = 3")
    assert await asyncio.wait_for(staging, 10) == 1
    (left,) = await rows(store, "SELECT id FROM syncd.captures")
    assert all(mark.capture_id <= left["id"] for _, mark in stager.marks.noted)
    assert await _staged(store, stager, 5.0) == 1
    assert await _names(store) == ["first"]


async def test_ids_that_begin_again_are_staged(store: Store) -> None:
    """A database restored from a backup gives ids out again that lie far below the mark."""
    await account_with(store, 2)
    stager = Stager()
    await run_sql(store, "SELECT setval('syncd.captures_id_seq', 1000000)")
    await _busy(store, stager, 0.0)
    assert stager.marks.starts_from(4.0).capture_id > 1000000
    await run_sql(store, "SELECT setval('syncd.captures_id_seq', 10)")
    await run_sql(store, RENAME.format("first", 1))
    assert await _staged(store, stager, 4.0) == 1


async def test_a_stage_does_not_walk_over_what_a_held_transaction_keeps(store: Store) -> None:
    """A report of an hour must not make each stage read an hour's edits: here in pages, which no noise moves."""
    account = await account_with(store, 2)
    stager = Stager()
    async with store.begin() as held:
        await _rename(held, "held", 2)
        for at in range(6):
            await _many(store, account, 2000)
            assert await _staged(store, stager, float(at)) == 2000
        mark = stager.marks.starts_from(6.0)
        bounded, whole = await _pages(store, mark), await _pages(store, LOWEST)
    assert bounded * 5 < whole, (bounded, whole)
    assert await _staged(store, stager, 7.0) == 1, "the one that was held"


async def _many(store: Store, account: Account, count: int) -> None:
    await run_sql(
        store,
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "SELECT :account_id, 1, 'add_tag', 'tag:1', "
        """'{"tag_id": 1, "tag_remote_id": "1", "tag_name": "tag 1"}' """
        "FROM generate_series(1, CAST(:count AS integer))",
        account_id=account.id,
        count=count,
    )


async def _pages(store: Store, mark: StageMark) -> int:
    """Return how many pages a stage from a mark touches that finds nothing."""
    async with store.begin() as connection:
        await plan_by_index(connection)
        begin = {"capture_id": mark.capture_id, "open_xacts": [str(xact) for xact in mark.open_xacts]}
        return await pages(connection, outbox_stage._STAGE.format(most=5000), begin)
