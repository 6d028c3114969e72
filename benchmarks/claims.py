"""What must not slow the outbox down: old entries, stuck ones, one endless lane (and an open transaction: ``held``).

Each figure is a ratio of two measurements of one run, with the burden and without, in databases of their own. Rounds
alternate and the medians count, so that a busy machine disturbs both alike. The CRM is a wire that answers in no time
(or after a few milliseconds where waiting is the point): what is measured is the outbox alone. Sizes are arguments.
Needs a Postgres server whose role may create databases: ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.engine import make_url

from benchmarks.figures import Figure, note, peak_mb
from syncd.clock import SystemClock
from syncd.domain.account import Account
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Answered, Request, Response
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.store.by_index import plan_by_index
from syncd.store.migrate import upgrade
from syncd.store.outbox import ClaimedLane, LaneSettlement, Terms, claim, settle, stage
from syncd.transport import Transport

YES = Answered(Response(200, body=b'{"data":true}'))
CONCURRENCY = 16

# What a trigger writes for a tag: here for many relations in one statement.
CAPTURE = text(
    """
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
    SELECT :account_id, lane, 'add_tag', 'tag:' || tag,
           jsonb_build_object('tag_id', tag, 'tag_remote_id', CAST(tag AS text), 'tag_name', 'tag ' || tag)
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) lane,
         generate_series(CAST(:tag AS bigint), CAST(:tag AS bigint) + :tags - 1) tag
    """
)

# Lanes with a past: every entry settled long ago.
SETTLED = (
    """
    INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, acked_seq)
    SELECT :account_id, n, :each, :each FROM generate_series(1, CAST(:lanes AS bigint)) n
    """,
    """
    INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status, attempts,
                               xact, captured_at, settled_at)
    SELECT l.id, seq, l.account_id, l.relation_id, 'add_tag', 'tag:' || seq,
           jsonb_build_object('tag_id', seq, 'tag_remote_id', CAST(seq AS text), 'tag_name', 'tag ' || seq),
           'accepted', 1, pg_current_xact_id(), now() - interval '1 day', now() - interval '1 day'
    FROM syncd.lanes l, generate_series(1, CAST(:each AS bigint)) seq
    """,
)

# Lanes that cannot go on: a third behind a parked identity, a third behind dead tags of their own, a third in a long
# back-off. All of them were woken a moment ago, so that each is looked at once more.
STUCK = (
    """
    INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, ready_at)
    SELECT :account_id, :above + n, :each, now() FROM generate_series(1, CAST(:lanes AS bigint)) n
    """,
    """
    INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status, attempts,
                               next_attempt_at, xact, captured_at)
    SELECT l.id, seq, l.account_id, l.relation_id,
           CASE WHEN l.id % 3 = 0 AND seq = 1 THEN 'change_email' ELSE 'add_tag' END,
           CASE WHEN l.id % 3 = 0 AND seq = 1 THEN 'identity' ELSE 'tag:' || seq END,
           CASE WHEN l.id % 3 = 0 AND seq = 1 THEN '{"old": null, "new": "a@x.example"}'
                ELSE jsonb_build_object('tag_id', seq, 'tag_remote_id', CAST(seq AS text), 'tag_name', 'x') END,
           CASE l.id % 3 WHEN 0 THEN CASE seq WHEN 1 THEN 'parked' ELSE 'pending' END WHEN 1 THEN 'dead' ELSE 'pending'
           END, 1, CASE WHEN l.id % 3 = 2 THEN now() + interval '1 hour' END, pg_current_xact_id(), now()
    FROM syncd.lanes l, generate_series(1, CAST(:each AS bigint)) seq WHERE l.relation_id > :above
    """,
)


@dataclass(slots=True)
class Wire:
    """Stands in for the transport: answers yes and remembers when which relation was told."""

    latency_s: float = 0.0
    sent: list[tuple[float, str]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, request: Request, *, timeout_s: float | None = None) -> Answered:
        await asyncio.sleep(self.latency_s)
        self.sent.append((time.perf_counter(), request.path.split("/")[1]))
        self.moved.set()
        return YES

    async def until(self, count: int) -> None:
        """Wait until so many were sent."""
        while len(self.sent) < count:
            self.moved.clear()
            await self.moved.wait()

    def rate(self) -> float:
        return len(self.sent) / (self.sent[-1][0] - self.sent[0][0])


@dataclass(frozen=True, slots=True)
class Ground:
    """A migrated database with one account and relations whose remote ids equal their own."""

    store: Store
    account: Account

    def drainer(self, wire: Wire, **limits: Any) -> Drainer:
        given = DrainLimits(concurrency=CONCURRENCY, patience_s=0.5, **limits)
        return Drainer(self.store, provider(), cast(Transport, wire), SystemClock(), self.account, given)

    async def run(self, *statements: str, **binds: Any) -> None:
        for statement in statements:
            async with self.store.begin_remote() as connection:
                given = {name: value for name, value in binds.items() if f":{name}" in statement}
                await connection.execute(text(statement), {"account_id": self.account.id} | given)

    async def capture(self, first: int, last: int, tags: int = 1, tag: int = 1) -> None:
        async with self.store.begin() as connection:
            await connection.execute(CAPTURE, self.captures(first, last, tags, tag))

    def captures(self, first: int, last: int, tags: int = 1, tag: int = 1) -> dict[str, int]:
        return {"account_id": self.account.id, "first": first, "last": last, "tags": tags, "tag": tag}


@asynccontextmanager
async def ground(relations: int, server_url: str | None = None) -> AsyncIterator[Ground]:
    """Yield a database of our own, and drop it."""
    server_url = server_url or os.environ["SYNCD_TEST_SERVER"]
    name = f"syncd_bench_{uuid.uuid4().hex[:8]}"
    admin = Store.open(server_url, pool_size=1)
    try:
        async with admin.engine.connect() as connection:
            plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await plain.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
            store = Store.open(make_url(server_url).set(database=name).render_as_string(hide_password=False))
            try:
                yield await _prepared(store, relations)
            finally:
                await store.close()
                await plain.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    finally:
        await admin.close()


async def _prepared(store: Store, relations: int) -> Ground:
    await upgrade(store)
    async with store.begin_remote() as connection:
        made = Ground(store, await ensure_account(connection, "bench", "autorespond"))
    await made.run(
        """INSERT INTO crm.relations (id, account_id, remote_id, email)
           SELECT n, :account_id, n, n || '@relation.example' FROM generate_series(1, CAST(:relations AS bigint)) n""",
        relations=relations,
    )
    return made


async def alternate(rounds: int, *measured: Callable[[], Awaitable[float]]) -> list[float]:
    """Measure in turns and return the median of each."""
    found = [[await one() for one in measured] for _ in range(rounds)]
    return [median(column) for column in zip(*found, strict=True)]


async def settled(given: argparse.Namespace) -> None:
    """Claims a second beside millions of settled entries, against none."""
    each = 25
    async with AsyncExitStack() as stack:
        fresh = await stack.enter_async_context(ground(given.lanes))
        old = await stack.enter_async_context(ground(given.lanes))
        started = time.perf_counter()
        await old.run(*SETTLED, each=each, lanes=max(given.lanes, given.settled // each))
        await old.run("ANALYZE syncd.lanes", "ANALYZE syncd.entries")
        print(f"(loaded {given.settled} settled entries in {time.perf_counter() - started:.0f} s)", flush=True)
        without, beside = await alternate(
            given.rounds, lambda: claim_all(fresh, given.lanes), lambda: claim_all(old, given.lanes)
        )
    print(f"claims, no settled entries        {without:8.0f} lanes/s")
    print(f"claims, {given.settled:9d} settled       {beside:8.0f} lanes/s   ratio {beside / without:.2f}")
    tell(f"claims with {given.settled} settled entries", beside, without, 0.9, "lanes/s")


async def claim_all(ground: Ground, lanes: int) -> float:
    """Claim and settle lanes with one new entry each, without sending; return lanes a second."""
    await ground.capture(1, lanes)
    async with ground.store.begin() as connection:
        await stage(connection, most=lanes)
    terms = Terms("bench", 120.0, 100, lambda _: True)
    started, count = time.perf_counter(), 0
    while count < lanes:
        async with ground.store.begin() as connection:
            await plan_by_index(connection)
            taken = (await claim(connection, ground.account.id, terms, most=64)).lanes
        async with ground.store.begin_remote() as connection:
            result = await settle(connection, ground.account.id, "bench", [_delivered(lane) for lane in taken])
        assert taken
        assert not result.fenced
        count += len(taken)
    return count / (time.perf_counter() - started)


def _delivered(lane: ClaimedLane) -> LaneSettlement:
    sent = [(step.carrier.seq, "accepted") for step in lane.plan.steps]
    return LaneSettlement(
        lane.lane_id, lane.relation_id, lane.epoch, lane.seen_seq, lane.seen_seq, is_delivered=True, delivered=sent
    )


async def stuck(given: argparse.Namespace) -> None:
    """Live deliveries a second beside many entries that cannot be sent, against none."""
    each = 20
    lanes = given.stuck // each
    async with AsyncExitStack() as stack:
        free = await stack.enter_async_context(ground(given.lanes + lanes))
        burdened = await stack.enter_async_context(ground(given.lanes + lanes))
        await burdened.run(*STUCK, each=each, lanes=lanes, above=given.lanes)

        async def beside_stuck() -> float:
            await burdened.run("UPDATE syncd.lanes SET ready_at = now() WHERE relation_id > :above", above=given.lanes)
            return await deliver(burdened, given.lanes)

        without, beside = await alternate(given.rounds, lambda: deliver(free, given.lanes), beside_stuck)
    print(f"live, nothing stuck               {without:8.0f} deliveries/s")
    print(f"live, {given.stuck:7d} stuck on {lanes:5d} lanes {beside:6.0f} deliveries/s   ratio {beside / without:.2f}")
    tell(f"live with {given.stuck} entries stuck on {lanes} lanes", beside, without, 0.98)


async def deliver(ground: Ground, lanes: int) -> float:
    """Drain four new entries of each lane; return deliveries a second from the first to the last."""
    wire = Wire()
    await ground.capture(1, lanes, 4)
    await ground.drainer(wire).drain()
    assert len(wire.sent) == lanes * 4, len(wire.sent)
    return wire.rate()


async def wide(given: argparse.Namespace) -> None:
    """How other lanes fare beside one with tens of thousands of entries that was staged before them."""
    async with ground(given.lanes + 1) as alone, ground(given.lanes + 1) as beside:
        await beside.capture(given.lanes + 1, given.lanes + 1, given.wide)
        started = time.perf_counter()
        async with beside.store.begin() as connection:
            await stage(connection, most=given.wide)
        print(f"(staged the long lane in {time.perf_counter() - started:.1f} s)", flush=True)
        found = [(await small_lanes(alone, given), await small_lanes(beside, given)) for _ in range(given.rounds)]
    without, with_it = (
        tuple(median(column) for column in zip(*side, strict=True)) for side in zip(*found, strict=True)
    )
    print(f"small lanes alone                 {_fare(without)}")
    print(f"beside one lane of {given.wide:6d}         {_fare(with_it)}   ratio {with_it[0] / without[0]:.2f}")
    tell(f"small lanes beside one of {given.wide}", with_it[0], without[0])


async def small_lanes(ground: Ground, given: argparse.Namespace) -> tuple[float, float, float]:
    """Deliver two entries of each small lane; return their rate, and the median and 99th percentile of their wait."""
    lanes, wire, stop = given.lanes, Wire(latency_s=0.01), asyncio.Event()
    wide = str(lanes + 1)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        await ground.capture(1, lanes, 2)
        group.create_task(ground.drainer(wire).run(stop))
        waits: list[float] = []
        while len(waits) < 2 * lanes:
            await asyncio.sleep(0.05)
            waits = [at - started for at, relation in wire.sent if relation != wide]
        stop.set()
    marks = quantiles(waits, n=100)
    return len(waits) / max(waits), marks[49], marks[98]


def _fare(measured: tuple[float, ...]) -> str:
    rate, half, most = measured
    return f"{rate:8.0f} deliveries/s, waited p50 {half:6.2f} s, p99 {most:6.2f} s"


def tell(what: str, beside: float, without: float, target: float | None = None, unit: str = "deliveries/s") -> None:
    note(Figure(what, f"{beside:.0f} {unit}", f"{without:.0f} without", beside / without, target))


SCENES = {"settled": settled, "stuck": stuck, "wide": wide}


async def measure(given: argparse.Namespace) -> None:
    for name in given.only or SCENES:
        await SCENES[name](given)
    print(f"peak memory                       {peak_mb():8.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SCENES, action="append", help="one of the figures; may be given again")
    parser.add_argument("--settled", type=int, default=5_000_000, help="settled entries")
    parser.add_argument("--stuck", type=int, default=100_000, help="stuck entries, 20 to a lane")
    parser.add_argument("--wide", type=int, default=50_000, help="entries of the one long lane")
    parser.add_argument("--lanes", type=int, default=2000, help="live lanes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="small sizes: shows that it works, measures little")
    given = parser.parse_args()
    if given.short:
        given.settled, given.stuck, given.wide, given.lanes, given.rounds = 2000, 400, 400, 50, 1
    asyncio.run(measure(given))


if __name__ == "__main__":
    main()
