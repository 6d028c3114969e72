"""The guard in the whole circle: nothing of a burst above the limit reaches the CRM before a person approves it.

Two drainers with different batch sizes, a real Postgres, a real simulator whose journal is the witness. Each seed is
another interleaving; `make prove` runs many.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest
from sqlalchemy import text

from syncd.outbound import Drainer, guarding
from syncd.outbound.applying import Fate
from syncd.outbound.guarding import KEPT_S, Guarding
from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.store import Store
from syncd.store.outbox_guard import read_guard
from tests.support.clock import ManualClock
from tests.support.holds import burst, decided, holds, relations_in
from tests.support.outbox import QUICK, Circle, circle, rows, run_sql
from tests.support.planning import ALONE, applied, filed
from tests.support.proving import Say, is_long
from tests.support.pulling import circle as pulling_circle

LIMIT = 10
GUARD = Guard(relations=LIMIT, share=0, window_s=60)
SEEDS = range(60 if is_long() else 5)
LIVE, BURST = 301, 302
IS_KEPT = "SELECT 1 FROM syncd.account_states WHERE CAST(limits ->> 'guard_kept_until' AS double precision) > 1"


def _untagged(c: Circle) -> list[int]:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()
    return list(c.sandbox.world.relations)


def _tagged(c: Circle, tag: int) -> set[str]:
    return {effect.subject for effect in c.sandbox.journal.of("tag.added") if effect.after == tag}


def _drainer(c: Circle, random: Random) -> Drainer:
    return c.drainer(
        QUICK, guard=GUARD, stage_batch=random.choice([1, 3, 7, 20, 500]), concurrency=random.randint(1, 4)
    )


async def _tag_each(c: Circle, random: Random, people: list[int], tag: int) -> None:
    """Tag people one by one, each in a transaction of its own, in a hurry or not."""
    for who in people:
        await burst(c.store, who, who, tag=tag)
        await asyncio.sleep(random.choice([0, 0, 0.01]))


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_of_a_large_transaction_is_sent_before_approval(store: Store, proof: Say, seed: int) -> None:
    """UPDATE without WHERE while the shop goes on: the shop's edits arrive, the slip waits and then goes out whole."""
    random = Random(seed)
    async with circle(store, relations=60) as c:
        people = _untagged(c)
        live = random.sample(people, 4)
        size = random.randint(LIMIT + 1, len(people))
        stop = asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(_drainer(c, random).run(stop))
            group.create_task(_tag_each(c, random, live, LIVE))
            await asyncio.sleep(random.choice([0, 0.01, 0.03]))
            await burst(store, people[0], people[size - 1], tag=BURST)
            await c.sandbox.journal.until(lambda _: len(_tagged(c, LIVE)) == len(live), timeout_s=30)
            stop.set()
        await c.drain(guard=GUARD)
        assert _tagged(c, BURST) == set(), f"seed {seed}"
        assert len(await relations_in(store, "held")) == size
        (hold,) = await holds(store)
        await decided(store, hold["id"], HoldStatus.APPROVED, most=random.choice([1, 9, 100]))
        await asyncio.gather(_drainer(c, random).drain(), _drainer(c, random).drain())
        assert len(_tagged(c, BURST)) == size, f"seed {seed}"
        assert len(await holds(store)) == 1, "an approved burst is not asked about again"
        proof(f"guard, one transaction: seed {seed}: 0 of {size} sent before approval, {len(live)} live ones meanwhile")


@pytest.mark.parametrize("seed", SEEDS)
async def test_of_a_loop_no_more_than_the_limit_is_sent_before_approval(store: Store, proof: Say, seed: int) -> None:
    """Row by row the same slip: what went out before the window was full is all that ever goes out unasked."""
    random = Random(seed)
    async with circle(store, relations=40) as c:
        people = _untagged(c)
        random.shuffle(people)
        stop = asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(_drainer(c, random).run(stop))
            for part in (people[::2], people[1::2]):
                await _tag_each(c, random, part, BURST)
            stop.set()
        await c.drain(guard=GUARD)
        sent = len(_tagged(c, BURST))
        assert sent <= LIMIT, f"seed {seed}"
        assert len(await relations_in(store, "held")) == len(people) - sent
        await decided(store, (await holds(store))[0]["id"], HoldStatus.APPROVED)
        await c.drain(guard=GUARD)
        assert len(_tagged(c, BURST)) == len(people), f"seed {seed}"
        proof(f"guard, a loop: seed {seed}: {sent} of {len(people)} sent before approval, allowed {LIMIT}")


async def test_a_rejected_burst_is_taken_back_by_the_next_pull(store: Store) -> None:
    """The mirror must not go on showing what the CRM was never told."""
    async with pulling_circle(store) as it:
        await it.pull("tags", "groups", "group_members", "orders", "relation_details", "relation_tags")
        before = await it.rows("SELECT relation_id, tag_id FROM crm.relation_tags ORDER BY 1, 2")
        names = await it.rows("SELECT id, last_name FROM crm.relations WHERE remote_id IS NOT NULL ORDER BY id")
        members = await it.rows("SELECT group_id, relation_id FROM crm.group_members ORDER BY 1, 2")
        await it.edit(
            "UPDATE crm.relations SET last_name = 'Slip'",
            "DELETE FROM crm.relation_tags",
            "DELETE FROM crm.group_members WHERE relation_id % 2 = 0",
        )
        await _held_and_rejected(it.store)
        await it.advance(3600)
        await it.pull("group_members", "relation_details", "relation_tags")
        assert await it.rows("SELECT relation_id, tag_id FROM crm.relation_tags ORDER BY 1, 2") == before
        assert await it.rows("SELECT id, last_name FROM crm.relations WHERE remote_id IS NOT NULL ORDER BY id") == names
        assert await it.rows("SELECT group_id, relation_id FROM crm.group_members ORDER BY 1, 2") == members


async def _held_and_rejected(store: Store) -> None:
    from syncd.store.outbox import set_guard
    from tests.support.holds import staged_all

    (account,) = await rows(store, "SELECT id FROM crm.accounts")
    async with store.begin() as connection:
        await set_guard(connection, account["id"], Guard(relations=2, share=0))
    await staged_all(store)
    await decided(store, (await holds(store))[0]["id"], HoldStatus.REJECTED)
    assert await rows(store, "SELECT 1 FROM syncd.entries WHERE status <> 'skipped'") == []


async def test_a_one_shot_drain_says_that_somebody_must_decide(store: Store) -> None:
    """A timer that reads "try later" would try for ever."""
    async with circle(store, relations=30) as c:
        people = _untagged(c)
        await burst(store, people[0], people[-1], tag=BURST)
        report = await c.drain(guard=GUARD)
        assert (report.delivered, report.pending, report.blocked) == (0, 0, 30)


async def test_a_running_drainer_keeps_its_guard_in_force(store: Store) -> None:
    """At its start, whatever was there before; and again, should another daemon have set its own."""
    async with circle(store, relations=9) as c:
        clock, stop = ManualClock(), asyncio.Event()
        await Guarding(store, c.account, None, clock).state(is_kept=False)
        drainer = c.drainer(guard=GUARD)
        running = asyncio.create_task(drainer.run(stop))
        async with asyncio.timeout(20):
            while not await rows(store, IS_KEPT):  # noqa: ASYNC110 - a table announces nothing
                await asyncio.sleep(0.01)
        await Guarding(store, c.account, None, clock).state(is_kept=False)
        assert await _in_force(store, c) == GUARD
        stop.set()
        await running
        other = Guard(relations=3, share=0)
        kept = Guarding(store, c.account, GUARD, clock)
        await kept.state(is_kept=True)
        await Guarding(store, c.account, other, clock).state(is_kept=True)
        await kept.state(is_kept=True)
        assert await _in_force(store, c) == other, "it says so every few seconds, not at every look"
        await clock.advance(KEPT_S / 2)
        await kept.state(is_kept=True)
        assert await _in_force(store, c) == GUARD


async def test_a_guard_is_kept_while_a_round_takes_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that the CRM lets wait takes as long as a guard is kept: a drain beside it would put in its own."""
    monkeypatch.setattr(guarding, "_AGAIN_S", 0.02)
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = CAST('syncd.captures' AS regclass)"
    async with circle(store, relations=9) as c, asyncio.timeout(20):
        stop = asyncio.Event()
        async with store.begin() as connection:  # a round reads what is captured
            await connection.execute(text("LOCK TABLE syncd.captures"))
            running = asyncio.create_task(c.drainer(guard=GUARD).run(stop))
            while not await rows(store, waits):  # noqa: ASYNC110 - nor does a lock
                await asyncio.sleep(0.01)
            await run_sql(store, "UPDATE syncd.account_states SET limits = limits || '{\"guard_kept_until\": 1}'")
            while not await rows(store, IS_KEPT):  # noqa: ASYNC110 - a table announces nothing
                await asyncio.sleep(0.01)
        stop.set()
        await running


async def test_a_plan_is_applied_under_the_guard_of_its_settings(store: Store) -> None:
    """It stages what was captured since, and nobody may have drained this account before."""
    async with circle(store, relations=30) as c:
        people = _untagged(c)
        await burst(store, people[0], people[0], tag=LIVE)
        plan = await filed(c)
        await burst(store, people[1], people[-1], tag=BURST)
        assert (await applied(c, plan, replace(ALONE, guard=GUARD))).count(Fate.SENT) == 1
        assert len(await relations_in(store, "held")) == 29


async def _in_force(store: Store, c: Circle) -> Guard | None:
    sql = "SELECT CAST(limits -> 'guard' AS text) AS guard FROM syncd.account_states WHERE account_id = :id"
    return read_guard((await rows(store, sql, id=c.account.id))[0]["guard"])
