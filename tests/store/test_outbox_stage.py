"""Stage: committed captures become entries, in order, under dense numbers, each exactly once."""

import asyncio

import pytest

from syncd.domain.errors import InfrastructureError
from syncd.store import Connection, Store
from syncd.store.outbox import end_still_stager, stage
from tests.support.locks import until_blocked
from tests.support.outbox import new_account, remote_sql, rows, run_sql, stage_all


async def _capture(store: Store, account_id: int, relation_id: int | None, *payloads: int) -> None:
    for number in payloads:
        await run_sql(
            store,
            """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
               VALUES (:account_id, :relation_id, 'add_tag', 'tag:1', jsonb_build_object('n', CAST(:n AS integer)))""",
            account_id=account_id,
            relation_id=relation_id,
            n=number,
        )


async def _relations(store: Store, account_id: int, count: int) -> None:
    await remote_sql(
        store,
        """INSERT INTO crm.relations (id, account_id, remote_id, email)
           SELECT n, :account_id, n, n || '@x.example' FROM generate_series(1, :count) n""",
        account_id=account_id,
        count=count,
    )


async def test_captures_of_a_lane_get_dense_numbers_in_order(store: Store) -> None:
    """The cursor of a lane is one number: a gap would look like an entry that never comes."""
    account = await new_account(store)
    await _relations(store, account.id, 2)
    await _capture(store, account.id, 1, 10, 11)
    await _capture(store, account.id, 2, 20)
    assert await stage_all(store) == 3
    await _capture(store, account.id, 1, 12)
    assert await stage_all(store) == 1
    found = await rows(store, "SELECT relation_id, seq, payload ->> 'n' AS n FROM syncd.entries ORDER BY 1, 2")
    assert [(r["relation_id"], r["seq"], r["n"]) for r in found] == [
        (1, 1, "10"),
        (1, 2, "11"),
        (1, 3, "12"),
        (2, 1, "20"),
    ]
    assert await rows(store, "SELECT 1 FROM syncd.captures") == []


async def test_a_change_that_commits_late_is_staged_late_and_not_lost(store: Store) -> None:
    """Ids are taken before commit: whoever drains by "id greater than the last" loses this one for ever."""
    account = await new_account(store)
    await _relations(store, account.id, 2)
    async with store.begin() as slow:
        await slow.exec_driver_sql(
            "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
            f"VALUES ({account.id}, 1, 'add_tag', 'tag:1', '{{}}')"
        )
        await _capture(store, account.id, 2, 20)
        assert await stage_all(store) == 1
    assert await stage_all(store) == 1
    assert {r["relation_id"] for r in await rows(store, "SELECT relation_id FROM syncd.entries")} == {1, 2}


async def test_only_one_stager_works_at_a_time(store: Store) -> None:
    """Two would hand out the same numbers, or wait for each other's lanes."""
    account = await new_account(store)
    await _relations(store, account.id, 1)
    await _capture(store, account.id, 1, 1)
    async with asyncio.timeout(10), store.begin() as first:
        assert await stage(first) == 1
        async with store.begin() as second:
            assert await stage(second) is None


async def test_who_stages_goes_on_by_index_whoever_is_staging(store: Store) -> None:
    """The claim comes next in the same transaction, and asks for nothing: also when another stager was at work."""
    async with asyncio.timeout(10), store.begin() as first, store.begin() as second:
        for connection, staged in ((first, 0), (second, None)):
            assert await _scans(connection) == ["on", "on"]
            assert await stage(connection) == staged
            assert await _scans(connection) == ["off", "off"]


async def _scans(connection: Connection) -> list[str]:
    """Return whether this transaction may scan a table, and gather its rows by a bitmap."""
    names = ("enable_seqscan", "enable_bitmapscan")
    return [str((await connection.exec_driver_sql(f"SHOW {name}")).scalar_one()) for name in names]


async def test_an_idle_lane_is_woken_and_a_claimed_one_keeps_its_lease(store: Store) -> None:
    """Waking a claimed lane would let a second worker send beside the first."""
    account = await new_account(store)
    await _relations(store, account.id, 2)
    await _capture(store, account.id, 1, 1)
    await _capture(store, account.id, 2, 1)
    await stage_all(store)
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL WHERE relation_id = 1")
    await run_sql(
        store, "UPDATE syncd.lanes SET ready_at = now() + interval '1 hour', claimed_by = 'w' WHERE relation_id = 2"
    )
    await _capture(store, account.id, 1, 2)
    await _capture(store, account.id, 2, 2)
    await stage_all(store)
    due = await rows(store, "SELECT relation_id FROM syncd.lanes WHERE ready_at <= now()")
    assert [r["relation_id"] for r in due] == [1]


async def test_a_lane_in_back_off_is_woken_for_what_is_new(store: Store) -> None:
    """A failing facet must not delay a new change of another facet of the same relation."""
    account = await new_account(store)
    await _relations(store, account.id, 1)
    await _capture(store, account.id, 1, 1)
    await stage_all(store)
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() + interval '1 hour'")
    await _capture(store, account.id, 1, 2)
    await stage_all(store)
    assert len(await rows(store, "SELECT 1 FROM syncd.lanes WHERE ready_at <= now()")) == 1


async def test_changes_of_no_relation_share_the_accounts_lane(store: Store) -> None:
    """New fields are the account's business; two lanes for them could create one twice."""
    account = await new_account(store)
    await _capture(store, account.id, None, 1)
    await stage_all(store)
    await _capture(store, account.id, None, 2)
    await stage_all(store)
    assert [r["tail_seq"] for r in await rows(store, "SELECT tail_seq FROM syncd.lanes")] == [2]


async def test_a_batch_leaves_the_rest_for_the_next(store: Store) -> None:
    """A burst of a million captures must not become one transaction."""
    account = await new_account(store)
    await _relations(store, account.id, 1)
    await _capture(store, account.id, 1, 1, 2, 3)
    async with store.begin() as connection:
        assert await stage(connection, most=2) == 2
    async with store.begin() as connection:
        assert await stage(connection, most=2) == 1
    found = await rows(store, "SELECT seq, payload ->> 'n' AS n FROM syncd.entries ORDER BY seq")
    assert [(r["seq"], r["n"]) for r in found] == [(1, "1"), (2, "2"), (3, "3")]


async def test_stagers_and_settlers_do_not_wait_in_a_circle(store: Store) -> None:
    """Both lock many lanes; they must take them in one order."""
    account = await new_account(store)
    await _relations(store, account.id, 60)
    for _ in range(3):
        await run_sql(
            store,
            """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
               SELECT :account_id, n, 'add_tag', 'tag:1', '{}' FROM generate_series(60, 1, -1) n""",
            account_id=account.id,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(stage_all(store))
            for _ in range(3):
                group.create_task(_lock_as_settle_does(store))


async def _lock_as_settle_does(store: Store) -> None:
    await run_sql(
        store,
        """WITH alive AS (SELECT id FROM syncd.lanes ORDER BY relation_id FOR UPDATE)
           UPDATE syncd.lanes l SET failures = failures + 1 FROM alive WHERE l.id = alive.id""",
    )


async def test_a_relation_in_an_applications_hands_does_not_hold_up_the_stager(store: Store) -> None:
    """SELECT ... FOR UPDATE is daily bread; the stager is one for all accounts, and must not wait for it."""
    account = await new_account(store)
    await _relations(store, account.id, 2)
    await _capture(store, account.id, 1, 1)
    await _capture(store, account.id, 2, 1)
    async with store.begin() as application:
        await application.exec_driver_sql("SELECT 1 FROM crm.relations WHERE id = 2 FOR UPDATE")
        async with asyncio.timeout(5):
            assert await stage_all(store) == 2


async def test_a_change_about_nobody_does_not_hold_up_the_others(store: Store) -> None:
    """It can only wait for a person; refused here, it would be refused with every batch, for ever."""
    account = await new_account(store)
    await _relations(store, account.id, 1)
    await _capture(store, account.id, 99, 1)
    await _capture(store, account.id, 1, 1)
    assert await stage_all(store) == 2


async def test_a_stager_that_stands_still_loses_its_session_and_nothing_else(store: Store) -> None:
    """Its lock stops everybody's staging; what it has moved is there again once its session is over."""
    account = await new_account(store)
    await _relations(store, account.id, 1)
    await _capture(store, account.id, 1, 10)
    with pytest.raises(InfrastructureError):
        await _stage_and_stand_still(store)
    assert await stage_all(store) == 1


async def _stage_and_stand_still(store: Store) -> None:
    async with store.begin() as still:
        assert await stage(still) == 1
        async with store.begin() as other:
            assert await stage(other) is None
            assert not await end_still_stager(other, 60.0), "it has only just begun"
            assert await end_still_stager(other, 0.0)
        await still.exec_driver_sql("SELECT 1")


async def test_a_stager_that_is_at_work_is_left_alone(store: Store) -> None:
    """A large batch, or one that waits for a lane, takes as long as it takes."""
    async with store.begin() as working, store.begin() as other:
        assert await stage(working) == 0
        sleeping = asyncio.create_task(working.exec_driver_sql("SELECT pg_sleep(1)"))
        sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not await rows(store, sql):
            pass
        assert not await end_still_stager(other, 0.0)
        await sleeping


async def test_lanes_that_are_there_and_lanes_that_are_not_get_their_own_changes(store: Store) -> None:
    """Both are found by their rank in one order: off by one, a contact would get somebody else's change."""
    account, other = await new_account(store), await new_account(store, "other")
    await _relations(store, account.id, 9)
    await remote_sql(
        store,
        """INSERT INTO crm.relations (id, account_id, remote_id, email)
           SELECT n, :a, n, n || '@x.example' FROM generate_series(11, 14) n""",
        a=other.id,
    )
    homes = dict.fromkeys(range(1, 10), account.id) | dict.fromkeys(range(11, 15), other.id)
    for batch in ((2, 5, 7, 13), (5, 13), (9, 8, 1, 5, 12, 2, 14, 3), (4, 14, 6, 11, 9, 2)):
        for relation in batch:
            await _capture(store, homes[relation], relation, relation, relation)
        await _capture(store, account.id, None, 0)
        await _capture(store, other.id, None, -1)
        assert await stage_all(store) == 2 * len(batch) + 2
    found = await rows(
        store,
        "SELECT l.account_id, l.relation_id, l.tail_seq, array_agg(e.seq ORDER BY e.seq) AS seqs, "
        "array_agg(DISTINCT CAST(e.payload ->> 'n' AS integer)) AS said "
        "FROM syncd.lanes l JOIN syncd.entries e ON e.lane_id = l.id GROUP BY l.id, 1, 2, 3",
    )
    assert len(found) == 15
    for lane in found:
        nobody = 0 if lane["account_id"] == account.id else -1
        assert lane["said"] == [lane["relation_id"] or nobody]
        assert lane["account_id"] == homes.get(lane["relation_id"], lane["account_id"])
        assert lane["seqs"] == list(range(1, lane["tail_seq"] + 1))


async def test_a_lane_that_had_to_be_waited_for_is_lengthened_from_where_it_ends_then(store: Store) -> None:
    """A re-assertion is appended by whoever settles: the stager must not give its number a second time."""
    account = await new_account(store)
    await _relations(store, account.id, 3)
    for relation in (1, 2, 3):
        await _capture(store, account.id, relation, relation)
    await stage_all(store)
    for relation in (1, 2, 3):
        await _capture(store, account.id, relation, 10)
    async with store.begin() as settling:
        await settling.exec_driver_sql(
            "UPDATE syncd.lanes SET tail_seq = tail_seq + 5, ready_at = NULL, epoch = 7 WHERE relation_id = 2"
        )
        staging = asyncio.create_task(stage_all(store))
        await until_blocked(store)
    assert await staging == 3
    lanes = await rows(
        store, "SELECT tail_seq, epoch, ready_at IS NULL AS sleeps FROM syncd.lanes ORDER BY relation_id"
    )
    assert [tuple(lane.values()) for lane in lanes] == [(2, 0, False), (7, 7, False), (2, 0, False)]
    last = await rows(store, "SELECT max(seq) AS seq FROM syncd.entries GROUP BY relation_id ORDER BY relation_id")
    assert [entry["seq"] for entry in last] == [2, 7, 2]
