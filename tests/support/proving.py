"""Proofs in two sizes: a short form in ``make test``, the long form in ``make prove``; both print counts and seeds.

The environment decides, read here alone: ``SYNCD_TEST_PROVE=1`` asks for the long form, ``SYNCD_TEST_SEED`` (7 unless
given) sets every sample. A test draws its sample with ``pick`` and says what it proved with the fixture ``proof``; what
it said is printed at the end of the run, passed or failed, whether the run was spread over processes or not.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Say: TypeAlias = Callable[[str], None]
_PROOF = "proof"


class Reported(Protocol):
    """What is read of a test's report."""

    user_properties: list[tuple[str, object]]


def is_long() -> bool:
    """Tell whether the long forms were asked for."""
    return os.environ.get("SYNCD_TEST_PROVE", "") not in ("", "0")


def seed() -> int:
    """Return the seed of every sample of this run."""
    return int(os.environ.get("SYNCD_TEST_SEED", "7"))


def pick(points: Sequence[T], short: int = 40, *, long: int | None = None, always: Iterable[T] = ()) -> list[T]:
    """Return all points (or ``long`` of them) in the long form, else ``short`` sampled by the seed, in their order.

    ``always`` are in the sample whatever the seed; they count towards its size.
    """
    size = (len(points) if long is None else long) if is_long() else short
    if size >= len(points):
        return list(points)
    kept = set(always)
    others = [point for point in points if point not in kept]
    kept |= set(random.Random(seed()).sample(others, max(0, min(size - len(kept), len(others)))))
    return [point for point in points if point in kept]


def remember(properties: list[tuple[str, object]]) -> Say:
    """Return the function by which a test says what it proved; it takes one line."""
    return lambda line: properties.append((_PROOF, line))


def said(reports: Iterable[Reported]) -> list[str]:
    """Return all that the tests of a run said."""
    return [str(value) for report in reports for name, value in report.user_properties if name == _PROOF]
