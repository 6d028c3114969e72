"""Crash at every boundary: a drainer is killed before, in and after each message; nothing is lost, nothing doubled.

A real drainer in a process of its own, SIGKILL, a real Postgres, real HTTP; see ``tests/support/crashing``. The short
form plays a sample drawn by the seed, with a point of each boundary in the docs and of each dangerous kind of place in
it; ``make prove`` plays all points and many pairs of them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from tests.support import proving
from tests.support.crashing.gate import Moment, Point
from tests.support.crashing.rehearsal import Script, Stage, Take
from tests.support.crashing.survey import Survey, documented

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


def _sample(survey: Survey) -> list[Point]:
    each = survey.one_of_each(random.Random(proving.seed()))
    sample = proving.pick(survey.points, short=10, always=[*each, *survey.dangerous])
    assert {survey.called[point] for point in sample} == set(documented())
    return sample


async def test_a_drainer_may_die_before_and_after_each_of_its_messages(
    crash_stage: Stage, crash_survey: Survey, proof: proving.Say
) -> None:
    """G1 and G2: whatever the point, the next drainer brings the CRM to what the edits say, each effect once."""
    started = time.monotonic()
    scripts = [Script((point,), is_impatient=nth % 5 == 0) for nth, point in enumerate(_sample(crash_survey))]
    takes = await crash_stage.play_all(scripts)
    proof(_told("crash points", takes, started, f" of {len(crash_survey.points)}"))
    _all_hold(takes)


async def test_the_next_drainer_may_die_too(crash_stage: Stage, crash_survey: Survey, proof: proving.Say) -> None:
    """A crash while recovering from a crash; with several conversations at once, as in production. Where the second
    message was not there to die at, another pair is drawn in its place: so many were really met."""
    started, chance = time.monotonic(), random.Random(proving.seed())
    wanted, takes = 150 if proving.is_long() else 4, list[Take]()
    for _ in range(4):
        missing = wanted - sum(take.is_met for take in takes)
        takes += await crash_stage.play_all([_pair(crash_survey, chance) for _ in range(missing)])
    proof(_told("pairs of crashes", takes, started))
    _hold(takes)
    assert sum(take.is_met for take in takes) == wanted


async def test_every_boundary_has_a_row_in_the_docs(crash_survey: Survey) -> None:
    """The table in ``syncd.outbound`` says what happens at each place where a drainer can die, and at no other."""
    assert sorted(set(crash_survey.called.values())) == sorted(documented())


def _pair(survey: Survey, chance: random.Random) -> Script:
    pair = (chance.choice(survey.points), _any_message(chance, 60))
    return Script(pair, concurrency=chance.choice((1, 3)), is_impatient=chance.random() < 0.25)


def _any_message(chance: random.Random, most: int) -> Point:
    return Point("", chance.randint(1, most), chance.choice((Moment.BEFORE, Moment.AFTER)))


def _hold(takes: Sequence[Take]) -> None:
    broken = [str(take) for take in takes if not take.holds]
    assert not broken, "\n".join(broken[:20])


def _all_hold(takes: Sequence[Take]) -> None:
    _hold(takes)
    unmet = sum(not take.is_met for take in takes)
    assert unmet <= max(1, 0.05 * len(takes)), "too many points were not there again"


def _told(what: str, takes: Sequence[Take], started: float, among: str = "") -> str:
    held, unmet = sum(take.holds for take in takes), sum(not take.is_met for take in takes)
    parked = sum(take.parked for take in takes)
    return (
        f"{what}: {held} of {len(takes)} hold{among and f', sampled{among}' if len(takes) < 500 else ''} "
        f"(seed {proving.seed()}; {unmet} not met again; {parked} calls left to a person; "
        f"{time.monotonic() - started:.0f} s)"
    )
