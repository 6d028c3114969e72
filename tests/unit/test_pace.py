"""Pace and the queue behind it, on a clock that is moved by hand: who may send, when, and who is woken for it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from syncd.outbound.leases import Lease
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.outbound.queue import LaneQueue
from syncd.policy.fold import Plan
from syncd.store.outbox import ClaimedLane
from tests.support.clock import ManualClock, settle

REASON = "tag_add: 405, the CRM does not take POST here"


def _pace(clock: ManualClock | None = None, **limits: Any) -> Pace:
    return Pace(DrainLimits(**{"concurrency": 4, **limits}), clock or ManualClock())


async def test_a_throttle_passes_and_leaves_it_narrow() -> None:
    """All workers were stopped at the same moment; they must not all start at the same moment."""
    clock = ManualClock()
    pace = _pace(clock)
    pace.throttled(30)
    pace.reopen()
    assert (pace.is_open, pace.throttled_s) == (False, 30)
    await clock.advance(30)
    pace.reopen()
    assert (pace.is_open, pace.allowed) == (True, 1)


def test_a_pause_that_is_lifted_leaves_it_narrow() -> None:
    """Whatever stopped it, what piled up meanwhile comes back slowly."""
    pace = _pace()
    pace.unauthorised("401")
    assert not pace.is_open
    pace.reopen(is_lifted=True)
    assert (pace.is_open, pace.allowed) == (True, 1)


def test_looking_again_while_it_is_open_narrows_nothing() -> None:
    """The gate looks twice a second."""
    pace = _pace()
    pace.reopen()
    pace.reopen(is_lifted=True)
    assert pace.allowed == 4


async def test_a_suspended_operation_is_left_alone_for_longer_each_time() -> None:
    """A wrong verb stays wrong until somebody mends a setting."""
    clock, waits = ManualClock(), []
    pace = _pace(clock, probe_s=30, probe_max_s=100)
    for _ in range(4):
        pace.suspend("add_tag", REASON)
        pace.suspend("add_tag", REASON)
        waits.append(pace.suspended_s("add_tag"))
        await clock.advance(waits[-1])
    assert waits == [30, 60, 100, 100]
    assert pace.suspended_s("set_field") == 0
    pace.delivered("add_tag")
    pace.suspend("add_tag", REASON)
    assert pace.suspended_s("add_tag") == 30


def test_an_entry_that_fails_again_asks_for_a_read_and_a_delivery_takes_that_back() -> None:
    """With two changes in the outbox nothing else would find out that the host is down."""
    pace = _pace()
    pace.failed(1, "503")
    assert not pace.is_doubtful
    pace.failed(1, "503", is_again=True)
    assert pace.is_doubtful
    pace.delivered("add_tag")
    assert not pace.is_doubtful


def test_a_share_of_the_rate_is_told_to_whoever_else_keeps_it() -> None:
    """Pulls of the same process take their turns from the same promise."""
    told: list[int] = []
    pace = Pace(DrainLimits(rate_per_s=10), ManualClock(), told.append)
    for replicas in (1, 2, 2, 1):
        pace.share(replicas)
    assert told == [2, 1]
    pace.share(5)
    waits = [pace.turn_s(60) for _ in range(3)]
    assert waits == [0.0, 0.5, 1.0]


def _lane(number: int) -> Lease:
    return Lease(ClaimedLane(number, number, 1, 1, (), Plan(), datetime(2024, 5, 1, tzinfo=UTC)), 100.0)


async def test_workers_beyond_the_width_are_woken_when_it_widens_and_never_poll() -> None:
    """A setting of a minute between polls would else be a minute for each place gained."""
    clock = ManualClock()
    pace = _pace(clock, concurrency=3, poll_interval_s=60)
    pace.unauthorised("x")
    pace.reopen(is_lifted=True)
    queue, took = LaneQueue(DrainLimits(concurrency=3), pace, clock, asyncio.Event()), []

    async def work(place: int) -> None:
        while (taken := await queue.take(place)) is not None:
            took.append((place, taken.lane.lane_id))
            await asyncio.Event().wait()

    workers = [asyncio.create_task(work(place)) for place in range(3)]
    await settle()
    queue.put(_lane(number) for number in range(5))
    await settle()
    assert took == [(0, 0)]
    pace.delivered("add_tag")
    await settle()
    assert took == [(0, 0), (1, 1)]
    assert clock.sleeping == 0
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_closing_sends_every_worker_home_when_the_queue_is_empty() -> None:
    """What is claimed goes back through the workers, however narrow it is at that moment."""
    clock = ManualClock()
    pace = _pace(clock, concurrency=3)
    pace.unauthorised("x")
    pace.reopen(is_lifted=True)
    queue = LaneQueue(DrainLimits(concurrency=3), pace, clock, asyncio.Event())
    takes = [asyncio.create_task(queue.take(place)) for place in range(3)]
    await settle()
    queue.put((_lane(1), _lane(2)))
    queue.close()
    async with asyncio.timeout(5):
        taken = await asyncio.gather(*takes)
    assert sum(1 for each in taken if each is not None) == 2
