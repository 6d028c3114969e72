"""The table of planted bugs, as ``tests/DEFECTS.md`` has it; run this module to print the page anew."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.defects import DEFECTS, Defect

_HEAD = """# Planted bugs

A proof is worth what it catches. Each row is a mistake that syncd could have been written with, planted in test code
alone (`tests/support/defects`), and the test of the suite that fails when it is there. `tests/process/test_defects.py`
plants them one by one and wants that failure: a sample of the rows in `make test`, every row in `make prove`, and there
also at crash points and in schedules of the faulty world, where the last column names any.

The last column says what it took. "nothing is drawn": the test has no seed, and catches it each time. "it dies": so
does a drainer that is killed at the first such place (`tests/support/crashing/danger.py`), whatever else is under way.
"world, seeds": these schedules of the faulty world (`tests/support/world_play.py`) caught it, the quickest first.
"killed pulls": a pull killed at a commit caught it (`tests/process/test_crash_pulls.py`).

| defect | what is wrong with it in | the test that fails | what it took |
|---|---|---|---|
"""


def page() -> str:
    """Return the page, one row for each defect in the registry."""
    return _HEAD + "".join(f"{row}\n" for row in _rows())


def _rows() -> Iterator[str]:
    for name, defect in DEFECTS.items():
        yield f"| `{name}` | {defect.says} | `{defect.test.removeprefix('tests/')}` | {_took(defect)} |"


def _took(defect: Defect) -> str:
    if "test_crash_pulls" in defect.test:
        return "killed pulls"
    took = [] if "test_crash_points" in defect.test else ["nothing is drawn"]
    if defect.dies:
        took.append(f"it dies {defect.dies}")
    if defect.seeds:
        took.append(f"world, seeds {', '.join(map(str, defect.seeds))}")
    return "; ".join(took)


if __name__ == "__main__":
    print(page(), end="")
