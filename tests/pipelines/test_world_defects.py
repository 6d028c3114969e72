"""A law that no bug can break says nothing: each defect is planted, and the faulty world must come out wrong."""

from __future__ import annotations

import pytest

from tests.support.defects import DEFECTS, planted
from tests.support.proving import Say, is_long
from tests.support.throwaway import cloned_store
from tests.support.world_play import Schedule, play
from tests.support.world_verdict import complaints

# The first seeds, in the order of the short form, that catch each; any of them is enough, the first should be.
CATCHERS: dict[str, tuple[int, ...]] = {
    "epoch_unchecked": (1,),
    "lease_ignored": (1,),
    "folded_across_a_barrier": (1,),
    "drained_by_id": (1,),
    "unknown_subscribe_retried_blindly": (1,),
    "absent_is_delivered": (1,),
    "no_is_delivered": (1,),
}
LONG = [seed for seed in range(1, 41) if seed % 6]


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
                first, second = await play(store, url, Schedule.of(seed))
        wrong = [*complaints(first), *complaints(second)]
        caught += [seed] if wrong else []
        print(seed, *wrong[:3], sep="\n  ")
    proof(f"planted {name}: caught by seeds {caught} of {len(tried)} tried. {DEFECTS[name].sentence}")
    assert caught
