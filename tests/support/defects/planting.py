"""Planting: put something wrong in the place of something right, in this process, and take it out again.

There is one way to plant, for a test that goes on afterwards and for a process that is thrown away: every change is an
attribute of a module or a class. It fails when it finds nothing to break: the pattern does not occur, the function is
nowhere, what would be put there is there already. A defect that breaks nothing proves nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

from sqlalchemy import TextClause, text

from tests.support.crashing.danger import Danger

Undo: TypeAlias = Callable[[], None]
Change: TypeAlias = tuple[Any, str, object]
Changes: TypeAlias = Callable[[], Sequence[Change]]


class NothingToBreak(Exception):
    """A defect has gone out of date. No assertion: that would look like a test that has caught it."""


_HERE = __name__.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Defect:
    """``says`` in one sentence what is wrong with it in; ``test`` is the test that must fail then.

    ``changes`` computes what to put where. ``seeds`` of the faulty world were seen to catch it as well, the quickest
    first; a drainer that ``dies`` at the first place of this kind brings it to light by itself (None: crashes are not
    asked). One that ``is_long`` is played by ``make prove`` alone.
    """

    says: str
    test: str
    changes: Changes
    seeds: tuple[int, ...] = ()
    dies: Danger | None = None
    is_long: bool = False

    def plant(self) -> Undo:
        """Break it, here and now; return how to mend it."""
        made = [(holder, name, getattr(holder, name, wrong), wrong) for holder, name, wrong in self.changes()]
        if not made or any(right is wrong for _, _, right, wrong in made):
            raise NothingToBreak(f"{self.says} {made}")
        for holder, name, _, wrong in made:
            setattr(holder, name, wrong)

        def undo() -> None:
            for holder, name, right, _ in made:
                setattr(holder, name, right)

        return undo


@contextmanager
def planted(defect: Defect) -> Iterator[None]:
    """Have a defect for the length of the block."""
    undo = defect.plant()
    try:
        yield
    finally:
        undo()


def in_sql(module: ModuleType, name: str, *swaps: tuple[str, str]) -> Changes:
    """Replace patterns in a statement that a module holds."""

    def changes() -> Sequence[Change]:
        right: TextClause | str = _known(module, name)
        wrong = _without(right, *swaps)
        return ((module, name, wrong if isinstance(right, str) else text(wrong)),)

    return changes


def instead(home: ModuleType, name: str, broken: Callable[[Any], Callable[..., Any]]) -> Changes:
    """Put a function that is built around a sound one in its place, in every module that knows it by a name."""

    def changes() -> Sequence[Change]:
        sound = _known(home, name)
        wrong = broken(sound)
        return tuple((module, known_as, wrong) for module, known_as in _holders(sound))

    return changes


def in_class(holder: type, name: str, broken: Callable[[Any], object]) -> Changes:
    """Put a method or property that is built around the sound one in its place."""
    return lambda: ((holder, name, broken(_known(holder, name))),)


def together(*parts: Changes) -> Changes:
    """Make several changes that are one mistake."""
    return lambda: tuple(change for part in parts for change in part())


def _known(holder: ModuleType | type, name: str) -> Any:
    if name not in vars(holder):
        raise NothingToBreak(f"{holder} has no {name}")
    return vars(holder)[name]


def _without(statement: TextClause | str, *swaps: tuple[str, str]) -> str:
    sql = statement if isinstance(statement, str) else statement.text
    for pattern, wrong in swaps:
        sql, count = re.subn(pattern, wrong, sql)
        if not count:
            raise NothingToBreak(f"{pattern!r} does not occur in {sql}")
    return sql


def _holders(sound: Callable[..., Any]) -> list[tuple[ModuleType, str]]:
    """Return where a function is known by a name: of the modules that are loaded, but for those that plant."""
    ours = [
        module
        for path, module in tuple(sys.modules.items())
        if path.startswith(("syncd.", "tests.")) and not path.startswith(_HERE)
    ]
    found = [(module, name) for module in ours for name, value in tuple(vars(module).items()) if value is sound]
    if not found:
        raise NothingToBreak(f"nobody holds {sound}")
    return found
