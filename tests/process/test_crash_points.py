"""Crash at every boundary: a drainer is killed before, in and after each message; nothing is lost, nothing doubled.

A real drainer in a process of its own, SIGKILL, a real Postgres, real HTTP; see ``tests/support/crashing``. The short
form plays a sample drawn by the seed and every dangerous place; ``make prove`` plays all points and pairs of them.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.support import proving
from tests.support.crashing.forks import forks
from tests.support.crashing.gate import Moment, Point
from tests.support.crashing.rehearsal import Script, Stage, Take, stage
from tests.support.crashing.survey import Survey, documented, survey
from tests.support.defects import DEFECTS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("crash"), pytest.mark.slow]

CRASH_DEFECTS = sorted(DEFECTS)
# A planted bug may make a drainer run in circles; one that raises is a plant gone bad, and catches nothing.
ENDED, ALARM = "a drainer ended with", f"a drainer ended with {-signal.SIGALRM}:"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with forks(tmp_path_factory.mktemp("crash")) as warm, stage(server_url, template, warm) as prepared:
        yield prepared


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def met(place: Stage) -> Survey:
    return await survey(place)


def _sample(met: Survey) -> list[Point]:
    return proving.pick(met.points, short=36, always=met.dangerous)


async def test_a_drainer_may_die_before_and_after_each_of_its_messages(
    place: Stage, met: Survey, proof: proving.Say
) -> None:
    """G1 and G2: whatever the point, the next drainer brings the CRM to what the edits say, each effect once."""
    started = time.monotonic()
    scripts = [Script((point,), is_impatient=nth % 5 == 0) for nth, point in enumerate(_sample(met))]
    takes = await place.play_all(scripts)
    proof(_told("crash points", takes, started, f" of {len(met.points)}"))
    _all_hold(takes)


async def test_the_next_drainer_may_die_too(place: Stage, met: Survey, proof: proving.Say) -> None:
    """A crash while recovering from a crash; with several conversations at once, as in production."""
    started, chance = time.monotonic(), random.Random(proving.seed())
    firsts = chance.choices(met.points, k=150 if proving.is_long() else 6)
    pairs = [(first, _any_message(chance, 60)) for first in firsts]
    takes = await place.play_all(
        Script(pair, concurrency=chance.choice((1, 3)), is_impatient=chance.random() < 0.25) for pair in pairs
    )
    proof(_told("pairs of crashes", takes, started))
    _all_hold(takes)


@pytest.mark.parametrize("name", CRASH_DEFECTS)
async def test_a_planted_bug_is_caught(place: Stage, met: Survey, proof: proving.Say, name: str) -> None:
    """The proof is worth what it catches: each defect must fail at one of the very points that the short form plays."""
    sample = set(_sample(met))
    for tried, point in enumerate((p for p in met.dangerous if p in sample), start=1):
        take = await place.play(Script((point,), defects=(name,)))
        assert not (broken := [each for each in take.complaints if ALARM not in each and ENDED in each]), broken
        found = [each for each in take.complaints if ENDED not in each]
        if found:
            proof(f"planted {name}: caught at point {tried} ({point}): {found[0]}")
            return
    pytest.fail(f"{name} is not caught: {DEFECTS[name].says}")


async def test_every_boundary_has_a_row_in_the_docs(met: Survey) -> None:
    """The table in ``syncd.outbound`` says what happens at each place where a drainer can die, and at no other."""
    assert sorted(set(met.called.values())) == sorted(documented())


def _any_message(chance: random.Random, most: int) -> Point:
    return Point("", chance.randint(1, most), chance.choice((Moment.BEFORE, Moment.AFTER)))


def _all_hold(takes: Sequence[Take]) -> None:
    broken = [str(take) for take in takes if not take.holds]
    assert not broken, "\n".join(broken[:20])
    assert sum(take.is_met for take in takes) >= 0.95 * len(takes), "too many points were not there again"


def _told(what: str, takes: Sequence[Take], started: float, among: str = "") -> str:
    held, unmet = sum(take.holds for take in takes), sum(not take.is_met for take in takes)
    parked = sum(take.parked for take in takes)
    return (
        f"{what}: {held} of {len(takes)} hold{among and f', sampled{among}' if len(takes) < 500 else ''} "
        f"(seed {proving.seed()}; {unmet} not met again; {parked} calls left to a person; "
        f"{time.monotonic() - started:.0f} s)"
    )
