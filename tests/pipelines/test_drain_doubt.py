"""Drain when the connection to Postgres dies in a commit: what happened is found out, never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from syncd.outbound.leases import Leases
from syncd.store import Store
from tests.support.claims import account_with, changed, claimed_one
from tests.support.clock import ManualClock
from tests.support.cutting import CuttingWire, Moment, cutting_wire
from tests.support.lanes import add
from tests.support.locks import until_blocked
from tests.support.outbox import Circle, circle, rows, run_sql

# Words that only one kind of transaction runs.
A_CLAIM = "SET epoch = l.epoch + 1"
A_SETTLE = "SET acked_seq = GREATEST"
A_RENEWAL = "AS is_renewed"
A_BEGINNING = "SET sending_upto = $"


@asynccontextmanager
async def _circle_on_a_wire(store: Store, database: str) -> AsyncIterator[tuple[Circle, CuttingWire]]:
    """A circle whose drainers reach the database through the wire; tests reach it directly."""
    async with circle(store) as c, cutting_wire(database) as wire:
        drained = Store.open(wire.url, pool_size=4)
        c.store, direct = drained, c.store
        try:
            for relation in c.sandbox.world.relations.values():
                relation.tags.clear()
                relation.events.clear()
            yield c, wire
        finally:
            c.store = direct
            await drained.close()


async def _tag_all(store: Store, *tags: int) -> None:
    for tag in tags:
        await run_sql(
            store, "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, :tag FROM crm.relations", tag=tag
        )


async def _subscribe(c: Circle, store: Store) -> None:
    number = next(iter(c.sandbox.world.lists))
    await run_sql(
        store,
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "SELECT :account_id, min(id), 'subscribe', :facet, CAST(CAST(:payload AS text) AS jsonb) FROM crm.relations",
        account_id=c.account.id,
        facet=f"list:{number}",
        payload=f'{{"list_id": {number}, "list_remote_id": "{number}", "skip_optin": false}}',
    )


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER])
async def test_a_settle_whose_commit_is_in_doubt_is_neither_lost_nor_counted_as_fenced(
    store: Store, database: str, moment: Moment
) -> None:
    """The CRM has it. Whether the database knows is read, not assumed: neither a second mail nor a false alarm."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _tag_all(store, 301)
        await _subscribe(c, store)
        cut = wire.cut(A_SETTLE, moment)
        report = await c.drain()
        assert cut.made == 1
        assert (report.delivered, report.fenced, report.is_empty) == (7, 0, True)
        assert c.sandbox.requests.by_operation["tag_add"] == 6
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert [e["attempts"] for e in await rows(store, "SELECT attempts FROM syncd.entries")] == [1] * 7
        assert [r.is_fenced for r in c.reports] == [False] * 7


async def test_a_settle_that_commits_behind_our_back_is_recognised_after_all(store: Store, database: str) -> None:
    """The server may hear the commit while we settle again: the second finds the lane moved on, and by whom."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _tag_all(store, 301)
        cut = wire.cut(A_SETTLE, Moment.LATE)
        async with asyncio.TaskGroup() as group:
            drain = group.create_task(c.drain())
            await cut.happened.wait()
            await until_blocked(store)  # the second settle stands behind the first one's locks
            cut.released.set()
        report = drain.result()
        assert (report.delivered, report.fenced, report.is_empty) == (6, 0, True)
        assert c.sandbox.requests.by_operation["tag_add"] == 6


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER, Moment.LATE])
async def test_a_call_whose_beginning_is_in_doubt_is_not_made_and_not_forgotten(
    store: Store, database: str, moment: Moment
) -> None:
    """Sent all the same it could be sent twice; left in doubt it would wait for a person without need."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _subscribe(c, store)
        cut = wire.cut(A_BEGINNING, moment)
        async with asyncio.TaskGroup() as group:
            drain = group.create_task(c.drain(lease_s=3600.0))
            await cut.happened.wait()
            assert c.sandbox.requests.by_operation["list_subscribe"] == 0
            cut.released.set()
        report = drain.result()
        assert cut.made == 1
        assert (report.delivered, report.parked, report.is_empty) == (1, 0, True)
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        told = await rows(store, "SELECT epoch, sending_upto FROM syncd.lanes")
        assert told == [{"epoch": 2, "sending_upto": None}], "given back and claimed anew, and nothing sent before that"


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER, Moment.LATE])
async def test_a_claim_whose_commit_is_in_doubt_leaves_no_lane_to_nobody(
    store: Store, database: str, moment: Moment
) -> None:
    """Lanes in our name that we do not know of would wait for their lease to end; here that takes an hour."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _tag_all(store, 301, 302)
        cut = wire.cut(A_CLAIM, moment)
        async with asyncio.TaskGroup() as group:
            drain = group.create_task(c.drain(lease_s=3600.0))
            await cut.happened.wait()
            cut.released.set()
        report = drain.result()
        assert cut.made == 1
        assert (report.delivered, report.fenced, report.is_empty) == (12, 0, True)
        assert c.sandbox.requests.by_operation["tag_add"] == 12
        assert len(c.sandbox.journal.of("tag.added")) == 12
        assert await rows(store, "SELECT 1 FROM syncd.lanes WHERE claimed_by IS NOT NULL") == []


async def test_what_a_drainer_may_hold_without_knowing_is_given_back_when_it_stops(store: Store, database: str) -> None:
    """A daemon that is told to stop at that moment must not leave its relations waiting for a lease."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _tag_all(store, 301)
        cut, stop = wire.cut(A_CLAIM, Moment.AFTER), asyncio.Event()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(c.drainer(lease_s=3600.0).run(stop))
            await cut.happened.wait()
            stop.set()
        assert await rows(store, "SELECT 1 FROM syncd.lanes WHERE claimed_by IS NOT NULL") == []


async def test_results_outlast_the_lease_when_the_database_does_not_take_them(store: Store, database: str) -> None:
    """The epoch decides who may settle, not the lease: an outage of an hour must not send everything twice."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _tag_all(store, 301)
        wire.cut(A_RENEWAL, Moment.BEFORE, 1000)
        settles = wire.cut(A_SETTLE, Moment.BEFORE, 6)
        report = await c.drain(lease_s=1.0, timeout_s=0.5)
        assert settles.made == 6
        assert (report.delivered, report.fenced, report.is_empty) == (6, 0, True)
        assert c.sandbox.requests.by_operation["tag_add"] == 6


async def test_a_lane_that_was_claimed_anew_is_not_adopted_beside_that(store: Store) -> None:
    """A claim that was rolled back gave the same epoch as the one that followed: adopted, it would be sent twice."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    lane = await claimed_one(store, account)
    leases = Leases(store, "w", ManualClock(), 60.0)
    leases.doubt([lane], 2000.0)
    leases.hold([lane], 2000.0)
    assert await leases.adopt() == []
    leases.doubt([lane], 2000.0)
    assert [lease.lane for lease in await leases.adopt()] == [lane]
    assert not leases.are_in_doubt


async def test_every_commit_may_be_cut_and_nothing_is_done_twice(store: Store, database: str) -> None:
    """A bad network for minutes: whichever commit is hit, each change reaches the CRM once."""
    async with _circle_on_a_wire(store, database) as (c, wire):
        await _tag_all(store, 301, 302)
        await _subscribe(c, store)
        await run_sql(store, "UPDATE crm.relations SET first_name = 'Nieuw'")
        cuts = [wire.cut(words, moment, 2) for words in (A_CLAIM, A_SETTLE) for moment in (Moment.BEFORE, Moment.AFTER)]
        report = await c.drain(lease_s=3600.0, batch=2, settle_batch=2)
        assert [cut.made for cut in cuts] == [2] * 4
        assert (report.delivered, report.fenced, report.is_empty) == (19, 0, True)
        assert c.sandbox.requests.by_operation["tag_add"] == 12
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert len(c.sandbox.journal.of("mail.planned")) == 1
