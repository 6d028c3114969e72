"""What a plan is: values, bounded for the eye and exact in the counts.

A plan may be of a million changes: it holds the first lanes in full and the totals of all, so that what is shown can
say "and so many more" and mean it. Nothing in it is a secret; addresses and values are in it on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from syncd.policy.fold import Entry
from syncd.store.outbox_foresee import ForeseenHold


@dataclass(frozen=True, slots=True)
class EntryMark:
    """Which entry: its number, or the capture's if it is not staged yet; ``seq`` is its place in its lane, where it is
    one of the lane at hand."""

    entry: int | None
    capture: int | None
    seq: int | None

    @classmethod
    def of(cls, entry: Entry) -> EntryMark:
        return cls(entry.id, None, entry.seq) if entry.id > 0 else cls(None, -entry.id, entry.seq)

    @classmethod
    def other(cls, id_: int) -> EntryMark:
        """Name an entry of another lane, or a capture by its negative number."""
        return cls(id_, None, None) if id_ > 0 else cls(None, -id_, None)


@dataclass(slots=True)
class PlannedValue:
    """One thing that a call says: last agreed, local, and in the CRM if it was read, where it is called ``key``."""

    name: str
    base: str | None
    local: str | None
    key: str | None = None
    remote: str | None = None
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call, after folding. ``path`` is the template of the API reference; ``effect`` says what repeating it does.

    ``round`` counts the claims of its lane: a later round is sent once the earlier ones are settled. ``is_in_doubt``
    marks a call that an earlier try may have applied: it is read back first.
    """

    round: int
    operation: str
    turn: str
    values: tuple[PlannedValue, ...]
    call: str
    verb: str
    path: str
    effect: str
    carries: EntryMark
    supersedes: tuple[EntryMark, ...]
    is_in_doubt: bool
    requests: int


@dataclass(frozen=True, slots=True)
class PlannedWait:
    """One change that is not sent now. ``why`` is a value of ``policy.waits.Why`` or ``refused``: it would be refused
    without a request; ``error`` has the reason. ``awaits``: the change of another relation that leaves the address."""

    operation: str
    turn: str | None
    values: tuple[PlannedValue, ...]
    entry: EntryMark
    why: str
    behind: EntryMark | None
    awaits: EntryMark | None
    until: datetime | None
    hold_id: int | None
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class PlannedLane:
    """One relation, or the account itself where ``relation_id`` is None. ``sender`` is who is sending it right now."""

    relation_id: int | None
    remote_id: str | None
    email: str | None
    sender: str | None
    calls: tuple[PlannedCall, ...]
    more_calls: int
    waits: tuple[PlannedWait, ...]
    more_waits: int


@dataclass(slots=True)
class CallCount:
    """How often one call of the API would be made."""

    call: str
    verb: str
    path: str
    effect: str
    number: int = 0


@dataclass(slots=True)
class PlanTotals:
    """Exact, however little is shown. ``relations`` are lanes with a call to send; ``captured`` are changes that are
    not staged yet; ``requests`` is the least number that the calls take, reads included; ``reassertions`` are values
    that the drain says once more, because an earlier try of them may still land: no change, and no part of a plan."""

    relations: int = 0
    calls: int = 0
    requests: int = 0
    added: int = 0
    updated: int = 0
    removed: int = 0
    superseded: int = 0
    captured: int = 0
    reassertions: int = 0
    waiting: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    by_call: dict[str, CallCount] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """One account's plan. ``would_be_held`` is what of it the guard will hold when it is staged. ``reading`` says why
    the CRM was not read to the end, if it was asked to be; ``suspended`` are the troubles of operations that are not
    sent because a setting is wrong for them."""

    account: str
    provider: str
    made_at: datetime
    rate_per_s: float | None
    estimated_s: float | None
    paused: str | None
    throttled_s: float
    breaker: str
    suspended: tuple[str, ...]
    totals: PlanTotals
    lanes: tuple[PlannedLane, ...]
    more_lanes: int
    is_read: bool = False
    reading: str | None = None
    would_be_held: ForeseenHold | None = None
