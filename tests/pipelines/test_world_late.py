"""Requests that land late, after newer ones: in the end the newest value stands all the same (re-assertion)."""

from __future__ import annotations

from syncd.sandbox import Kind
from tests.support.proving import Say, is_long
from tests.support.throwaway import cloned_store
from tests.support.world_play import Schedule, play
from tests.support.world_verdict import complaints

SEEDS = range(1001, 1061) if is_long() else range(1001, 1002)


async def test_late_requests_do_not_have_the_last_word(server_url: str, template: str, proof: Say) -> None:
    """A value that was overtaken may come and go; what was committed last must be there when all has landed."""
    wrong: list[str] = []
    late = 0
    for seed in SEEDS:
        schedule = Schedule.of(seed, is_late=True)
        async with cloned_store(server_url, template) as (store, url):
            played = await play(store, url, schedule, complaints)
        wrong += [f"{schedule}: {each}" for each in played.wrong]
        late += sum(line.fate == Kind.LATE for line in played.evidence.sandbox.requests)
    held = "held" if not wrong else f"{len(wrong)} wrong"
    proof(f"world, late: seeds {SEEDS.start} to {SEEDS.stop - 1}: {late} requests landed late, {held}")
    assert late >= len(SEEDS), "the schedules have lost what they are for"
    assert not wrong, "\n".join(wrong[:20])
