"""A stuck drainer: a real process, stopped past twice its lease in mid-conversation, comes back and changes nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from syncd.sandbox import RequestLine
from syncd.store import Store
from tests.support.outbox import QUICK, Circle, circle, rows
from tests.support.world_crew import Ground, ProcessHand

SHORT = replace(QUICK, lease_s=1.5, timeout_s=0.75, concurrency=2)

_OUTBOX = (
    "SELECT to_jsonb(l)::text AS row FROM syncd.lanes l ORDER BY id",
    "SELECT to_jsonb(e)::text AS row FROM syncd.entries e ORDER BY id",
    "SELECT to_jsonb(a)::text AS row FROM syncd.attempts a ORDER BY id",
    "SELECT to_jsonb(c)::text AS row FROM syncd.changes c ORDER BY id",
    "SELECT to_jsonb(r)::text AS row FROM crm.relations r ORDER BY id",
)


@asynccontextmanager
async def stuck(c: Circle, url: str) -> AsyncIterator[ProcessHand]:
    """Run a drainer in a process; it is stopped well at the end, whatever befell it."""
    hand = ProcessHand(Ground(c, url, SHORT), "stuck")
    await hand.start()
    try:
        yield hand
    finally:
        await hand.stop()


async def until_twice_lapsed(store: Store, worker: str) -> None:
    """Wait until the leases of a worker have been over for as long again as they ran."""
    sql = "SELECT 1 FROM syncd.lanes WHERE claimed_by = :worker AND ready_at > now() - make_interval(secs => :lease)"
    async with asyncio.timeout(30):
        while await rows(store, sql, worker=worker, lease=SHORT.lease_s):  # noqa: ASYNC110 - time is the database's
            await asyncio.sleep(0.05)


async def outbox(store: Store) -> list[str]:
    """Return every row that a settle could write."""
    return [row["row"] for sql in _OUTBOX for row in await rows(store, sql)]


def written(c: Circle) -> list[RequestLine]:
    reads = ("relation_by_id", "relation_by_email", "groups")
    return [line for line in c.sandbox.requests if line.operation not in reads]


@pytest.mark.parametrize(
    ("kind", "operation"),
    [("hold", "relation_by_id"), ("hold", "relation_upsert"), ("hold_answer", "relation_upsert")],
    ids=["reading before its write", "writing", "having written"],
)
async def test_a_stuck_drainer_is_fenced_and_changes_nothing(
    store: Store, database: str, kind: str, operation: str
) -> None:
    """Its lane moved on: no row is written, and the CRM gets nothing from it but what was on the wire already."""
    async with circle(store) as c:
        who, other = list(c.sandbox.world.relations)[:2]
        c.sandbox.faults.add(kind, operation=operation)
        async with stuck(c, database) as hand:
            await c.edit("UPDATE crm.relations SET first_name = 'Old' WHERE id = :who", who=who)
            await c.sandbox.until_held(timeout_s=30)
            hand.process.send_signal(signal.SIGSTOP)
            await until_twice_lapsed(store, hand.worker)
            await c.edit("UPDATE crm.relations SET first_name = 'New' WHERE id = :who", who=who)
            assert (await c.drain()).is_empty
            assert c.sandbox.world.relations[who].first_name == "New"
            before, sent, effects = await outbox(store), len(written(c)), len(c.sandbox.journal)
            hand.process.send_signal(signal.SIGCONT)
            await hand.until_fenced()
            assert await outbox(store) == before
            assert (len(written(c)), len(c.sandbox.journal)) == (sent, effects)
            c.sandbox.release()
            await c.edit("UPDATE crm.relations SET first_name = 'Other' WHERE id = :who", who=other)
            await c.sandbox.journal.until(lambda j: bool(j.of("relation.changed", f"relation:{other}")), timeout_s=30)
        assert all(lane["claimed_by"] is None for lane in await c.lanes())
        mine = [line for line in written(c) if line.operation == "relation_upsert"]
        on_the_wire = int(operation == "relation_upsert")
        assert len(mine) == on_the_wire + 2, "what was on the wire, the new value, and the other relation's"


async def test_a_drainer_stuck_in_mid_transaction_does_not_stop_the_others(store: Store, database: str) -> None:
    """It holds the stager's lock and stands still: the server must let go of it, or nobody stages for any account."""
    async with circle(store) as c, stuck(c, database) as hand:
        who = next(iter(c.sandbox.world.relations))
        for value in ("One", "Two", "Three"):  # so that its statements are prepared, as they are in any drainer's life
            await c.edit("UPDATE crm.relations SET first_name = :value WHERE id = :who", value=value, who=who)
            await until_changed(c, value)
        async with store.begin() as blocker:
            await blocker.exec_driver_sql("LOCK TABLE syncd.entries IN SHARE MODE")
            await c.edit("UPDATE crm.relations SET first_name = 'Held' WHERE id = :who", who=who)
            await until_waiting(store, "stuck")
            hand.process.send_signal(signal.SIGSTOP)
        await c.edit("UPDATE crm.relations SET last_name = 'Free' WHERE id = :who", who=who)
        assert (await c.drain()).is_empty
        assert c.sandbox.world.relations[who].first_name == "Held"
        hand.process.send_signal(signal.SIGCONT)
        await c.edit("UPDATE crm.relations SET first_name = 'Again' WHERE id = :who", who=who)
        await until_changed(c, "Again")
        assert len(c.sandbox.requests.of("relation_upsert")) == 5


async def until_changed(c: Circle, first_name: str) -> None:
    change = {"first_name": first_name}
    await c.sandbox.journal.until(lambda j: any(each.after == change for each in j), timeout_s=30)


async def until_waiting(store: Store, name: str) -> None:
    """Wait until a session of that name waits for a lock."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = :name AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while not await rows(store, sql, name=name):  # noqa: ASYNC110 - a lock wait announces nothing
            await asyncio.sleep(0.01)


async def test_a_stuck_drainer_does_not_subscribe_twice(store: Store, database: str) -> None:
    """The other one looks, finds the subscription, and the stuck one's own answer is dropped."""
    async with circle(store) as c:
        who, number = next(iter(c.sandbox.world.relations)), next(iter(c.sandbox.world.lists))
        c.sandbox.world.relations[who].events.clear()
        c.sandbox.faults.add("hold_answer", operation="list_subscribe")
        async with stuck(c, database) as hand:
            await c.edit(
                "SELECT crm.subscribe(email, CAST(:list AS text)) FROM crm.relations WHERE id = :who",
                who=who,
                list=str(number),
            )
            await c.sandbox.until_held(timeout_s=30)
            hand.process.send_signal(signal.SIGSTOP)
            await until_twice_lapsed(store, hand.worker)
            assert (await c.drain()).is_empty
            before = await outbox(store)
            c.sandbox.release()
            hand.process.send_signal(signal.SIGCONT)
            await hand.until_fenced()
            assert await outbox(store) == before
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert len(c.sandbox.journal.of("mail.planned")) == 1
        assert [entry["status"] for entry in await c.entries()] == ["verified"]
