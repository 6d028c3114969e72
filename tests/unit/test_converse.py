"""Conversations of many workers at one rate, on a clock that is moved by hand."""

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from syncd.clock import Clock
from syncd.domain.changes import AddTag
from syncd.outbound.converse import Line, converse
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.providers.autorespond import provider
from syncd.providers.contract import Answer, Delivered, Request
from tests.support.clock import ManualClock
from tests.support.conversing import answer, target
from tests.support.lanes import add

RATE_PER_S, CHANGES, CONVERSATION_S = 10.0, 20, 0.8


@dataclass(frozen=True)
class _Said:
    """A wire that says yes to everything after a while, and notes when it was asked."""

    clock: Clock
    at: list[float]
    takes_s: float

    async def send(self, request: Request, *, timeout_s: float) -> Answer:
        assert timeout_s > 0
        self.at.append(self.clock.monotonic())
        await self.clock.sleep(self.takes_s)
        return answer("true")


@pytest.mark.parametrize("takes_s", [0.0, 0.05])
async def test_more_workers_than_the_rate_feeds_do_not_starve_each_other(takes_s: float) -> None:
    """A turn that comes too late must be left to others: turns taken in vain make every later one come too late."""
    clock = ManualClock()
    wire: Any = _Said(clock, [], takes_s)
    pace = Pace(DrainLimits(rate_per_s=RATE_PER_S, concurrency=16), clock)
    line = Line.to(provider(), wire, clock, pace)
    waiting, started = asyncio.Queue[AddTag](), clock.monotonic()
    for number in range(CHANGES):
        waiting.put_nowait(add(number))

    async def work() -> None:
        while True:
            change = await waiting.get()
            if not await _is_delivered(line, change):
                waiting.put_nowait(change)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(16)]
        for _ in range(100):
            await clock.advance(0.1)
        for worker in workers:
            worker.cancel()
    said_s = [at - started for at in wire.at]
    gaps_s = [later - sooner for sooner, later in pairwise(said_s)]
    assert len(said_s) == CHANGES, "everybody is served"
    assert max(gaps_s) <= CONVERSATION_S, "no turn passes unused for longer than whoever came too late stands back"
    assert min(gaps_s) > 0.99 / RATE_PER_S, "the rate is kept"


async def _is_delivered(line: Line, change: AddTag) -> bool:
    deadline = line.clock.monotonic() + CONVERSATION_S

    async def may_go(_: Request) -> bool:
        return True

    talk = await converse(line, change, target(), deadline, may_go)
    return isinstance(talk.outcome, Delivered)
