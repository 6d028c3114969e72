"""What a process that pulls or delivers sets for itself."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest

from syncd import interpreter


def test_garbage_is_looked_for_less_often_than_once_a_batch(request: pytest.FixtureRequest) -> None:
    """What a batch or a claim is made of is in use until it goes as a whole; looking through it finds nothing."""
    request.addfinalizer(_as_now())
    gc.set_threshold(700)
    interpreter.tune()
    assert gc.isenabled(), "rarely is not never: a daemon runs for months"
    assert gc.get_threshold()[0] >= 20_000, "a thousand orders with their lines are so many objects"


def _as_now() -> Callable[[], None]:
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()

    def mend() -> None:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)

    return mend
