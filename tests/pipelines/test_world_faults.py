"""The faulty world: applications edit, drainers die, the CRM loses, repeats, throttles and lies; it must come right.

A schedule is drawn from its seed (``tests/support/world_play``). To play one again, name it:
``SYNCD_TEST_WORLD_SEEDS=77 pytest tests/pipelines/test_world_faults.py``.
"""

from __future__ import annotations

import os

import pytest

from syncd.store import Store
from tests.support.proving import Say, is_long
from tests.support.world_play import DRAINERS, INCIDENTS, Schedule, play
from tests.support.world_verdict import complaints
from tests.support.world_weather import WRITES

# Together they have every kind of trouble; what lands late has a test of its own (``test_world_late``).
SHORT, LONG = (1, 41, 82, 88), range(1, 301)


def seeds() -> list[int]:
    """Return the seeds that were named, or those of the short or long form."""
    named = os.environ.get("SYNCD_TEST_WORLD_SEEDS", "")
    return [int(each) for each in named.split(",")] if named else list(LONG if is_long() else SHORT)


@pytest.mark.parametrize("seed", seeds())
async def test_a_faulty_world_comes_right(store: Store, database: str, proof: Say, seed: int) -> None:
    """Nothing lost, nothing done twice that must not be, per facet in the order of the commits; the rest explained."""
    schedule = Schedule.of(seed)
    print(schedule)
    played = await play(store, database, schedule, complaints)
    evidence, wrong = played.evidence, played.wrong
    waiting = sum(entry["status"] in ("dead", "parked", "diverged") for entry in evidence.entries)
    struck = sum(evidence.sandbox.faults.struck.values())  # type: ignore[attr-defined]
    requests, edits = evidence.sandbox.requests.total, len(evidence.ledger)
    proof(
        f"world: {schedule}; {edits} edits, {requests} requests, {struck} struck, {evidence.fenced} fenced, "
        f"{waiting} for a person: {'held' if not wrong else f'{len(wrong)} wrong'}"
    )
    assert not wrong, f"{schedule}\n" + "\n".join(wrong[:20])


def test_the_few_that_make_test_plays_have_every_kind_of_trouble() -> None:
    """A sample that lost its only kill would go on passing, and prove less."""
    sample = [Schedule.of(seed) for seed in SHORT]
    assert {each.drainers for each in sample} == set(range(1, DRAINERS + 1))
    assert {incident.kind for each in sample for incident in each.incidents} == set(INCIDENTS)
    assert {kind for each in sample for kind in each.climate.kinds} == WRITES.keys()
    assert {each.climate.is_lying for each in sample} == {True, False}
