"""Low water: from where the outbox is read, so that what is over is not walked through again and again.

A deleted capture and a lane that moved on leave dead entries at the low end of their index. As long as anybody's
transaction stays open, Postgres can neither remove them nor even skip them, and a read from the start walks through
all of them: ten reads a second over an hour's deliveries bring delivery down. So reads begin at a mark below which a
look saw nothing. What may still appear below it, and why none of it is lost:

* a capture whose id was taken before a later one's and whose transaction commits after it;
* a lane whose time to be ready was written by a transaction that commits later, or that another one kept locked.

Both are as late as the transaction that wrote them is long. The mark stays behind what a look saw by ``LAG_S``, so
that ordinary transactions are found by the next read. All others are found by a **whole look**, from the very start:
one is due as soon as the last has cost no more than ``SHARE`` of the time since, and after ``MOST_S`` whatever it
cost. In ordinary times that is each look, and nothing is ever late. Beyond ``DEAR_S`` a look is dear, and may cost no
more than ``DEAR_SHARE``: then a transaction that was open for longer than ``LAG_S`` may see its changes delivered by
fifty times such a look later, ``MOST_S`` at most.

A mark also says which transactions lie above it whole: those that began to write after the look behind it. A part of
an older one may lie below, and whoever must know how large a transaction is (``policy.guard``) looks there too.

It must never be the only thing that finds work: a mark is a reason to read less often, not to read less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

LAG_S = 1.0
SHARE = 0.05
DEAR_S, DEAR_SHARE = 0.005, 0.02
MOST_S = 30.0


class Mark(NamedTuple):
    """Read captures from this id on, and lanes from this time on (the database's).

    A transaction of a number below ``xact`` may have captures below the mark; none of a higher number has.
    """

    capture_id: int = 0
    ready_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    xact: int = 0


WHOLE = Mark()


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look saw from a mark on: the lowest of each, None where there was nothing.

    ``next_capture_id`` is below every id that will be taken after the look, or equal to the first of them; ``now`` is
    the database's time. No transaction from the number ``next_xact`` on had begun to write when the look began.
    """

    capture_id: int | None
    next_capture_id: int
    ready_at: datetime | None
    now: datetime
    next_xact: int = 0


def rest_after_s(cost_s: float) -> float:
    """Return how long after a whole look of this cost the next one is due."""
    return min(MOST_S, cost_s / (DEAR_SHARE if cost_s > DEAR_S else SHARE))


@dataclass(frozen=True, slots=True)
class LowWater:
    """The present mark of one drainer. Times are monotonic seconds, but for the mark's own.

    ``past`` are the lowest capture ids of earlier looks, oldest first: one becomes the mark when it is ``LAG_S`` old.
    Each has the number of the first transaction that certainly began after it, as the next look told it.
    """

    mark: Mark = WHOLE
    past: tuple[tuple[float, int, int | None], ...] = ()
    whole_at: float = float("-inf")
    whole_cost_s: float = 0.0

    def reads_from(self, now: float) -> Mark:
        """Return where the next look begins: at the mark, or at the very start when a whole look is due."""
        return WHOLE if now - self.whole_at >= rest_after_s(self.whole_cost_s) else self.mark

    def seen(self, sight: Sight, start: Mark, began: float, ended: float) -> LowWater:
        """Take in what a look from ``start`` saw that lasted from ``began`` to ``ended``."""
        lowest = sight.next_capture_id if sight.capture_id is None else sight.capture_id
        past = [(at, min(id_, lowest), sight.next_xact if xact is None else xact) for at, id_, xact in self.past]
        newest: list[tuple[float, int, int | None]] = []
        if not past or began - past[-1][0] >= LAG_S / 4:
            newest.append((began, lowest, None))
        ripe = [(id_, xact) for at, id_, xact in past if began - at >= LAG_S]
        capture_id, xact = ripe[-1] if ripe else (min(self.mark.capture_id, lowest), self.mark.xact)
        mark = Mark(capture_id, min(sight.now - timedelta(seconds=LAG_S), sight.ready_at or sight.now), xact)
        moved = replace(self, mark=mark, past=(*past[max(0, len(ripe) - 1) :], *newest))
        return replace(moved, whole_at=ended, whole_cost_s=ended - began) if start == WHOLE else moved
