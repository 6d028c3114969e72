"""A proof that no bug can break says nothing: each defect is planted, and the test that it names must fail."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.policy.merge import Owner
from syncd.policy.retry import RetryPolicy
from syncd.store import Store, outbox_claim
from tests.pipelines.test_drain_late import SCENARIOS
from tests.support.commands import ROOT
from tests.support.crashing.rehearsal import Script, Stage
from tests.support.crashing.survey import Survey
from tests.support.cutting import Moment
from tests.support.defects import DEFECTS, Defect, planted
from tests.support.defects.planting import NothingToBreak, in_class, in_sql, instead
from tests.support.defects.table import page
from tests.support.lanes import subscribe
from tests.support.proving import Say, is_long, pick
from tests.support.throwaway import cloned_store
from tests.support.world_play import Schedule, play
from tests.support.world_verdict import complaints

long_form = pytest.mark.skipif(not is_long(), reason="minutes: make prove plays it")

BY_CRASHES = [name for name, defect in DEFECTS.items() if "test_crash_points" in defect.test]
BY_KILLED_PULLS = [name for name, defect in DEFECTS.items() if "test_crash_pulls" in defect.test]
BY_A_TEST = [name for name in DEFECTS if name not in (*BY_CRASHES, *BY_KILLED_PULLS)]
AT_POINTS = [name for name, defect in DEFECTS.items() if defect.dies] if is_long() else BY_CRASHES
PLAYED = pick([name for name in BY_A_TEST if is_long() or not DEFECTS[name].is_long], short=10)
# A test with cases is given one of them.
CASES: dict[str, object] = {
    "barrier": subscribe(),
    "body": "false",
    "fate": "refused",
    "fault": "hold_answer",
    "is_pull_first": True,
    "kind": "text",
    "loss": "lost_answer",
    "moment": Moment.AFTER,
    "most": 7,
    "name": "tag added",
    "night": "an ordinary night",
    "off": "theirs jumps an hour ahead and back",
    "owner": Owner.LOCAL,
    "scenario": SCENARIOS["tag"],
}
# A planted bug may make a drainer run in circles until it is stopped; one that raises is a plant gone bad.
ENDED, ALARM = "a drainer ended with", f"a drainer ended with {-signal.SIGALRM}:"
PATIENCE_S, WORLD_PATIENCE_S = 40.0, 20.0


@pytest.mark.parametrize("name", PLAYED)
async def test_a_planted_bug_fails_its_test(store: Store, database: str, proof: Say, name: str) -> None:
    """By an assertion: a test that breaks for another reason has not seen the bug."""
    started, test = time.monotonic(), named(DEFECTS[name])
    with planted(DEFECTS[name]):
        found = await failure(test, {"store": store, "database": database, "proof": proof, **CASES})
    assert found is not None, f"{DEFECTS[name].test} passes with it in. {DEFECTS[name].says}"
    assert place_of(found).is_relative_to(ROOT / "tests"), "not the test has seen it"
    if is_long():
        proof(f"planted {name}: {test.__name__} fails ({time.monotonic() - started:.1f} s)")


def named(defect: Defect) -> Callable[..., Any]:
    """Return the test function that a defect names."""
    path, _, name = defect.test.partition("::")
    test: Callable[..., Any] = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    return test


async def failure(test: Callable[..., Any], given: dict[str, object]) -> AssertionError | None:
    """Run a test and return the assertion that failed, None when none did. Whatever else it raises, it raises."""
    found: list[AssertionError] = []
    others = asyncio.all_tasks()
    try:
        came_of_it = test(**{name: given[name] for name in inspect.signature(test).parameters})
        if inspect.isawaitable(came_of_it):
            await asyncio.wait_for(came_of_it, PATIENCE_S)
    except* AssertionError as group:
        found += leaves(group)
    finally:
        await end(asyncio.all_tasks() - others)
    return found[0] if found else None


def place_of(error: BaseException) -> Path:
    """Return the file in which an exception was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename)


def leaves(group: BaseExceptionGroup[AssertionError]) -> list[AssertionError]:
    """Return the exceptions of a group and of the groups in it."""
    parts = [leaves(each) if isinstance(each, BaseExceptionGroup) else [each] for each in group.exceptions]
    return [each for part in parts for each in part]


async def end(tasks: set[asyncio.Task[Any]]) -> None:
    """End what a test left running when it failed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# The crash points ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", AT_POINTS)
async def test_a_planted_bug_is_caught_where_a_drainer_dies(
    crash_stage: Stage, crash_survey: Survey, proof: Say, name: str
) -> None:
    """At a place that is chosen by what happens there: the short form of the crash proof dies at it as well. The one
    death must be enough: what the next drainers do at the same time is not in the script, and may hide the bug."""
    danger = DEFECTS[name].dies
    assert danger is not None, f"nobody says where a drainer must die to show {name}"
    (take,) = await crash_stage.play_all([Script((crash_survey.first(danger),), defects=(name,))])
    ended = [each for each in take.complaints if ENDED in each]
    assert all(ALARM in each for each in ended), ended
    assert take.complaints, f"{name} is not caught, dying {danger} ({take.script}): {DEFECTS[name].says}"
    found = [*(each for each in take.complaints if each not in ended), "it runs in circles"]
    proof(f"planted {name}: caught, dying {danger}: {found[0]}")


# The faulty world ----------------------------------------------------------------------------------------------------


@long_form
@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if defect.seeds])
async def test_a_planted_bug_is_caught_in_the_faulty_world(
    server_url: str, template: str, proof: Say, name: str
) -> None:
    """What the machine does between two of a schedule's events is not in its seed: the next is tried when one does
    not catch it, and how many it took is told, so that a law that grows blind is seen to. A world that does not come
    to rest must do so without the bug: on a busy machine it may be late, and that is nobody's mistake."""

    async def wrong(seed: int) -> list[str]:
        async with cloned_store(server_url, template) as (store, url):
            schedule = replace(Schedule.of(seed), patience_s=WORLD_PATIENCE_S)
            return (await play(store, url, schedule, complaints)).wrong

    for tried, seed in enumerate(DEFECTS[name].seeds, start=1):
        with planted(DEFECTS[name]):
            found = await wrong(seed)
        is_late = any("come to rest" in each for each in found)
        if found and not (is_late and await wrong(seed)):
            proof(f"planted {name}: caught by seed {seed} of the faulty world, try {tried}: {found[0]}")
            return
    pytest.fail(f"{name} is not caught by seeds {DEFECTS[name].seeds}: {DEFECTS[name].says}")


# The registry --------------------------------------------------------------------------------------------------------


def test_there_is_a_table_of_them(proof: Say) -> None:
    """Made anew by ``python -m tests.support.defects.table > tests/DEFECTS.md``."""
    assert (ROOT / "tests/DEFECTS.md").read_text() == page()
    crashes, world = (sum(bool(getattr(each, kind)) for each in DEFECTS.values()) for kind in ("dies", "seeds"))
    played = len({*PLAYED, *AT_POINTS})
    proof(f"planted bugs: {played} of {len(DEFECTS)} played; {crashes} suit a crash, {world} the faulty world")


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_taken_out_again(name: str) -> None:
    """What stayed would fail the tests that come after, or worse, let them pass."""
    named(DEFECTS[name])
    places = [(holder, attribute) for holder, attribute, _ in DEFECTS[name].changes()]
    before = [getattr(holder, attribute) for holder, attribute in places]
    with planted(DEFECTS[name]):
        assert all(getattr(*at) is not right for at, right in zip(places, before, strict=True))
    assert [getattr(*at) for at in places] == before


@pytest.mark.parametrize(
    "changes",
    [
        in_sql(outbox_claim, "_DUES", ("lanes", "entries")),
        in_sql(outbox_claim, "_DUE", ("streets", "entries")),
        in_class(RetryPolicy, "is_gone", lambda sound: sound),
        in_class(RetryPolicy, "is_spent", lambda sound: sound),
        instead(inspect, "signature", lambda sound: sound),
        lambda: (),
    ],
    ids=["no such statement", "no such words", "no such method", "the same again", "held by nobody", "nothing"],
)
def test_a_defect_that_finds_nothing_to_break_is_refused(changes: Any) -> None:
    """It would be "not caught" at best; in a process of its own nobody would ever know."""
    with pytest.raises(NothingToBreak):
        Defect("", "", changes).plant()
