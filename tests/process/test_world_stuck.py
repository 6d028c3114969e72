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
from tests.support.proving import Say, is_long
from tests.support.world_crew import Ground, ProcessHand

SHORT = replace(QUICK, lease_s=1.5, timeout_s=0.75, concurrency=2)

_OF_RELATION = (
    "SELECT to_jsonb(l)::text AS row FROM syncd.lanes l WHERE relation_id = :who",
    "SELECT to_jsonb(e)::text AS row FROM syncd.entries e WHERE relation_id = :who ORDER BY id",
    "SELECT to_jsonb(a)::text AS row FROM syncd.attempts a JOIN syncd.lanes l ON l.id = a.lane_id "
    "WHERE l.relation_id = :who ORDER BY a.id",
    "SELECT to_jsonb(c)::text AS row FROM syncd.changes c WHERE row_id = :who ORDER BY id",
    "SELECT to_jsonb(r)::text AS row FROM crm.relations r WHERE id = :who",
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


async def outbox(store: Store, who: int) -> list[str]:
    """Return every row about a relation that a settle could write."""
    return [row["row"] for sql in _OF_RELATION for row in await rows(store, sql, who=who)]


def written(c: Circle) -> list[RequestLine]:
    reads = ("relation_by_id", "relation_by_email", "groups")
    return [line for line in c.sandbox.requests if line.operation not in reads]


async def settled(store: Store) -> list[str]:
    """Return the name that each settled conversation sent, in their order: one write each."""
    sql = """SELECT e.payload -> 'new' ->> 'first_name' AS name
             FROM syncd.attempts a JOIN syncd.entries e ON e.id = a.entry_id ORDER BY a.id"""
    return [row["name"] for row in await rows(store, sql)]


# The fault that it is stopped in, of which operation, and whether its answer comes while it stands still.
PLACES = {
    "reading before its write": ("hold", "relation_by_id", False),
    "having read before its write": ("hold", "relation_by_id", True),
    "writing": ("hold", "relation_upsert", False),
    "having written": ("hold_answer", "relation_upsert", False),
    "having written and been answered": ("hold_answer", "relation_upsert", True),
}
SHORT_PLACES = ("having written",)
IN_MID_TRANSACTION = {"between two statements": False, "inside a statement": True}

long_form = pytest.mark.skipif(not is_long(), reason="the short form is one place: make prove")


@pytest.mark.parametrize("place", PLACES if is_long() else SHORT_PLACES)
async def test_a_stuck_drainer_is_fenced_and_changes_nothing(
    store: Store, database: str, proof: Say, place: str
) -> None:
    """Its lane moved on: no row is written, and the CRM gets nothing from it but what was on the wire already.

    An answer may come while it stands still: it is the first thing that it meets when it goes on.
    """
    kind, operation, is_answered = PLACES[place]
    async with circle(store) as c:
        who, other = list(c.sandbox.world.relations)[:2]
        c.sandbox.faults.add(kind, operation=operation)
        async with stuck(c, database) as hand:
            await c.edit("UPDATE crm.relations SET first_name = 'Old' WHERE id = :who", who=who)
            await c.sandbox.until_held(timeout_s=30)
            hand.process.send_signal(signal.SIGSTOP)
            await until_twice_lapsed(store, hand.worker)
            if is_answered:
                c.sandbox.release()
            await c.edit("UPDATE crm.relations SET first_name = 'New' WHERE id = :who", who=who)
            assert (await c.drain()).is_empty
            assert c.sandbox.world.relations[who].first_name == "New"
            before, sent, effects = await outbox(store, who), len(written(c)), len(c.sandbox.journal)
            hand.process.send_signal(signal.SIGCONT)
            if (operation, is_answered) != ("relation_by_id", True):  # then it finds its time over, and has no result
                await hand.until_fenced()
                assert await outbox(store, who) == before
                assert (len(written(c)), len(c.sandbox.journal)) == (sent, effects)
            c.sandbox.release()
            await c.edit("UPDATE crm.relations SET first_name = 'Other' WHERE id = :who", who=other)
            await c.sandbox.journal.until(lambda j: bool(j.of("relation.changed", f"relation:{other}")), timeout_s=30)
        assert await outbox(store, who) == before
        assert all(lane["claimed_by"] is None for lane in await c.lanes())
        on_the_wire = ["Old"] * (operation == "relation_upsert")
        names = await settled(store)
        # Stopped while it stages, it keeps the new value from the others for some seconds: the old one goes first.
        assert names in (["New", "Other"], ["Old", "New", "Other"])
        assert [line.parameters["firstName"] for line in written(c)] == on_the_wire + names
        proof(f"stuck, {place}: past twice its lease, then fenced; {', '.join(names)} settled")


@long_form
@pytest.mark.parametrize("place", IN_MID_TRANSACTION)
async def test_a_drainer_stuck_in_mid_transaction_does_not_stop_the_others(
    store: Store, database: str, proof: Say, place: str
) -> None:
    """It holds the stager's lock and stands still: it must lose it, or nobody stages for any account.

    What it executed while it was stopped ends, and the server ends an idle transaction. A statement that its connection
    has not prepared stops half way, where the server sees nothing idle: there the others end it.
    """
    is_new = IN_MID_TRANSACTION[place]
    async with circle(store) as c, stuck(c, database) as hand:
        who = next(iter(c.sandbox.world.relations))
        names = [] if is_new else ["One", "Two", "Three"]
        for name in names:
            await c.edit("UPDATE crm.relations SET first_name = :name WHERE id = :who", name=name, who=who)
            await until_changed(c, name)
            await until_settled(store)
        async with store.begin() as blocker:
            # Parsing waits for the lock of a table; for that of a row an execution waits.
            await blocker.exec_driver_sql(
                "LOCK TABLE syncd.entries IN SHARE MODE" if is_new else "SELECT FROM syncd.lanes FOR UPDATE"
            )
            await c.edit("UPDATE crm.relations SET first_name = 'Held' WHERE id = :who", who=who)
            await until_staging(store, "stuck")
            hand.process.send_signal(signal.SIGSTOP)
        await c.edit("UPDATE crm.relations SET last_name = 'Free' WHERE id = :who", who=who)
        assert (await c.drain()).is_empty
        assert c.sandbox.world.relations[who].first_name == "Held"
        hand.process.send_signal(signal.SIGCONT)
        await c.edit("UPDATE crm.relations SET first_name = 'Again' WHERE id = :who", who=who)
        await until_changed(c, "Again")
        sent = [line.parameters["firstName"] for line in c.sandbox.requests.of("relation_upsert")]
        assert sent == [*names, "Held", "Again"]
        proof(f"stuck, {place} of a transaction: the others went on; {', '.join(sent)} sent")


async def until_changed(c: Circle, first_name: str) -> None:
    change = {"first_name": first_name}
    await c.sandbox.journal.until(lambda j: any(each.after == change for each in j), timeout_s=30)


async def until_settled(store: Store) -> None:
    """Wait until nobody has a lane."""
    async with asyncio.timeout(30):
        while await rows(store, "SELECT 1 FROM syncd.lanes WHERE claimed_by IS NOT NULL"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_staging(store: Store, name: str) -> None:
    """Wait until a session of that name stages, and waits for a lock."""
    sql = """SELECT 1 FROM pg_stat_activity WHERE application_name = :name AND wait_event_type = 'Lock'
             AND query LIKE '%DELETE FROM syncd.captures%'"""
    async with asyncio.timeout(30):
        while not await rows(store, sql, name=name):  # noqa: ASYNC110 - a lock wait announces nothing
            await asyncio.sleep(0.01)


@long_form
async def test_a_stuck_drainer_does_not_subscribe_twice(store: Store, database: str, proof: Say) -> None:
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
            before = await outbox(store, who)
            c.sandbox.release()
            hand.process.send_signal(signal.SIGCONT)
            await hand.until_fenced()
            assert await outbox(store, who) == before
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert len(c.sandbox.journal.of("mail.planned")) == 1
        assert [entry["status"] for entry in await c.entries()] == ["verified"]
        proof("stuck, subscribing: one request, one mail")
