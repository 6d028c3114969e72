"""Drain when drainers die, stall, stop or lose their database: nothing is lost, nothing is done twice."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event

from syncd.clock import SystemClock
from syncd.domain.errors import InfrastructureError
from syncd.outbound.converse import Line
from syncd.outbound.intents import Intents
from syncd.outbound.lane import Desk, send_lane
from syncd.outbound.leases import Lease
from syncd.outbound.pace import Pace
from syncd.store import Store
from tests.support.claims import claimed_one, settled
from tests.support.outbox import QUICK, Circle, circle, remote_sql, rows, run_sql, stage_all

_BEGINS = "SET sending_upto ="


def _somebody(c: Circle) -> int:
    return next(iter(c.sandbox.world.relations))


def _untagged(c: Circle) -> None:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()
        relation.events.clear()


async def _tag(c: Circle, *tags: int) -> None:
    for tag in tags:
        await c.edit(
            "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=_somebody(c), tag=tag
        )


async def _subscribe(c: Circle) -> None:
    number = next(iter(c.sandbox.world.lists))
    await c.edit(
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "VALUES (:account_id, :who, 'subscribe', :facet, CAST(CAST(:payload AS text) AS jsonb))",
        who=_somebody(c),
        facet=f"list:{number}",
        payload=f'{{"list_id": {number}, "list_remote_id": "{number}", "skip_optin": false}}',
    )


async def _nameless(c: Circle) -> None:
    """Let the relation's id be unknown, so that it is looked up before anything is sent."""
    await remote_sql(c.store, "UPDATE crm.relations SET remote_id = NULL WHERE id = :who", who=_somebody(c))


def _statements(store: Store) -> list[str]:
    """Return a list that fills with the statements of a store."""
    found: list[str] = []
    event.listen(store.engine.sync_engine, "before_cursor_execute", lambda *given: found.append(given[2]))
    return found


@asynccontextmanager
async def _running(c: Circle, **changes: object) -> AsyncIterator[asyncio.Task[None]]:
    """Run a daemon that the test may kill; what is left of it is killed at the end."""
    task = asyncio.create_task(c.drainer(QUICK, **changes).run(asyncio.Event()))
    try:
        yield task
    finally:
        await _kill(task)


async def _kill(task: asyncio.Task[None]) -> None:
    """End a drainer as SIGKILL would: it settles nothing, releases nothing."""
    task.cancel()
    await asyncio.wait([task])


async def test_a_drainer_that_dies_in_mid_tag_is_followed_by_one_that_sends_again(store: Store) -> None:
    """After the claim, in the request: the lane is taken over when its lease ends."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("hold_answer", operation="tag_add")
        await _tag(c, 301)
        async with _running(c) as task:
            await c.sandbox.until_held()
            await _kill(task)
        assert (await c.lanes())[0]["sending_upto"] == 1
        assert (await c.drain()).delivered == 0, "the lease still runs: nobody may send beside the dead one"
        await c.wake()
        assert (await c.drain()).is_empty
        assert len(c.sandbox.journal.of("tag.added")) == 1


@pytest.mark.parametrize("fault", ["hold", "hold_answer"])
async def test_a_drainer_that_dies_in_mid_subscription_never_mails_twice(store: Store, fault: str) -> None:
    """Before or after it was applied: the next drainer looks, and does not send."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add(fault, operation="list_subscribe")
        await _subscribe(c)
        async with _running(c) as task:
            await c.sandbox.until_held()
            await _kill(task)
        c.sandbox.release()
        await c.sandbox.journal.until(lambda j: bool(j.of("mail.planned")))
        await c.wake()
        assert (await c.drain()).is_empty
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert [e["status"] for e in await c.entries()] == ["verified"]


async def test_a_subscription_that_had_not_begun_is_sent_by_the_next_drainer(store: Store) -> None:
    """The dead one had claimed it and was still looking its relation up: nobody need be asked, nothing is lost."""
    async with circle(store) as c:
        _untagged(c)
        await _nameless(c)
        c.sandbox.faults.add("hold", operation="relation_by_email")
        await _subscribe(c)
        async with _running(c) as task:
            await c.sandbox.until_held()
            await _kill(task)
        c.sandbox.release()
        await c.wake()
        report = await c.drain()
        assert (report.delivered, report.parked) == (1, 0)
        assert len(c.sandbox.journal.of("mail.planned")) == 1


async def test_a_drainer_that_slept_past_its_lease_begins_nothing(store: Store) -> None:
    """Another one has mailed meanwhile. Its own clock may tell it anything: the database is asked before it sends.

    One worker of it is played here, for a whole drainer might claim the lane anew itself.
    """
    async with circle(store) as c:
        _untagged(c)
        await _nameless(c)
        c.sandbox.faults.add("hold", operation="relation_by_email")
        await _subscribe(c)
        await stage_all(store)
        lease = Lease(await claimed_one(store, c.account, worker="sleeper"), until=math.inf)
        sleeping = asyncio.create_task(send_lane(_desk_of(c, "sleeper"), lease))
        await c.sandbox.until_held()
        await c.wake()
        assert (await c.drain()).delivered == 1
        c.sandbox.release()
        result = await sleeping
        assert (lease.is_lost, result.deliveries) == (True, [])
        assert (await settled(store, c.account, result.settlement, worker="sleeper")).fenced == {lease.lane.lane_id}
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert [e["status"] for e in await c.entries()] == ["accepted"]


def _desk_of(c: Circle, worker: str) -> Desk:
    clock = SystemClock()
    line = Line.to(c.provider, c.transport, clock, Pace(QUICK, clock))
    return Desk(line, QUICK, Intents(c.store, worker, clock))


async def test_calls_that_are_safe_to_repeat_pay_nothing_for_those_that_are_not(store: Store) -> None:
    """One statement more for a subscription, none for a tag."""
    async with circle(store) as c:
        _untagged(c)
        statements = _statements(c.store)
        await _tag(c, 301)
        await c.drain()
        assert [sql for sql in statements if _BEGINS in sql] == []
        await _subscribe(c)
        await c.drain()
        assert len([sql for sql in statements if _BEGINS in sql]) == 1


async def test_a_drainer_that_dies_after_the_answer_and_before_the_settle(store: Store) -> None:
    """The CRM has it, the database does not know: a create must not make a second relation."""
    async with circle(store) as c:
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'new@x.example')")
        async with store.begin() as blocker:
            await c.edit("SELECT 1")
            async with _running(c) as task:
                await c.sandbox.journal.until(lambda j: bool(j.of("relation.created")))
                await blocker.exec_driver_sql("SELECT 1")
                await _kill(task)
        if (await c.entries())[0]["status"] == "pending":
            await c.wake()
            assert (await c.drain()).is_empty
        assert len(c.sandbox.journal.of("relation.created")) == 1
        assert await rows(store, "SELECT 1 FROM crm.relations WHERE email = 'new@x.example' AND remote_id IS NOT NULL")


async def test_a_stalled_drainer_is_fenced_and_changes_nothing(store: Store) -> None:
    """Stopped past its lease, it comes back with an answer about a lane that moved on."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("hold_answer", operation="tag_add")
        await _tag(c, 301)
        stop = asyncio.Event()
        stalled = asyncio.create_task(c.drainer().drain(stop))
        await c.sandbox.until_held()
        stop.set()
        await c.wake()
        other = await c.drain()
        assert (other.delivered, other.fenced) == (1, 0)
        settled = await c.entries()
        c.sandbox.release()
        report = await stalled
        assert (report.delivered, report.fenced) == (0, 1)
        assert await c.entries() == settled
        assert [r.is_fenced for r in c.reports] == [False, True]
        assert len(await rows(store, "SELECT 1 FROM syncd.attempts")) == 1


async def test_two_drainers_share_the_work_without_doing_any_twice(store: Store) -> None:
    """Any number of replicas may drain one database."""
    async with circle(store, relations=40) as c:
        _untagged(c)
        for tag in (301, 302):
            await c.edit(
                "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, :tag FROM crm.relations", tag=tag
            )
        await c.edit("UPDATE crm.relations SET email = 'n' || id || '@x.example'")
        reports = await asyncio.gather(c.drainer().drain(), c.drainer().drain(), c.drainer().drain())
        assert sum(r.delivered for r in reports) == 40 * 3
        assert [r.fenced for r in reports] == [0, 0, 0]
        assert c.sandbox.requests.by_operation["tag_add"] == 80
        assert c.sandbox.requests.by_operation["relation_email"] == 40


async def test_a_graceful_stop_finishes_what_is_under_way_and_gives_back_the_rest(store: Store) -> None:
    """SIGTERM in mid-work: no lease is left behind for anybody to wait for, no attempt is used."""
    async with circle(store, relations=30) as c:
        _untagged(c)
        c.sandbox.faults.add("hold_answer", operation="tag_add", times=2)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 301 FROM crm.relations")
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 302 FROM crm.relations")
        stop = asyncio.Event()
        task = asyncio.create_task(c.drainer(concurrency=2).run(stop))
        await c.sandbox.until_held(2)
        stop.set()
        c.sandbox.release()
        await task
        entries, lanes = await c.entries(), await c.lanes()
        assert sum(e["status"] == "accepted" for e in entries) == 2
        assert sum(e["attempts"] for e in entries) == 2
        assert all(x["claimed_by"] is None and x["sending_upto"] is None for x in lanes)
        waiting = await rows(store, "SELECT count(*) AS n FROM syncd.lanes WHERE ready_at <= now()")
        assert waiting == [{"n": 30}]
        assert (await c.drain()).is_empty
        assert c.sandbox.requests.by_operation["tag_add"] == 60


async def test_a_lost_database_ends_a_one_shot_drain_and_not_a_daemon(store: Store) -> None:
    """The daemon backs off and goes on by itself when the database is back."""
    async with circle(store) as c:
        _untagged(c)
        real, stop = c.store, asyncio.Event()
        gate = _Gate(real)
        c.store = gate  # type: ignore[assignment]
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer().run(stop))
            await gate.until_refused(2)
            c.store = real
            await _tag(c, 301)
            gate.is_open = True
            await c.sandbox.journal.until(lambda j: bool(j.of("tag.added")))
            stop.set()
        assert [e["status"] for e in await c.entries()] == ["accepted"]


class _Gate:
    """A database that can be out of reach: the wire is cut, our own code is real."""

    def __init__(self, real: Store) -> None:
        self._real = real
        self.is_open = False
        self._refused = 0
        self._moved = asyncio.Event()

    async def until_refused(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self._refused < count:
                await self._moved.wait()
                self._moved.clear()

    def begin(self) -> object:
        return self._through(self._real.begin())

    def reading(self) -> object:
        return self._through(self._real.reading())

    def at_once(self) -> object:
        return self._through(self._real.at_once())

    def begin_remote(self) -> object:
        return self._through(self._real.begin_remote())

    @asynccontextmanager
    async def _through(self, opened: object) -> AsyncIterator[object]:
        if not self.is_open:
            self._refused += 1
            self._moved.set()
            raise InfrastructureError("the database is out of reach")
        async with opened as connection:  # type: ignore[attr-defined]
            yield connection


async def test_connections_that_are_cut_in_mid_work_cost_nothing(store: Store) -> None:
    """pg_terminate_backend, a failover: everything is delivered, and every subscription once."""
    async with circle(store, relations=25) as c:
        _untagged(c)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 301 FROM crm.relations")
        await _subscribe(c)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer(lease_s=2.0, timeout_s=1.0).run(stop))
            for _ in range(4):
                await c.sandbox.journal.until(lambda j: bool(j.of("tag.added")))
                await run_sql(
                    store,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 25, timeout_s=20)
            stop.set()
        await c.wake()
        assert (await c.drain()).is_empty
        assert len(c.sandbox.journal.of("tag.added")) == 25
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1


async def test_a_pull_that_saw_the_new_relation_first_does_not_make_two_rows(store: Store) -> None:
    """The mirror had the twin before the create was settled; afterwards there is one row, bound."""
    async with circle(store) as c:
        c.sandbox.faults.add("hold_answer", operation="relation_upsert")
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'new@x.example')")
        task = asyncio.create_task(c.drainer().drain())
        await c.sandbox.until_held()
        created = c.sandbox.world.relation("new@x.example")
        assert created is not None
        async with store.begin_remote() as pull:
            await pull.exec_driver_sql(
                "INSERT INTO crm.relations (id, account_id, remote_id, email) "
                f"VALUES (999999, {c.account.id}, '{created.id}', 'new@x.example')"
            )
        c.sandbox.release()
        assert (await task).is_empty
        found = await rows(store, "SELECT id, remote_id FROM crm.relations WHERE email = 'new@x.example'")
        assert [row["remote_id"] for row in found] == [str(created.id)]
        assert found[0]["id"] != 999999
