"""The seeded world is the same for the same seed, believable, quick, and nobody's accomplice."""

from __future__ import annotations

import ast
import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

import syncd.sandbox
from syncd.sandbox import MovableClock, Sandbox, SandboxOptions, World, serve
from tests.support.crm import NOW, crm

PACKAGE = Path(syncd.sandbox.__file__).parent
ALLOWED = ("syncd.sandbox", "syncd.domain", "aiohttp", "msgspec")


def image(world: World) -> str:
    return repr((world.relations, world.orders, world.invoices, world.tags, world.groups, world.lists, world.fields))


def test_the_same_seed_is_the_same_world() -> None:
    """Whoever reports a failure names a seed."""
    one, same, other = (World.seeded(40, 90, 30, seed=seed, now=NOW) for seed in (1, 1, 2))
    assert image(one) == image(same)
    assert image(one) != image(other)


def test_the_world_holds_what_makes_life_hard() -> None:
    """Particles, plus signs, capitals, slashes, credits, unpaid orders, running and ended subscriptions."""
    world = World.seeded(200, 400, 120, seed=3, now=NOW)
    relations, orders = world.relations.values(), world.orders.values()
    lines = [line for order in orders for line in order.lines]
    assert any("van der" in each.suffix for each in relations)
    assert any("+" in each.email for each in relations)
    assert any(each.email != each.email.lower() for each in relations)
    assert any(not each.groups for each in relations)
    assert any(not order.is_paid for order in orders)
    assert any(line.subscription_id and line.ends_on for line in lines)
    assert any(line.subscription_id and not line.ends_on for line in lines)
    assert any("/" in number for number, _ in world.invoices)
    assert 5 < sum(is_credit for _, is_credit in world.invoices) < 20
    assert {len(order.lines) for order in orders} == {1, 2, 3}
    assert max(order.purchased_at for order in orders) > NOW - timedelta(hours=24)
    assert all(order.purchased_at <= NOW for order in orders)
    assert len({each.email.lower() for each in relations}) == 200


@pytest.mark.parametrize(("relations", "orders", "invoices"), [(0, 0, 0), (1, 1, 1), (3, 2, 30), (5, 0, 10), (0, 4, 4)])
def test_small_worlds_stand(relations: int, orders: int, invoices: int) -> None:
    """Edge sizes are what people start with."""
    world = World.seeded(relations, orders, invoices, now=NOW)
    assert len(world.relations) == relations
    assert len(world.orders) == (orders if relations else 0)
    assert len(world.invoices) == (invoices if relations and orders else 0)


async def test_a_big_answer_arrives_whole() -> None:
    """Streamed in pieces, with its length told: no order lost between two of them."""
    async with crm(World.seeded(200, 30_000, 0, now=NOW)) as caller:
        got = await caller.get("orders", hours="999999")
        assert int(got.headers["Content-Length"]) == len(got.body)
        assert [row["orderId"] for row in got.payload] == list(caller.sandbox.world.orders)


def test_a_clock_stands_still_or_runs() -> None:
    """Still for tests, running for people."""
    still, running = MovableClock(NOW), MovableClock()
    assert still.now() == still.now() == NOW
    assert still.advance(60) == NOW + timedelta(seconds=60)
    before = datetime.now(UTC)
    running.advance(3600)
    assert running.now() - before >= timedelta(hours=1)
    still.run()
    assert not still.is_still
    assert still.now() >= NOW + timedelta(seconds=60)


async def test_serve_runs_until_cancelled_and_frees_its_port() -> None:
    """What ``syncd sandbox`` runs; Ctrl-C must leave nothing behind."""
    ready: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(SandboxOptions(relations=3, orders=3, invoices=1, port=0), ready.set_result))
    sandbox = await asyncio.wait_for(ready, 10)
    assert sandbox.host == "127.0.0.1"
    async with aiohttp.ClientSession() as session, session.get(sandbox.base_url + "version") as response:
        assert response.status == 200
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(sandbox.host, sandbox.port)


def test_the_witness_is_independent_of_the_accused() -> None:
    """A misreading shared with the provider would never be found: domain at most, and nothing else of syncd."""
    strangers = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            strangers += [name for name in names if name.startswith("syncd") and not name.startswith(ALLOWED)]
    assert strangers == []
