"""Low water: from where the outbox is read, so that what is over is not walked through again and again.

A deleted capture and a lane that moved on leave dead entries at the low end of their index. As long as anybody's
transaction stays open, Postgres can neither remove them nor even skip them, and a read from the start walks through
all of them: ten reads a second over an hour's deliveries bring delivery down. So reads begin at a mark below which a
look saw nothing. What may still appear below it, and why none of it is lost:

* a capture whose id was taken before a later one's and whose transaction commits after it;
* a lane whose time to be ready was written by a transaction that commits later, or that another one kept locked.

Both are as late as the transaction that wrote them is long. The mark stays behind what a look saw by ``LAG_S``, so
that ordinary transactions are found by the next read. All others are found by a **whole look**, from the very start.
In ordinary times each look is one, and nothing is ever late. It is dear beyond ``DEAR_S``. Then there are two reasons
for one:

* A transaction has ended that was open when the mark was seen. Each look tells which are, so what it wrote is found by
  the look after the next, as far as whole looks cost no more than ``SHARE`` of the time.
* The last one is so long ago that it cost no more than ``DEAR_SHARE`` of the time since, or ``MOST_S`` whatever it
  cost. That finds what no end tells of: a look does not know of transactions that began just before it.

What is late here is late, and no more: it is the order of lanes that must not depend on it, and captures are staged
from a mark of another kind (``policy.stagemark``).

It must never be the only thing that finds work: a mark is a reason to read less often, not to read less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

# What is over since the mark is walked over by each read: a second of it was felt at thousands of deliveries a second.
LAG_S = 0.25
SHARE = 0.05
DEAR_S, DEAR_SHARE = 0.005, 0.005
MOST_S = 30.0


class Mark(NamedTuple):
    """Look for captures from this id on, and for lanes from this time on (the database's)."""

    capture_id: int = 0
    ready_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)


WHOLE = Mark()


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look saw from a mark on: the lowest of each, None where there was nothing.

    ``next_capture_id`` is below every id that will be taken after the look, or equal to the first of them; ``now`` is
    the database's time. ``open_xacts``: transactions that had begun to write and had not ended, nearly all of them.
    """

    capture_id: int | None
    next_capture_id: int
    ready_at: datetime | None
    now: datetime
    open_xacts: frozenset[int] = frozenset()


class _Past(NamedTuple):
    """An earlier look: when (monotonic, and by the database), its lowest capture id, and who was open."""

    at: float
    capture_id: int
    now: datetime
    open_xacts: frozenset[int]


def rest_after_s(cost_s: float, *, is_owed: bool = False) -> float:
    """Return how long after a whole look of this cost the next one is due; ``is_owed``: something has been missed."""
    return min(MOST_S, cost_s / (DEAR_SHARE if cost_s > DEAR_S and not is_owed else SHARE))


@dataclass(frozen=True, slots=True)
class LowWater:
    """The present mark of one drainer. Times are monotonic seconds, but for the mark's own.

    ``past`` are earlier looks, oldest first: one becomes the mark when it is ``LAG_S`` old. ``watched`` were open when
    it was seen, and still are; ``is_owed``: one of them has ended since the last whole look.
    """

    mark: Mark = WHOLE
    past: tuple[_Past, ...] = ()
    whole_at: float = float("-inf")
    whole_cost_s: float = 0.0
    watched: frozenset[int] = frozenset()
    is_owed: bool = False

    def reads_from(self, now: float) -> Mark:
        """Return where the next look begins: at the mark, or at the very start when a whole look is due."""
        rest_s = rest_after_s(self.whole_cost_s, is_owed=self.is_owed)
        return WHOLE if now - self.whole_at >= rest_s else self.mark

    def seen(self, sight: Sight, start: Mark, began: float, ended: float) -> LowWater:
        """Take in what a look from ``start`` saw that lasted from ``began`` to ``ended``."""
        lowest = sight.next_capture_id if sight.capture_id is None else sight.capture_id
        past = [one._replace(capture_id=min(one.capture_id, lowest)) for one in self.past]
        ripe = [one for one in past if began - one.at >= LAG_S]
        mark = self.mark._replace(capture_id=min(self.mark.capture_id, lowest))
        reaching = self.watched
        if ripe:
            mark, reaching = Mark(ripe[-1].capture_id, ripe[-1].now), reaching | ripe[-1].open_xacts
        if sight.ready_at is not None:
            mark = mark._replace(ready_at=min(mark.ready_at, sight.ready_at))
        if not past or began - past[-1].at >= LAG_S / 4:
            past.append(_Past(began, lowest, sight.now, sight.open_xacts))
        moved = replace(self, mark=mark, past=tuple(past[max(0, len(ripe) - 1) :]), watched=reaching & sight.open_xacts)
        if start == WHOLE:
            return replace(moved, whole_at=ended, whole_cost_s=ended - began, is_owed=False)
        return replace(moved, is_owed=self.is_owed or not self.watched <= sight.open_xacts)
