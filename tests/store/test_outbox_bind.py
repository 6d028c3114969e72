"""Bind: a create brings the remote id, in the transaction that settles it; twins become one row."""

import asyncio

import msgspec
import pytest

from syncd.domain.account import Account
from syncd.store import Store
from syncd.store.outbox import AttemptRow, stage
from syncd.store.outbox_landing import Late
from syncd.store.twins import LINKS, POINTERS
from tests.support.claims import (
    account_with,
    changed,
    claimed,
    claimed_one,
    delivered,
    entry_of,
    expire,
    failed,
    lane_of,
    settled,
)
from tests.support.lanes import NOW, add, create, email, sent
from tests.support.outbox import remote_sql, rows, run_sql, stage_all


async def _created(store: Store, account: Account, relation_id: int = 1) -> None:
    await changed(store, account, relation_id, create(f"{relation_id}@x.example"))


async def _relation(store: Store, relation_id: int) -> dict[str, object]:
    return (await rows(store, "SELECT * FROM crm.relations WHERE id = :r", r=relation_id))[0]


async def _twin(store: Store, account: Account, remote_id: str = "77") -> None:
    """Relation 900: the same person as a pull mirrored them, with children."""
    binds = {"a": account.id, "remote_id": remote_id}
    for sql in (
        "INSERT INTO crm.relations (id, account_id, remote_id, email, funnel_state, raw) "
        "VALUES (900, :a, :remote_id, 'twin@x.example', 'lead', jsonb_build_object('funnelState', 'lead'))",
        "INSERT INTO crm.groups (id, account_id, remote_id) VALUES (5, :a, '5')",
        "INSERT INTO crm.fields (id, account_id, code) VALUES (6, :a, 'f6')",
        "INSERT INTO crm.lists (id, account_id, remote_id) VALUES (7, :a, '7')",
        "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (900, 1)",
        "INSERT INTO crm.group_members (group_id, relation_id) VALUES (5, 900)",
        "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (900, 6, 'v')",
        "INSERT INTO crm.list_subscriptions (relation_id, list_id, status) VALUES (900, 7, 'subscribed')",
        "INSERT INTO crm.orders (account_id, remote_id, relation_id) VALUES (:a, 'o1', 900)",
        "INSERT INTO crm.invoices (account_id, number, is_credit, relation_id) VALUES (:a, 'i1', false, 900)",
        "INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin) "
        "VALUES (:a, 'relations', 900, 'insert', 'remote')",
    ):
        used = {name: value for name, value in binds.items() if f":{name}" in sql}
        await remote_sql(store, sql, **used)


async def test_the_remote_id_is_bound_with_the_settle(store: Store) -> None:
    """In two transactions, a crash between them would lose the id, or bind what was not settled."""
    account = await account_with(store, 0, unbound=1)
    await _created(store, account)
    await settled(store, account, delivered(await claimed_one(store, account), "verified", bind_remote_id="77"))
    assert (await _relation(store, 1))["remote_id"] == "77"
    assert await rows(store, "SELECT 1 FROM syncd.captures") == []


async def test_many_creates_bind_in_one_batch(store: Store) -> None:
    """An import of ten thousand relations must not settle one by one."""
    account = await account_with(store, 0, unbound=20)
    for relation in range(1, 21):
        await _created(store, account, relation)
    lanes = (await claimed(store, account)).lanes
    await settled(store, account, *(delivered(x, bind_remote_id=f"r{x.relation_id}") for x in lanes))
    found = await rows(store, "SELECT id, remote_id FROM crm.relations ORDER BY id")
    assert [row["remote_id"] for row in found] == [f"r{row['id']}" for row in found]


async def test_a_fenced_create_binds_nothing(store: Store) -> None:
    """Whoever holds the lane now may be told another id."""
    account = await account_with(store, 0, unbound=1)
    await _created(store, account)
    late = await claimed_one(store, account)
    await expire(store)
    await claimed_one(store, account, "other")
    assert (await settled(store, account, delivered(late, bind_remote_id="77"))).fenced == {late.lane_id}
    assert (await _relation(store, 1))["remote_id"] is None


async def test_a_row_in_an_applications_hands_defers_its_lane_only(store: Store) -> None:
    """A settle that waits for an open transaction would hold up every other lane of its batch."""
    account = await account_with(store, 1, unbound=1)
    await _created(store, account, 2)
    await changed(store, account, 1, add())
    lanes = {lane.relation_id: lane for lane in (await claimed(store, account)).lanes}
    batch = [delivered(lanes[2], bind_remote_id="77"), delivered(lanes[1])]
    async with store.begin() as application:
        await application.exec_driver_sql("UPDATE crm.relations SET first_name = 'x' WHERE id = 2")
        async with asyncio.timeout(5):
            assert (await settled(store, account, *batch)).deferred == {lanes[2].lane_id}
        assert (await entry_of(store, 1))["status"] == "accepted"
        assert (await entry_of(store, 2))["status"] == "pending"
    assert (await settled(store, account, batch[0])).deferred == frozenset()
    assert (await _relation(store, 2))["remote_id"] == "77"


async def test_a_twin_is_merged_with_all_its_children(store: Store) -> None:
    """A pull saw the new relation before its create was settled: the two rows are one person."""
    account = await account_with(store, 0, unbound=1)
    await _created(store, account)
    lane = await claimed_one(store, account)
    await _twin(store, account)
    await settled(store, account, delivered(lane, "verified", bind_remote_id="77"))
    kept = await _relation(store, 1)
    assert (kept["remote_id"], kept["email"], kept["funnel_state"]) == ("77", "1@x.example", "lead")
    for table in (*LINKS, *POINTERS):
        assert [r["relation_id"] for r in await rows(store, f"SELECT relation_id FROM {table}")] == [1], table
    assert await rows(store, "SELECT 1 FROM crm.relations WHERE id = 900 UNION SELECT 1 FROM syncd.captures") == []
    assert {r["row_id"] for r in await rows(store, "SELECT row_id FROM syncd.changes")} == {1}


async def test_a_twin_whose_changes_are_delivered_loses_its_lane(store: Store) -> None:
    """Its settled entries are history; the lane would point to a row that is gone."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await changed(store, account, 900, add(2))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await _created(store, account)
    await settled(store, account, delivered(await claimed_one(store, account), bind_remote_id="77"))
    assert [r["relation_id"] for r in await rows(store, "SELECT relation_id FROM syncd.lanes")] == [1]


async def test_a_twin_with_undelivered_changes_makes_the_create_wait(store: Store) -> None:
    """Merging would mix two orders of changes. When the twin's are delivered, the next try merges."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await _created(store, account)
    lane = await claimed_one(store, account)
    await changed(store, account, 900, add(2))
    await settled(store, account, delivered(lane, bind_remote_id="77"))
    entry, row = await entry_of(store, 1), await lane_of(store, 1)
    assert (entry["status"], entry["is_uncertain"], entry["attempts"]) == ("pending", True, 0)
    assert "mirrored by another row" in row["block_reason"]
    assert (row["acked_seq"], row["is_due"]) == (0, False)
    await settled(store, account, delivered(await claimed_one(store, account)))
    await expire(store)
    await settled(store, account, delivered(await claimed_one(store, account), bind_remote_id="77"))
    assert (await _relation(store, 1))["remote_id"] == "77"
    assert (await lane_of(store, 1))["block_reason"] is None


async def test_a_refused_create_that_a_later_address_carries_is_not_revived_when_it_cannot_be_bound(
    store: Store,
) -> None:
    """It waits for its twin: sent again, it is the create under the later address, and never under the refused one."""
    account = await account_with(store, 1, unbound=1)
    await changed(store, account, 2, create("bad"))
    lane = await claimed_one(store, account)
    no = failed(lane, "dead")
    no.attempts = [AttemptRow(lane.entries[0].id, "create_relation", NOW, 0.1, 1, 400, "rejected", "")]
    await settled(store, account, no)
    await changed(store, account, 2, email("good@x.example", "bad"))
    await changed(store, account, 1, add())  # the twin has something that is not delivered
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = 'infinity' WHERE relation_id = 1")
    lane = await claimed_one(store, account)
    await settled(store, account, msgspec.structs.replace(delivered(lane), bind_remote_id="1"))
    told = await rows(store, "SELECT status, is_uncertain FROM syncd.entries WHERE relation_id = 2 ORDER BY seq")
    assert [tuple(one.values()) for one in told] == [("dead", False), ("pending", True)]
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = NULL")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() WHERE relation_id = 2")
    assert sent((await claimed_one(store, account)).plan) == [create("good@x.example")]


async def test_a_delivery_that_cannot_be_bound_passes_nothing_that_backs_off(store: Store) -> None:
    """The cursor would go past it, and no claim would read it again."""
    account = await account_with(store, 1, unbound=1)
    await changed(store, account, 2, add(1))
    await settled(store, account, failed(await claimed_one(store, account), "pending", delay_s=600.0))
    await changed(store, account, 2, add(2))
    await changed(store, account, 1, add())  # the twin has something that is not delivered
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = 'infinity' WHERE relation_id = 1")
    lane = await claimed_one(store, account)
    assert [step.carrier.seq for step in lane.plan.steps] == [2]
    await settled(store, account, delivered(lane, bind_remote_id="1"))
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = NULL")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() WHERE relation_id = 2")
    assert [step.carrier.seq for step in (await claimed_one(store, account)).plan.steps] == [1, 2]


async def test_a_create_in_doubt_that_waits_for_its_twin_is_not_kept_waiting_by_itself(store: Store) -> None:
    """The lane is told what may still land, and the settle window is far longer than the twin's changes take."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await _created(store, account)
    lane = await claimed_one(store, account)
    await changed(store, account, 900, add(2))
    late = Late(profile_s=600.0)
    await settled(store, account, delivered(lane, bind_remote_id="77", late=late))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = now() WHERE next_attempt_at > now()")
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() WHERE ready_at > now()")
    await settled(store, account, delivered(await claimed_one(store, account), bind_remote_id="77", late=late))
    assert (await _relation(store, 1))["remote_id"] == "77"


async def test_captures_against_the_twin_move_with_it(store: Store) -> None:
    """An application may have edited the pulled row a moment before: that change must not be lost."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await _created(store, account)
    lane = await claimed_one(store, account)
    await run_sql(store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (900, 3)")
    await settled(store, account, delivered(lane, bind_remote_id="77"))
    assert [r["relation_id"] for r in await rows(store, "SELECT relation_id FROM syncd.captures")] == [1]
    assert await stage_all(store) == 1


async def test_what_may_still_land_of_the_twin_is_expected_by_the_row_that_stays(store: Store) -> None:
    """It finds by the address that both have; the lane that knew of it goes with the twin."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await changed(store, account, 900, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.lanes SET profile_lands_until = 'infinity' WHERE relation_id = 900")
    await _created(store, account)
    await settled(store, account, delivered(await claimed_one(store, account), bind_remote_id="77"))
    (lane,) = await rows(store, "SELECT relation_id, profile_lands_until = 'infinity' AS is_late FROM syncd.lanes")
    assert (lane["relation_id"], lane["is_late"]) == (1, True)


async def test_two_creates_of_one_relation_become_one_row(store: Store) -> None:
    """Two local rows with addresses that are one to the CRM: the second finds the first bound already."""
    account = await account_with(store, 0, unbound=2)
    await _created(store, account, 1)
    await _created(store, account, 2)
    lanes = (await claimed(store, account)).lanes
    result = await settled(store, account, *(delivered(lane, bind_remote_id="77") for lane in lanes))
    assert not result.fenced
    bound = await rows(store, "SELECT remote_id FROM crm.relations WHERE remote_id = '77'")
    assert len(bound) == 1


async def test_every_table_that_points_to_relations_is_merged(store: Store) -> None:
    """A table added later and forgotten here would make every merge fail."""
    found = await rows(
        store,
        """SELECT conrelid::regclass::text AS name FROM pg_constraint
           WHERE contype = 'f' AND confrelid = 'crm.relations'::regclass""",
    )
    assert {row["name"] for row in found} == {*LINKS, *POINTERS}


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_twin_in_somebodys_hands_defers(store: Store, is_held: bool) -> None:
    """The twin's row may be locked by a pull or an application; waiting is for later."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await _created(store, account)
    lane = await claimed_one(store, account)
    async with store.begin() as application:
        if is_held:
            await application.exec_driver_sql("SELECT 1 FROM crm.relations WHERE id = 900 FOR UPDATE")
        result = await settled(store, account, delivered(lane, bind_remote_id="77"))
    assert result.deferred == ({lane.lane_id} if is_held else frozenset())


async def test_a_call_in_an_open_transaction_keeps_its_relation(store: Store) -> None:
    """A subscription captured for a row that was merged away meanwhile would be about nobody."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await _created(store, account)
    lane = await claimed_one(store, account)
    async with store.begin() as application:
        await application.exec_driver_sql("SELECT crm.subscribe('twin@x.example', '7')")
        result = await settled(store, account, delivered(lane, bind_remote_id="77"))
    assert result.deferred == {lane.lane_id}
    assert await rows(store, "SELECT 1 FROM syncd.captures c JOIN crm.relations r ON r.id = c.relation_id")


async def test_a_merge_that_meets_the_stager_is_undone_and_tried_again(store: Store) -> None:
    """The stager moved the twin's change into a lane while the merge waited: dropping the twin would strand it."""
    account = await account_with(store, 0, unbound=1)
    await _twin(store, account)
    await _created(store, account)
    lane = await claimed_one(store, account)
    await run_sql(store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (900, 3)")
    async with store.begin() as stager:
        assert await stage(stager) == 1
        settling = asyncio.create_task(settled(store, account, delivered(lane, bind_remote_id="77")))
        await _until_somebody_waits(store)
    assert (await settling).deferred == {lane.lane_id}
    await settled(store, account, delivered(lane, bind_remote_id="77"))
    assert (await entry_of(store, 1))["status"] == "pending", "the twin's change goes first"
    assert (await entry_of(store, 900))["status"] == "pending"


async def test_binding_and_staging_do_not_wait_in_a_circle(store: Store) -> None:
    """A stager that has one lane and wants the next must not meet a settle that has them the other way round."""
    account = await account_with(store, 1, unbound=1)
    await changed(store, account, 1, add())
    await _created(store, account, 2)
    lanes = {lane.relation_id: lane for lane in (await claimed(store, account)).lanes}
    async with store.begin() as stager:
        await stager.exec_driver_sql("UPDATE syncd.lanes SET tail_seq = tail_seq WHERE relation_id = 1")
        batch = (delivered(lanes[1]), delivered(lanes[2], bind_remote_id="77"))
        settling = asyncio.create_task(settled(store, account, *batch))
        await _until_somebody_waits(store)
        await stager.exec_driver_sql("UPDATE syncd.lanes SET tail_seq = tail_seq WHERE relation_id = 2")
    assert not (await settling).fenced


async def _until_somebody_waits(store: Store) -> None:
    async with asyncio.timeout(5):
        while not await rows(
            store,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        ):
            pass
