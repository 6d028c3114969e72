"""The table of what tests share, beside the tests: a name in it that no test has would keep nothing together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.spreading import TOGETHER, group_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("beginning", TOGETHER)
def test_names_in_the_table_are_of_tests(beginning: str) -> None:
    """A renamed test would set up in two processes what is dear, and nobody would notice but the clock."""
    path, _, name = beginning.partition("::")
    assert f"def {name or 'test_'}" in (ROOT / path).read_text(encoding="utf-8")


def test_no_test_asks_for_a_group_in_vain() -> None:
    """The mark does nothing: the table does."""
    mark = "xdist" + "_group("
    assert [path for path in (ROOT / "tests").rglob("test_*.py") if mark in path.read_text(encoding="utf-8")] == []


def test_whoever_shares_nothing_is_alone_and_the_rest_meet() -> None:
    """Groups that are too large would leave one process with all the work."""
    alone = "tests/process/test_defects.py::test_a_planted_bug_fails_its_test[tag]"
    assert group_of(alone) == alone
    points, planted = (group_of(f"{each}::test_x[y]") for each in list(TOGETHER)[:2])
    assert points == planted != group_of("tests/process/test_crash_pulls.py::test_x")
