"""Counts and seeds of laws: a proof that cannot say how much it tried is taken on trust."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.laws import counted, said, sow

DRAWN: list[int] = []


@settings(max_examples=20)
@given(st.integers())
def a_law(number: int) -> None:
    DRAWN.append(number)


@dataclass
class Played:
    """As much of a test as is looked at, and of its report."""

    nodeid: str
    obj: Any = None
    user_properties: list[tuple[str, object]] = field(default_factory=list)


def test_what_a_law_is_tried_on_is_counted_and_told_by_module() -> None:
    """One line for each module: a line for each law would be read by nobody."""
    DRAWN.clear()
    tests = [Played("a/test_one.py::a", a_law), Played("a/test_one.py::b", a_law), Played("a/test_two.py::c", a_law)]
    for each in (*tests, plain := Played("a/test_two.py::d", print)):
        with counted(cast(pytest.Item, each)):
            each.obj()
    assert plain.user_properties == []
    config = cast(pytest.Config, SimpleNamespace(option=SimpleNamespace(hypothesis_seed="8")))
    assert len(DRAWN) == 60
    assert said(config, tests) == [
        "laws, test_one: 2 on 40 examples, seed 8",
        "laws, test_two: 1 on 20 examples, seed 8",
    ]


def test_the_seed_of_the_run_draws_the_examples(request: pytest.FixtureRequest) -> None:
    """The same run draws the same again: what failed for somebody fails for everybody."""
    DRAWN.clear()
    a_law()
    a_law()
    assert DRAWN[:20] == DRAWN[20:]
    assert len(set(DRAWN)) > 1
    assert request.config.option.hypothesis_seed is not None


@pytest.mark.parametrize(("asked", "drawn"), [(None, "9"), ("3", "3")])
def test_a_seed_that_was_asked_for_counts_before_ours(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, drawn: str
) -> None:
    """Whoever plays a failure again names its seed."""
    monkeypatch.setenv("SYNCD_TEST_SEED", "9")
    config = cast(pytest.Config, SimpleNamespace(option=SimpleNamespace(hypothesis_seed=asked)))
    sow(config)
    assert config.option.hypothesis_seed == drawn
