"""States are tables: one transition table per machine.

The CHECK constraints of the migrations, the diagrams in the README and the tests are compared with these tables;
code that changes a state asks ``may_move``.

An **entry** of the outbox waits as ``pending`` until its delivery settles. ``dead`` (the CRM said no, or the budget
is spent) and ``parked`` (nobody can tell whether it was applied) wait for a person or, where a later value of the
same facet makes them moot, end as ``superseded``. ``accepted`` is what the CRM said yes to; it stays so, unless a
later read shows the value (``verified``) or another one (``diverged``, until a read shows it after all, a later value
supersedes it or a person decides). All other states are final.

A **hold** is a mass change that waits as ``open`` until a person approves or rejects it.

A **run hold** is what a pull would have done and may not unasked. It waits as ``open``; a person may change their mind
between ``approved`` and ``rejected`` until the next run has ``used`` the approval. It has ``lapsed`` when the answers
are well again, want more than was shown, or when the approval was not used in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class EntryStatus(StrEnum):
    PENDING = "pending"
    HELD = "held"
    VERIFIED = "verified"
    ACCEPTED = "accepted"
    DIVERGED = "diverged"
    SUPERSEDED = "superseded"
    DEAD = "dead"
    PARKED = "parked"
    SKIPPED = "skipped"


class RunStatus(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    HELD = "held"
    FAILED = "failed"
    ABANDONED = "abandoned"


class HoldStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"


class RunHoldStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    USED = "used"
    LAPSED = "lapsed"


class DetailStatus(StrEnum):
    PENDING = "pending"
    DONE = "done"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


_E = EntryStatus
ENTRY_TRANSITIONS: Mapping[EntryStatus, frozenset[EntryStatus]] = MappingProxyType(
    {
        _E.PENDING: frozenset(set(EntryStatus) - {_E.PENDING}),
        _E.HELD: frozenset({_E.PENDING, _E.SKIPPED}),
        _E.ACCEPTED: frozenset({_E.VERIFIED, _E.DIVERGED}),
        _E.DEAD: frozenset({_E.PENDING, _E.SKIPPED, _E.SUPERSEDED}),
        _E.PARKED: frozenset({_E.PENDING, _E.SKIPPED, _E.SUPERSEDED, _E.VERIFIED}),
        _E.DIVERGED: frozenset({_E.PENDING, _E.SKIPPED, _E.SUPERSEDED, _E.VERIFIED}),
        _E.VERIFIED: frozenset(),
        _E.SUPERSEDED: frozenset(),
        _E.SKIPPED: frozenset(),
    }
)

RUN_TRANSITIONS: Mapping[RunStatus, frozenset[RunStatus]] = MappingProxyType(
    {
        RunStatus.RUNNING: frozenset(set(RunStatus) - {RunStatus.RUNNING}),
        RunStatus.SUCCEEDED: frozenset(),
        RunStatus.REFUSED: frozenset(),
        RunStatus.HELD: frozenset(),
        RunStatus.FAILED: frozenset(),
        RunStatus.ABANDONED: frozenset(),
    }
)

HOLD_TRANSITIONS: Mapping[HoldStatus, frozenset[HoldStatus]] = MappingProxyType(
    {
        HoldStatus.OPEN: frozenset({HoldStatus.APPROVED, HoldStatus.REJECTED}),
        HoldStatus.APPROVED: frozenset(),
        HoldStatus.REJECTED: frozenset(),
    }
)

_H = RunHoldStatus
RUN_HOLD_TRANSITIONS: Mapping[RunHoldStatus, frozenset[RunHoldStatus]] = MappingProxyType(
    {
        _H.OPEN: frozenset({_H.APPROVED, _H.REJECTED, _H.LAPSED}),
        _H.APPROVED: frozenset({_H.REJECTED, _H.USED, _H.LAPSED}),
        _H.REJECTED: frozenset({_H.APPROVED, _H.LAPSED}),
        _H.USED: frozenset(),
        _H.LAPSED: frozenset(),
    }
)

DETAIL_TRANSITIONS: Mapping[DetailStatus, frozenset[DetailStatus]] = MappingProxyType(
    {
        DetailStatus.PENDING: frozenset({DetailStatus.DONE, DetailStatus.UNAVAILABLE, DetailStatus.FAILED}),
        DetailStatus.FAILED: frozenset({DetailStatus.PENDING, DetailStatus.DONE, DetailStatus.UNAVAILABLE}),
        DetailStatus.DONE: frozenset({DetailStatus.PENDING}),
        DetailStatus.UNAVAILABLE: frozenset(),
    }
)

UNDELIVERED = frozenset({_E.PENDING, _E.HELD, _E.DEAD, _E.PARKED, _E.DIVERGED})


def may_move(before: EntryStatus, after: EntryStatus) -> bool:
    """Tell whether the entry machine has an arrow from ``before`` to ``after``."""
    return after in ENTRY_TRANSITIONS[before]
