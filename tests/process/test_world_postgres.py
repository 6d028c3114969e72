"""Postgres under it: restarted, killed, cut and full while a drainer delivers; it goes on by itself, and loses nothing.

Each trouble comes while tags are delivered at the simulator's pace. Afterwards the pace must be what it was, within ten
seconds and without anybody's help, and in the end the CRM must hold what was committed, every subscription once. Beside
other tests no pace can be told: there three troubles come one after the other, and delivery must go on after each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

import pytest

from syncd.domain.errors import InfrastructureError
from syncd.sandbox import Journal
from syncd.store import Store
from tests.support.outbox import QUICK, circle
from tests.support.proving import Say, is_long
from tests.support.world_crew import Ground, TaskHand
from tests.support.world_edits import Call, Facts, Rename, Transaction, commit
from tests.support.world_model import before
from tests.support.world_play import Incident, Schedule, decide, gather, until_at_rest
from tests.support.world_postgres import SHARE, Cluster, Gauge, hogged, load
from tests.support.world_verdict import complaints
from tests.support.world_weather import Climate

# Such that the simulator's patience bounds the rate: what a busy machine adds to an answer is little against it.
LATENCY_S = 0.25
WINDOW_S = 4.0 if is_long() else 1.0
ROUNDS = 3
RELATIONS = 600 if is_long() else 30
LIMITS = replace(QUICK, concurrency=10, lease_s=6.0, timeout_s=3.0, poll_interval_s=0.05)


@dataclass(slots=True)
class Scene:
    """Everything that a trouble may touch."""

    cluster: Cluster
    url: str
    ground: Ground
    hand: TaskHand
    gauge: Gauge

    def now(self) -> datetime:
        return self.ground.circle.sandbox.clock.now()


async def fast_restart(scene: Scene) -> None:
    await scene.cluster.halt("fast")
    await scene.cluster.revive()


async def immediate_restart(scene: Scene) -> None:
    await scene.cluster.halt("immediate")
    await scene.cluster.revive()


async def kill_the_postmaster(scene: Scene) -> None:
    await scene.cluster.kill()
    await scene.cluster.revive()


async def cut_sessions_again_and_again(scene: Scene) -> None:
    """Seven times a second, for as long as a window."""
    for _ in range(int(7 * WINDOW_S)):
        await scene.hand.cut()
        await asyncio.sleep(1 / 7)


async def take_all_slots(scene: Scene) -> None:
    """Others have every connection of the server, and the drainer's are cut."""
    async with hogged(scene.url, "drainer"):
        await asyncio.sleep(1.0)


async def take_the_pool(scene: Scene) -> None:
    """Somebody else in the process has every connection of the pool."""
    async with scene.hand.pool_taken():
        await asyncio.sleep(1.0)


TROUBLES: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "fast restart": fast_restart,
    "immediate restart": immediate_restart,
    "postmaster killed": kill_the_postmaster,
    "sessions cut": cut_sessions_again_and_again,
    "no slots": take_all_slots,
    "no pool": take_the_pool,
}
SHORT = ("postmaster killed", "sessions cut", "immediate restart")


@pytest.mark.slow
@pytest.mark.skipif(is_long(), reason="the long form plays each of them for longer, and tells the pace")
async def test_delivery_goes_on_after_each_trouble(
    cluster: Cluster, cluster_url: str, cluster_store: Store, proof: Say
) -> None:
    """Nobody helps it up; nothing is lost, nothing done twice that must not be."""
    async with under_load(cluster, cluster_url, cluster_store, ", ".join(SHORT)) as (scene, schedule, start):
        journal = scene.ground.circle.sandbox.journal
        for name in SHORT:
            await TROUBLES[name](scene)
            await until_more(journal, 2 * LIMITS.concurrency)  # more than can have been on its way when it came
    edits, parked = await judged(scene, schedule, start)
    proof(f"postgres, {', '.join(SHORT)}: delivery went on after each; {edits} edits, {parked} for a person")


@pytest.mark.slow
@pytest.mark.skipif(not is_long(), reason="the pace can be told where nothing else runs: make prove")
@pytest.mark.parametrize("name", TROUBLES)
async def test_delivery_recovers_by_itself(
    cluster: Cluster, cluster_url: str, cluster_store: Store, proof: Say, name: str
) -> None:
    """At least 0.95 of the old rate within ten seconds; nothing lost, nothing done twice that must not be."""
    async with under_load(cluster, cluster_url, cluster_store, name) as (scene, schedule, start):
        rates = []
        for _ in range(ROUNDS):
            was = await scene.gauge.steady()
            await TROUBLES[name](scene)
            rates.append((was, *await scene.gauge.recovered(was, scene.now())))
    edits, parked = await judged(scene, schedule, start)
    told = "; ".join(f"{was:.0f}/s, then {rate:.0f}/s after {after_s:.1f} s" for was, rate, after_s in rates)
    proof(f"postgres, {name}: {told}; {edits} edits, {parked} for a person")
    assert all(rate >= SHARE * was for was, rate, _ in rates), told


async def until_more(journal: Journal, effects: int) -> None:
    """Wait until so many more effects have landed."""
    wanted = len(journal) + effects
    await journal.until(lambda j: len(j) >= wanted, timeout_s=60)


async def judged(scene: Scene, schedule: Schedule, start: dict[int, dict[str, object]]) -> tuple[int, int]:
    """See that all came right, before and after a person decided the rest; return how many edits there were, and how
    many waited for that person."""
    evidence = await gather(scene.ground, schedule, start, [])
    wrong = complaints(evidence)
    oddities = await decide(scene.ground)
    decided = await gather(scene.ground, schedule, start, oddities)
    decided.is_decided = True
    wrong += complaints(decided)
    assert not wrong, "\n".join(wrong[:20])
    return len(evidence.ledger), sum(entry["status"] == "parked" for entry in evidence.entries)


@asynccontextmanager
async def under_load(
    cluster: Cluster, url: str, store: Store, name: str
) -> AsyncIterator[tuple[Scene, Schedule, dict[int, dict[str, object]]]]:
    """Have a drainer deliver, and applications edit, for the length of the block; then let all come to rest."""
    async with circle(store, relations=RELATIONS) as c:
        for relation in c.sandbox.world.relations.values():
            relation.tags.clear()
            relation.events.clear()
        start, facts = before(c.sandbox.world), Facts.of(c.sandbox.world)
        for number in facts.relations[:6]:
            await commit(store, Transaction((Call(number, facts.lists[0], True),)))
        await load(store, tuple(c.sandbox.world.tags))
        for number in facts.relations[3:12]:
            await commit(store, Transaction((Call(number, facts.lists[1], True),)))
        latent = c.sandbox.switches
        c.sandbox.turn(latent.turned(latency_s=LATENCY_S))
        ground = Ground(c, url, LIMITS, dropped=set(facts.relations))
        scene = Scene(cluster, url, ground, TaskHand(ground, "drainer"), Gauge(c.sandbox, WINDOW_S))
        await scene.hand.start()
        editing = asyncio.create_task(edit_on(store, facts))
        try:
            await c.sandbox.until_requests("tag_add", 20)
            yield scene, _schedule(name), start
            editing.cancel()
            await asyncio.wait([editing])
            c.sandbox.turn(latent)
            left = await until_at_rest(store, patience_s=120.0)
            assert not left, left
        finally:
            editing.cancel()
            await scene.hand.stop()


async def edit_on(store: Store, facts: Facts) -> None:
    """Edit as an application that meets errors and goes on; whether it was committed, the ledger knows."""
    random = Random(7)
    while True:
        with suppress(InfrastructureError):
            who = random.choice(facts.relations)
            await commit(store, Transaction((Rename(who, "last_name", f"Name {random.randrange(1000)}"),)))
        await asyncio.sleep(0.05)


def _schedule(name: str) -> Schedule:
    return Schedule(0, RELATIONS, 1, 1, 0, Climate(0.0, ()), (Incident(0, name, 0),), False)
