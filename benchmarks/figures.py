"""Figures: what a benchmark found, beside its yardstick, and whether it is as good as design.md wants.

A benchmark runs in a process of its own and says ``note`` of each row that it measured; ``python -m benchmarks`` names
a file for these notes and prints them all as one table at the end.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import msgspec

NOTES = "SYNCD_BENCHMARK_NOTES"


class Figure(msgspec.Struct, frozen=True):
    """One row. ``value`` is compared with ``target``: at least that, or at most where ``is_limit``; None: no target.

    ``unit`` follows the value: nothing for a ratio, ``x`` for a multiple, else a unit of measure.
    """

    what: str
    figure: str
    yardstick: str
    value: float
    target: float | None = None
    unit: str = ""
    is_limit: bool = False

    @property
    def is_met(self) -> bool:
        if self.target is None:
            return True
        return self.value <= self.target if self.is_limit else self.value >= self.target


def note(figure: Figure) -> None:
    """Hand a figure to whoever runs this benchmark; nobody, when it runs alone."""
    if path := os.environ.get(NOTES):
        with Path(path).open("ab") as notes:
            notes.write(msgspec.json.encode(figure) + b"\n")


def noted(path: Path) -> list[Figure]:
    """Read back what was noted, in order."""
    return [msgspec.json.decode(line, type=Figure) for line in path.read_bytes().splitlines()]


def table(figures: list[Figure]) -> str:
    """Lay figures out as aligned text, a heading first."""
    rows = [("what", "figure", "beside it", "value", "target", "met"), *map(_row, figures)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    is_ratio = not figure.unit
    value = f"{figure.value:.2f}" if is_ratio else f"{figure.value:.3g} {figure.unit}"
    if figure.target is None:
        return figure.what, figure.figure, figure.yardstick, value, "", ""
    target = f"{'<=' if figure.is_limit else '>='} {figure.target:g}{'' if is_ratio else ' ' + figure.unit}"
    return figure.what, figure.figure, figure.yardstick, value, target, "yes" if figure.is_met else "NO"


def peak_mb() -> float:
    """Return this process's peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
