"""Guard: is this burst of local changes more than may be sent without asking a person?

Tags start e-mail campaigns, and an ``UPDATE`` without its ``WHERE`` is one slip away. Two rules, both about the
number of different *relations*, because that is how many people a slip would reach; how often one relation changes is
its own affair.

* A **transaction** that alone changes more relations than the limit is a burst, whole, and it alone: what others
  commit beside it is judged without it, so that a mass change delays nobody but itself.
* Of all other changes, those are a burst that lie in any stretch of ``window_s`` in which more relations than the
  limit changed, however many transactions made them: that is the loop of single statements. A burst goes on for as
  long as its last ``window_s`` hold more than the limit, and a change after that is none of it.

The limit is a count, lowered to a share of the account's relations; the share never goes below a floor, so that a small
account may be edited by hand. Time is the instant of the edit, not of its staging: a day's ordinary changes that waited
for a daemon are no burst.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec


class Guard(msgspec.Struct, frozen=True):
    """``relations`` may change within ``window_s``, or ``share`` of all (0: no share), but always ``floor``."""

    relations: int = 500
    share: float = 0.25
    window_s: float = 60.0
    floor: int = 50

    @property
    def least(self) -> int:
        """The limit of an account of whatever size; nobody need count further below it."""
        return self.limit(0)

    @property
    def enough(self) -> int:
        """From how many relations on the share does not matter."""
        return math.ceil(self.relations / self.share) if self.share > 0 else 0

    @property
    def window(self) -> timedelta:
        return timedelta(seconds=self.window_s)

    def limit(self, total: int) -> int:
        """Return how many relations of ``total`` may change at once."""
        if self.share <= 0:
            return self.relations
        return min(self.relations, max(self.floor, int(self.share * total)))


class Change(msgspec.Struct, frozen=True, gc=False):
    """One local change as the second rule sees it."""

    id: int | None
    relation_id: int
    at: datetime


def too_large(relations_by_transaction: Mapping[str, int], limit: int) -> tuple[str, ...]:
    """Return the transactions that are a burst by themselves."""
    return tuple(xact for xact, relations in relations_by_transaction.items() if relations > limit)


def crowded(changes: Sequence[Change], window: timedelta, limit: int) -> tuple[Change, ...]:
    """Return the changes that lie in a stretch of ``window`` with more than ``limit`` different relations.

    ``changes`` are in the order of their instants; a stretch holds its later end and not its earlier one.
    """
    found: list[Change] = []
    inside: Counter[int] = Counter()
    first = taken = 0
    for position, change in enumerate(changes):
        inside[change.relation_id] += 1
        while changes[first].at <= change.at - window:
            _leave(inside, changes[first].relation_id)
            first += 1
        if len(inside) > limit:
            found.extend(changes[max(first, taken) : position + 1])
            taken = position + 1
    return tuple(found)


def _leave(inside: Counter[int], relation_id: int) -> None:
    inside[relation_id] -= 1
    if not inside[relation_id]:
        del inside[relation_id]


def duration_s(calls: float, busy_s: float, rate_per_s: float, concurrency: int) -> float:
    """Return how long deliveries take at least: bound by the rate of calls, or by how many are under way at once."""
    return max(calls / rate_per_s, busy_s / max(1, concurrency))
