"""Stage mark: from where captures are staged, so that no earlier change of a relation is left behind a later one.

A capture takes its number when it is written and shows when its transaction commits, so a low one may show long after
higher ones were staged. Reading from the lowest number each time would find it, and would also walk through all that
is over (``policy.lowwater`` says what that costs). Reading from anywhere else must never leave it behind: if the name
that a long transaction wrote were staged after the one that the next transaction wrote, the CRM would keep the older.

So a mark is a number *and* the transactions that may still show a capture below it: those that were open when the
mark was noted. They are known exactly. Whoever writes a capture has its transaction's number before the capture's
(``migrations/sql/stage_007.sql``), and numbers of transactions are given in order. So whoever may show something below
a number that was read before the stager's own transaction had its own has a lower one than that; and was either open
by the snapshot that the stager read captures with, or is read by it. The statement that stages asks its own snapshot
whether all transactions of its mark are open still. Has one ended, it reads from the lowest instead.

Transactions of all databases of the server count: a snapshot tells them, and not whose they are. A busy neighbour makes
more stages begin at the lowest than there need be. (The argument holds for a sequence without a cache, as it is made.)

What a stage has read to the end is struck from all marks: who has ended since can show nothing more. A mark is used
when it is ``LAG_S`` old, so in the main those are left that last longer. It is noted only when the stager's transaction
has committed, and forgotten when another server answers: one that took over or was restored may lack that commit, and
what it staged is there again. A capture whose number was taken by hand may lie below a mark and belong to nobody who is
known; the stage after ``MOST_S`` reads from the lowest whatever it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from syncd.policy.lowwater import LAG_S, MOST_S

# Who began since the last one to end may have many subtransactions: to name each would cost more than a mark saves.
_MOST_OPEN = 5000


class StageMark(NamedTuple):
    """No capture below this id shows or will show, but of these transactions; none of them had ended."""

    capture_id: int = 0
    open_xacts: frozenset[int] = frozenset()


LOWEST = StageMark()


@dataclass(frozen=True, slots=True)
class Took:
    """What one stage saw and took.

    It read from ``first_id`` on (0: from the lowest) with a snapshot for which transactions from ``snapshot_xmax`` on,
    and ``open_xacts``, had not ended. ``next_capture_id`` was read before its own transaction had its number ``xact``
    (None: it wrote nothing). ``last_id``: the last capture it took, where there may be more behind it.
    """

    first_id: int
    next_capture_id: int
    snapshot_xmax: int
    open_xacts: frozenset[int]
    xact: int | None = None
    last_id: int | None = None

    def below(self, capture_id: int) -> int:
        """Return how far up to an id everything that showed was taken."""
        return capture_id if self.last_id is None else min(capture_id, self.last_id + 1)

    @property
    def mark(self) -> StageMark | None:
        """The mark that it leaves; None where it cannot tell who may still show something below."""
        if self.xact is None or self.xact - self.snapshot_xmax > _MOST_OPEN:
            return None
        return StageMark(self.below(self.next_capture_id), self.open_xacts.union(range(self.snapshot_xmax, self.xact)))


@dataclass(frozen=True, slots=True)
class StageMarks:
    """The marks of one stager, oldest first, each with the time when it was noted. Times are monotonic seconds."""

    noted: tuple[tuple[float, StageMark], ...] = ()
    whole_at: float = float("-inf")

    def starts_from(self, now: float) -> StageMark:
        """Return the newest mark that is old enough."""
        if now - self.whole_at >= MOST_S:
            return LOWEST
        return next((mark for at, mark in reversed(self.noted) if now - at >= LAG_S), LOWEST)

    def took(self, took: Took, now: float) -> StageMarks:
        """Take in what a stage took whose transaction has committed."""
        ripe = [n for n, (at, _) in enumerate(self.noted) if now - at >= LAG_S]
        kept = [
            (at, StageMark(took.below(mark.capture_id), mark.open_xacts & took.open_xacts))
            for at, mark in self.noted[ripe[-1] if ripe else 0 :]
        ]
        if took.mark is not None and (not kept or now - kept[-1][0] >= LAG_S / 4):
            kept.append((now, took.mark))
        marks = replace(self, noted=tuple(kept))
        return replace(marks, whole_at=now) if took.first_id == 0 else marks
