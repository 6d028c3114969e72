"""Crash a pull at every boundary: killed before, in and after each message, no window of it is ever half there.

A real puller in a process of its own, SIGKILL, a real Postgres, real HTTP; see ``tests/support/crashing``. The short
form plays a sample drawn by the seed; ``make prove`` plays all points.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from syncd.inbound import ORDER
from tests.support import proving
from tests.support.crashing.forks import forks
from tests.support.crashing.gate import Moment, Point
from tests.support.crashing.pull_take import PullStage, pull_stage
from tests.support.defects import DEFECTS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

# The ends of the transactions that prove something, and of those that keep the row of a PDF.
_PROVING = re.compile(r"COMMIT after (UPDATE syncd\.runs|INSERT INTO syncd\.readings)")
_KEEPING = re.compile(r"COMMIT after DELETE FROM syncd\.invoice_fetches")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PullStage]:
    directory: Path = tmp_path_factory.mktemp("crash_pulls")
    async with forks(directory) as warm, pull_stage(server_url, template, warm, directory) as prepared:
        yield prepared


async def test_a_puller_may_die_before_and_after_each_of_its_messages(stage: PullStage, proof: proving.Say) -> None:
    """Rows without proof are read again, which costs a call; proof without rows is silent loss, for ever."""
    started = time.monotonic()
    ends = [point for point in stage.points if point.text.startswith("COMMIT")]
    sample = proving.pick(stage.points, short=7, always=random.Random(proving.seed()).sample(ends, 3))
    takes = await stage.play_all(sample)
    broken = [str(take) for take in takes if take.complaints]
    unmet = sum(not take.is_met for take in takes)
    proof(
        f"killed pulls: {len(takes) - len(broken)} of {len(takes)} points hold, of {len(stage.points)} "
        f"(seed {proving.seed()}; {unmet} not met again; {time.monotonic() - started:.0f} s)"
    )
    assert not broken, "\n".join(broken[:20])
    assert unmet <= max(1, 0.05 * len(takes)), "too many points were not there again"


@pytest.mark.skipif(not proving.is_long(), reason="make prove plays it")
@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if "test_crash_pulls" in defect.test])
async def test_a_planted_bug_is_caught_where_a_puller_dies(stage: PullStage, proof: proving.Say, name: str) -> None:
    """Before a commit, what it is to commit may not be there yet: neither half of it. After one, all that is to be
    there before must be."""
    moments = {_PROVING: Moment.BEFORE, _KEEPING: Moment.AFTER}
    ends = [
        point
        for point in stage.points
        if any(text.match(point.text) and point.moment is moment for text, moment in moments.items())
    ]
    for tried, point in enumerate(ends, start=1):
        take = await stage.play(point, (name,))
        if any("proven" in each for each in take.complaints):
            proof(f"planted {name}: caught at commit {tried} of {len(ends)}: {take.complaints[0][:120]}")
            return
    pytest.fail(f"{name} is not caught: {DEFECTS[name].says}")


async def test_the_story_has_something_to_lose_in_every_stream(stage: PullStage) -> None:
    """A stream that brings nothing would be whole at every point."""
    assert {unit[0] for unit, keys in stage.units().items() if keys} == set(ORDER)
    assert {point.moment for point in stage.points} == set(Moment)
    assert isinstance(stage.points[0], Point)
