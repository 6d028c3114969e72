"""Laws: what Hypothesis tries on drawn examples. The seed of the run draws them; each module says how many it tried.

Every law gets the seed by the option of Hypothesis' own, so ``--hypothesis-seed`` given by hand counts before ours.
Examples are counted where a law's body is called: what Hypothesis threw away before is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import PurePosixPath
from typing import Any, Protocol

import pytest
from hypothesis import is_hypothesis_test

from tests.support import proving

_TRIED, _OPTION = "examples", "hypothesis_seed"


class Reported(Protocol):
    """What is read of a test's report."""

    nodeid: str
    user_properties: list[tuple[str, object]]


def sow(config: pytest.Config) -> None:
    """Let the seed of the run draw all examples, if no other was asked for.

    Hypothesis tries constants of the modules that are loaded, too: the same again takes the same files with the seed.
    """
    if getattr(config.option, _OPTION) is None:
        setattr(config.option, _OPTION, str(proving.seed()))


def many(short: int) -> int:
    """Return how many examples a law is tried on that has a size of its own: ten times as many in the long form."""
    return 10 * short if proving.is_long() else short


@contextmanager
def counted(item: pytest.Item) -> Iterator[None]:
    """Count the examples that a test is tried on; a test that is no law has none."""
    test: Any = getattr(item, "obj", None)
    if not is_hypothesis_test(test):
        yield
        return
    inner, tally = test.hypothesis.inner_test, Counter[str]()
    test.hypothesis.inner_test = _counting(inner, tally)
    try:
        yield
    finally:
        test.hypothesis.inner_test = inner
        item.user_properties.append((_TRIED, tally.total()))


def _counting(inner: Callable[..., Any], tally: Counter[str]) -> Callable[..., Any]:
    @wraps(inner)
    def tried(*args: Any, **given: Any) -> Any:
        tally[_TRIED] += 1
        return inner(*args, **given)

    return tried


def said(config: pytest.Config, reports: Iterable[Reported]) -> list[str]:
    """Return a line for each module with laws."""
    laws, examples = Counter[str](), Counter[str]()
    for report in reports:
        for tried in (value for name, value in report.user_properties if name == _TRIED):
            module = PurePosixPath(report.nodeid.partition("::")[0]).stem
            laws[module] += 1
            examples[module] += int(str(tried))
    seed = getattr(config.option, _OPTION)
    return [f"laws, {name}: {laws[name]} on {examples[name]:,} examples, seed {seed}" for name in sorted(laws)]
