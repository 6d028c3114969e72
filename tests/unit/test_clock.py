"""The clock that tests move must behave as the machine's does, or the tests that use it prove nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from syncd.clock import Clock, SystemClock
from tests.support.clock import ManualClock


def test_the_system_clock_is_aware_and_utc() -> None:
    """A naive instant compared with a database instant raises far from its cause."""
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert 0 <= SystemClock().random() < 1


async def test_sleepers_wake_in_order_at_their_own_instants() -> None:
    """A backoff of 2 s must not see the time of one of 5 s, however far a test advances."""
    clock: Clock = (manual := ManualClock(datetime(2024, 1, 1, tzinfo=UTC)))
    woken: list[tuple[int, datetime]] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.now()))

    async with asyncio.TaskGroup() as group:
        for seconds in (5, 2):
            group.create_task(sleeper(seconds))
        await manual.until_sleeping(2)
        assert manual.next_wake_s == 2
        await manual.advance(4.5)
        assert [seconds for seconds, _ in woken] == [2]
        await manual.advance(0.5)
    assert woken == [(2, datetime(2024, 1, 1, 0, 0, 2, tzinfo=UTC)), (5, datetime(2024, 1, 1, 0, 0, 5, tzinfo=UTC))]


async def test_a_cancelled_sleep_is_forgotten() -> None:
    """A stopped daemon leaves no sleeper behind that a later advance would trip over."""
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.until_sleeping()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleeping == 0
    await clock.advance(20)


async def test_a_wall_clock_jump_does_not_move_spans() -> None:
    """Deadlines are spans: a corrected machine clock must not fire them."""
    clock = ManualClock()
    before = clock.monotonic()
    clock.set(datetime(2030, 1, 1, tzinfo=UTC))
    assert clock.monotonic() == before
    assert clock.now().year == 2030
