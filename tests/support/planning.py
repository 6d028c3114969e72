"""Planners and appliers on a circle, and what the simulator's request log says was sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from syncd.clock import SystemClock
from syncd.outbound.applying import Applied, Applier
from syncd.outbound.plan_file import FiledPlan
from syncd.outbound.planned import Plan
from syncd.outbound.planning import Planner, Wish
from tests.support.outbox import QUICK, Circle

# One worker: what is sent is then in the order of the plan.
ALONE = replace(QUICK, concurrency=1)


async def planned(c: Circle, limits: Any = ALONE, **wish: Any) -> Plan:
    return (await _made(c, limits, **wish))[0]


async def filed(c: Circle, limits: Any = ALONE, **wish: Any) -> FiledPlan:
    return (await _made(c, limits, is_filed=True, **wish))[1]


async def applied(c: Circle, plan: FiledPlan, limits: Any = ALONE, stop: asyncio.Event | None = None) -> Applied:
    applier = Applier(c.store, c.provider, c.transport, SystemClock(), c.account, limits, c.reports.append)
    async with asyncio.timeout(30):
        return await applier.apply(plan, stop)


async def _made(c: Circle, limits: Any, **wish: Any) -> tuple[Plan, FiledPlan]:
    planner = Planner(c.store, c.provider, c.transport, SystemClock(), c.account, limits)
    async with asyncio.timeout(30):
        return await planner.plan(Wish(**wish))


def calls_of(plan: Plan) -> list[tuple[str, str]]:
    """Whose call, and which, in the order of the plan."""
    return [(str(lane.email), call.call) for lane in plan.lanes for call in lane.calls]


def writes(c: Circle, since: int = 0) -> list[str]:
    """The operations that changed something or tried to, in the order in which they came in."""
    reads = {name for name, row in c.provider.endpoints.items() if row.effect.value == "safe"}
    return [line.operation for line in c.sandbox.requests.since(since) if line.operation not in reads]


def told_by_lane(plan: Plan) -> dict[int | None, list[tuple[str, tuple[int, ...]]]]:
    """What the plan says of each relation, in order: the operation, and the places of all entries in it."""
    return {
        lane.relation_id: [
            (call.operation, (*(mark.seq for mark in call.supersedes), call.carries.seq)) for call in lane.calls
        ]
        for lane in plan.lanes
    }


async def sent_by_lane(c: Circle) -> dict[int | None, list[tuple[str, tuple[int, ...]]]]:
    """The same of what was delivered."""
    entries = {entry["id"]: entry for entry in await c.entries()}
    sent: dict[int | None, list[tuple[str, tuple[int, ...]]]] = {}
    for report in c.reports:
        places = tuple(entries[id_]["seq"] for id_ in report.entry_ids)
        relation_id = entries[report.entry_ids[-1]]["relation_id"]
        sent.setdefault(relation_id, []).append((report.operation, places))
    return sent
