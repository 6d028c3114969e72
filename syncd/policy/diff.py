"""Diff: which columns of a row an answer changes. A field that the answer does not carry changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import UNSET


@dataclass(frozen=True, slots=True)
class Difference:
    """The changed columns only, by name, with their values before and after. False when nothing changed."""

    before: Mapping[str, object]
    after: Mapping[str, object]

    def __bool__(self) -> bool:
        return bool(self.after)


def diff(before: Mapping[str, object], after: Mapping[str, object]) -> Difference:
    """Compare a row with what an answer says. UNSET in ``after`` means that the answer does not say."""
    changed = [name for name, value in after.items() if value is not UNSET and before[name] != value]
    return Difference({name: before[name] for name in changed}, {name: after[name] for name in changed})
