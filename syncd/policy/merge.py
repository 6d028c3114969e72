"""Merge: which value a relation's column takes when an answer and an undelivered local change disagree.

| base (last agreed) | local     | remote        | column takes | conflict |
|--------------------|-----------|---------------|--------------|----------|
| any                | unchanged | anything      | remote       | no       |
| b                  | l         | b             | local        | no       |
| b                  | l         | l             | both agree   | no       |
| b                  | l         | another value | local        | yes      |

"Local" means a change that is captured or staged and not delivered, or that was delivered after the answer was asked
for (such an answer is older than the delivery). A later issue adds an owner per field; while a change is
undelivered, the owner is ``local``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import UNSET

from syncd.domain.changes import ChangeEmail, CreateRelation, LocalChange, UpdateProfile


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides moved one column away from ``base``."""

    column: str
    base: str | None
    local: str | None
    remote: str | None


@dataclass(frozen=True, slots=True)
class Merged:
    """``values`` are the columns to write; ``kept`` those that keep their local value."""

    values: Mapping[str, object]
    kept: frozenset[str]
    conflicts: tuple[Conflict, ...]


def bases(changes: Iterable[LocalChange]) -> Mapping[str, str | None]:
    """Return the columns of a relation that its local changes speak about, each with its value before the first.

    ``changes`` are in commit order. A created relation has no earlier values: its base is None throughout.
    """
    found: dict[str, str | None] = {}
    for change in changes:
        match change:
            case CreateRelation():
                for column in ("email", *change.profile):
                    found.setdefault(column, None)
            case ChangeEmail():
                found.setdefault("email", change.old)
            case UpdateProfile():
                for column in change.new:
                    found.setdefault(column, change.old.get(column))
            case _:
                pass  # tags, fields, groups and lists are no columns of the relation's row
    return found


def merge(
    local: Mapping[str, object], remote: Mapping[str, object], base: Mapping[str, str | None], *, is_new: bool = False
) -> Merged:
    """Merge an answer into a row. ``base`` names the columns with an undelivered local change and their old value.

    ``is_new`` is true for a row that the CRM has never been told of: what it holds already is not a conflict.
    """
    values: dict[str, object] = {}
    conflicts: list[Conflict] = []
    for column, value in remote.items():
        if value is UNSET:
            continue
        if column not in base:
            values[column] = value
        elif not is_new and value != local[column] and value != base[column]:
            conflicts.append(Conflict(column, base[column], _text(local[column]), _text(value)))
    kept = frozenset(column for column in base if column in remote and remote[column] is not UNSET)
    return Merged(values, kept, tuple(conflicts))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
