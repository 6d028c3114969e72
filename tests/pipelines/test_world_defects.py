"""A law that no bug can break says nothing: each defect is planted, and the faulty world must come out wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.defects_here import DEFECTS, planted
from tests.support.proving import Say, is_long
from tests.support.throwaway import cloned_store
from tests.support.world_play import Schedule, play
from tests.support.world_verdict import complaints

# Seeds that were seen to catch each. What the machine does between two of a schedule's events is not in the seed, so
# the next is tried when one does not.
CATCHERS: dict[str, tuple[int, ...]] = {
    "epoch_unchecked": (4, 10, 2, 16, 22),
    "lease_ignored": (10, 4, 3, 5),
    "folded_across_a_barrier": (5, 2, 14, 20, 22),
    "drained_by_id": (10, 5, 3, 4, 9, 21),
    "unknown_subscribe_retried_blindly": (10, 4, 19, 23, 31),
    "absent_is_delivered": (2, 10, 8, 23),
    "no_is_delivered": (4, 1, 10, 23),
}
LONG = [seed for seed in range(1, 25) if seed % 6]
PATIENCE_S = 6.0


@pytest.mark.parametrize("name", CATCHERS)
async def test_a_planted_bug_is_caught(server_url: str, template: str, proof: Say, name: str) -> None:
    """The seeds that caught it are told, so that a law that grows blind is seen to."""
    caught: list[int] = []
    tried: list[int] = []
    for seed in LONG if is_long() else CATCHERS[name]:
        if caught and not is_long():
            break
        tried.append(seed)
        async with cloned_store(server_url, template) as (store, url):
            with planted(name):
                played = await play(store, url, replace(Schedule.of(seed), patience_s=PATIENCE_S), complaints)
        caught += [seed] if played.wrong else []
        print(seed, *played.wrong[:3], sep="\n  ")
    proof(f"planted {name}: caught by seeds {caught} of {len(tried)} tried. {DEFECTS[name].sentence}")
    assert caught
