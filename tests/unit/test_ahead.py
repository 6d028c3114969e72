"""Decoding ahead must not hold up the loop that feeds Postgres meanwhile."""

from __future__ import annotations

import sys

from syncd.inbound.ahead import batches
from syncd.providers.autorespond import provider


async def test_the_decoding_thread_gives_way_sooner_than_a_statement_takes() -> None:
    """Python's own 5 ms are more than most statements take: Postgres would wait for them a dozen times a batch."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    try:
        async with batches(provider().streams["orders"], (), list, 1, lambda batch: batch) as parts:
            assert sys.getswitchinterval() <= 0.001
            assert [part async for part in parts] == []
    finally:
        sys.setswitchinterval(before)
