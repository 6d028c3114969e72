"""What an hour of the daemon costs the CRM: the requests that it makes are those that ``syncd streams`` states."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from syncd.policy.staleness import JITTER_SHARE
from syncd.sandbox import World
from syncd.service.outlook import read_outlooks
from syncd.store import Store
from tests.support.proving import Say, is_long
from tests.support.simulated import simulated

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
RELATIONS = 10_000 if is_long() else 400


async def test_an_hour_makes_the_requests_that_are_stated(store: Store, proof: Say) -> None:
    """A vendor who sees ten times what was announced closes the account; one who sees less was asked too rarely.

    The daemon's jobs run for a simulated hour on the default cadences, with a budget in proportion to the account.
    """
    world = World.seeded(RELATIONS, RELATIONS * 2, 10, seed=7, now=NOON)
    async with simulated(store, world, NOON, sweep_budget=RELATIONS // 20) as it:
        await it.pull_all()
        daemon = await it.replica()
        await it.run(1800, daemon)  # whatever the first load left to do is done
        (outlook,) = await read_outlooks(store, it.settings, it.clock.now())
        before = it.requested()
        await it.run(3600 * (1 + JITTER_SHARE), daemon)
        made = {name: count - before.get(name, 0) for name, count in it.requested().items()}
    made["relation_details"] = made.pop("relation_by_id")
    made["invoice_details"] = made.pop("invoice_detail")
    made["invoice_relations"] = made.pop("relation_by_email", 0)
    for cost in outlook.costs:
        most_apart = cost.calls + cost.per_hour * 0.12  # one round more or less, and the jitter
        assert made.get(cost.stream, 0) == pytest.approx(cost.per_hour, abs=most_apart), cost.stream
    total = sum(made.values())
    proof(f"{RELATIONS:,} relations: {total:,} requests in an hour, {outlook.requests_per_h:,.0f} stated")
    assert total == pytest.approx(outlook.requests_per_h, rel=0.15)
