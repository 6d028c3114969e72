"""Apply when the connection to Postgres dies in a commit, and how wide it sends: as a drainer, in both."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from syncd.outbound.applying import Fate
from syncd.store import Store, account_states
from tests.support.claims import changed
from tests.support.cutting import Moment, cutting_wire
from tests.support.lanes import add, subscribe
from tests.support.outbox import QUICK, circle, rows, run_sql, stage_all
from tests.support.planning import ALONE, applied, filed, writes

A_CLAIM = "SET epoch = l.epoch + 1"
A_SETTLE = "SET acked_seq = GREATEST"


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER, Moment.LATE])
@pytest.mark.parametrize("words", [A_CLAIM, A_SETTLE])
async def test_a_commit_in_doubt_sends_nothing_twice_and_leaves_nothing_claimed(
    store: Store, database: str, words: str, moment: Moment
) -> None:
    """The settle of one round is the claim of the next: whether it was done is read, in all three cases."""
    async with circle(store) as c, cutting_wire(database) as wire:
        c.store = Store.open(wire.url, pool_size=4)
        try:
            who = next(iter(c.sandbox.world.relations))
            await changed(store, c.account, who, subscribe(next(iter(c.sandbox.world.lists))), add(301), add(302))
            plan = await filed(c)
            cut = wire.cut(words, moment)
            async with asyncio.TaskGroup() as group:
                applying = group.create_task(applied(c, plan, replace(ALONE, lease_s=3600.0)))
                await cut.happened.wait()
                cut.released.set()
            (lane,) = applying.result().lanes
        finally:
            await c.store.close()
            c.store = store
        assert cut.made == 1
        assert (lane.fate, lane.sent, lane.reason) == (Fate.SENT, 3, None)
        assert writes(c) == ["list_subscribe", "tag_add", "tag_add"]
        assert await rows(store, "SELECT 1 FROM syncd.lanes WHERE claimed_by IS NOT NULL") == []
        assert {row["status"] for row in await rows(store, "SELECT status FROM syncd.entries")} <= {
            "accepted",
            "verified",
        }


async def test_it_sends_no_wider_than_the_account_bears(store: Store) -> None:
    """After a throttle one conversation at a time: a plan is no licence to storm."""
    async with circle(store, relations=12) as c:
        for who in c.sandbox.world.relations:
            await changed(store, c.account, who, add(301))
        plan = await filed(c)
        async with store.begin() as connection:
            await account_states.throttle(connection, c.account.id, 0.6)
        applying = asyncio.create_task(applied(c, plan, replace(QUICK, concurrency=4)))
        holding = c.sandbox.faults.add("hold", operation="tag_add", times=0)
        await c.sandbox.until_held(1)
        with pytest.raises(TimeoutError):
            await c.sandbox.until_held(2, timeout_s=0.5)
        c.sandbox.faults.clear(holding)
        c.sandbox.release()
        result = await applying
        assert {lane.fate for lane in result.lanes} == {Fate.SENT}
        assert len(result.lanes) == 12


async def test_a_lane_that_is_put_to_sleep_elsewhere_is_still_applied(store: Store) -> None:
    """Whether a claim would look at the lane now does not matter: the plan names it."""
    async with circle(store) as c:
        who = next(iter(c.sandbox.world.relations))
        await run_sql(store, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)", who=who)
        await stage_all(store)
        plan = await filed(c)
        await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() + interval '1 hour'")
        assert [lane.fate for lane in (await applied(c, plan)).lanes] == [Fate.SENT]
