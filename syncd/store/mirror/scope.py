"""What every write to the mirror is told, and what it tells back."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from datetime import datetime

from syncd.domain.ids import AccountId, RunId
from syncd.policy.merge import Owners

MAX_WARNINGS = 1000
_MOST_RELATIONS = 100_000


@dataclass(frozen=True, slots=True)
class Scope:
    """One run's writing. ``now`` is our clock; ``asked_at`` is the database's time before the answer was asked for,
    comparable with the times at which deliveries settled. Rows last seen before ``touch_before`` get a new
    ``last_seen_at``; an absence counts again after ``absence_gap_s``. ``awaits_proof``: delivered changes may wait
    to be shown; one that is not has diverged, from ``grace_s`` after its delivery on. ``owners`` decide conflicts.
    ``is_strange``: the answer has keys never seen before, so what is kept of it is renewed. ``is_retold``: it is no
    answer of now but what was kept of older ones, so no row is seen by it."""

    account_id: AccountId
    run_id: RunId
    now: datetime
    asked_at: datetime
    touch_before: datetime
    absence_gap_s: float = 3600
    grace_s: float = 0
    awaits_proof: bool = True
    owners: Owners = field(default_factory=Owners)
    is_strange: bool = False
    is_retold: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What came of one or more batches. ``deferred`` rows were held by an application and wait for the next run."""

    received: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    deferred: int = 0
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Written) -> Written:
        return Written(
            self.received + other.received,
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.missing + other.missing,
            self.deferred + other.deferred,
            (self.warnings + other.warnings)[:MAX_WARNINGS] if other.warnings else self.warnings,
        )

    def warned(self, *warnings: str) -> Written:
        """Return these counts with more warnings."""
        return replace(self, warnings=(self.warnings + warnings)[:MAX_WARNINGS])


NOTHING = Written()


@dataclass(slots=True)
class Seen:
    """What the batches of one answer learn for those after them.

    ``ids`` are the local ids of the rows that the answer showed again: its witnesses; ``new`` those of the rows that it
    showed for the first time. ``relations`` are our ids of relations by remote id; only so many are kept, so that
    memory stays flat. ``is_locked`` says that the rows' lock has been taken by this transaction.
    """

    ids: array[int] = field(default_factory=lambda: array("q"))
    new: array[int] = field(default_factory=lambda: array("q"))
    relations: dict[str, int] = field(default_factory=dict)
    is_locked: bool = False

    def make_room(self, wanted: int) -> None:
        """Forget all relations when so many more would be too many: before they are looked up, never between."""
        if len(self.relations) + wanted > _MOST_RELATIONS:
            self.relations = {}


@dataclass(frozen=True, slots=True)
class Gone:
    """How many ``known`` rows an answer should have held, and the keys of those that it did not, with our ids where
    they are to be had."""

    known: int = 0
    keys: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
