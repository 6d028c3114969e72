"""Rounds: everything a lane would send from here to its end, if every call that is sent is delivered.

One fold says what may be sent *now*; behind a barrier, or beyond the part of a long lane that one claim reads, the
rest follows in later claims. A plan for people wants all of it. Nothing is decided here that ``policy.fold`` does not
decide: this only supposes that its steps were delivered and folds what is left again, as the next claim will.

A call that is certain to be refused before anything is sent (an operation that is switched off) is supposed dead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from syncd.domain.changes import IDENTITY
from syncd.policy.fold import Entry, Plan, RepeatSafe, Step, fold
from syncd.policy.landing import ALL_HAS_LANDED, Landing
from syncd.policy.merging import keeps_all
from syncd.policy.passing import part
from syncd.policy.states import EntryStatus

_PENDING = EntryStatus.PENDING.value
_DEAD = EntryStatus.DEAD.value

# A window that holds nothing to send is read again, so many times as wide.
WIDER = 8

# Why a step would be refused without a request, or None. The flag says whether the relation has a remote id by then.
Refusal: TypeAlias = Callable[[Step, bool], str | None]


class Round(msgspec.Struct, frozen=True):
    """One claim's worth of a lane. ``entries`` are those that it read; ``is_cut`` says that the lane goes on beyond."""

    plan: Plan
    entries: tuple[Entry, ...]
    is_cut: bool


class Course(msgspec.Struct, frozen=True):
    """``rounds`` in the order in which they are sent; ``refused`` are the reasons of steps that end unsent, by the
    sequence number of their carrier; ``left`` are the entries that still wait after the last round."""

    rounds: tuple[Round, ...]
    refused: dict[int, str]
    left: tuple[Entry, ...]


def next_round(
    entries: Sequence[Entry], is_repeat_safe: RepeatSafe, now: datetime, window: int, landing: Landing = ALL_HAS_LANDED
) -> Round:
    """Fold as much of a lane as one claim does.

    The first ``window`` undelivered entries; where those hold nothing to send and more could, so many times as many;
    and of what is found there, no more steps than one window.
    """
    size, read = window, part(entries, window)
    plan = fold(read, is_repeat_safe, now, landing)
    while plan.is_idle and not plan.is_barred and len(read) >= size:
        size *= WIDER
        read = part(entries, size)
        plan = fold(read, is_repeat_safe, now, landing)
        if len(plan.steps) > window:
            last = plan.steps[window - 1].carrier.seq
            read = part(entries, sum(entry.seq <= last for entry in read))
            return Round(fold(read, is_repeat_safe, now, landing), read, True)
    return Round(plan, read, len(read) >= size)


def course(
    entries: Sequence[Entry],
    is_repeat_safe: RepeatSafe,
    now: datetime,
    window: int,
    refusal: Refusal,
    *,
    is_bound: bool,
    landing: Landing = ALL_HAS_LANDED,
) -> Course:
    """Plan a lane to its end. ``is_bound`` says whether its relation has a remote id already; ``landing`` what may
    still land of what was tried before."""
    rounds: list[Round] = []
    refused: dict[int, str] = {}
    left = tuple(entries)
    while not (made := next_round(left, is_repeat_safe, now, window, landing)).plan.is_idle:
        rounds.append(made)
        told = {step.carrier.seq: why for step in made.plan.steps if (why := refusal(step, is_bound)) is not None}
        refused |= told
        is_bound = is_bound or any(step.carrier.seq not in told for step in made.plan.steps)
        left = left_after(left, made.plan, told)
    return Course(tuple(rounds), refused, left)


def left_after(entries: Sequence[Entry], plan: Plan, refused: Collection[int] = ()) -> tuple[Entry, ...]:
    """Return the undelivered entries once these steps were delivered, those of ``refused`` carriers excepted."""
    settled: set[int] = set()
    dead: set[int] = {entry.seq for entry in plan.broken}
    for step in plan.steps:
        if step.carrier.seq not in refused:
            settled.add(step.carrier.seq)
            settled.update(entry.seq for entry in step.superseded)
            continue
        dead.add(step.carrier.seq)
        pending = {entry.seq for entry in step.superseded if entry.status == _PENDING and not step.is_barrier}
        (dead if keeps_all(step.change) else settled).update(pending)
    return tuple(_buried(entry) if entry.seq in dead else entry for entry in entries if entry.seq not in settled)


def _buried(entry: Entry) -> Entry:
    is_refused = entry.facet == IDENTITY and entry.change is not None
    return msgspec.structs.replace(entry, status=_DEAD, next_attempt_at=None, is_refused=is_refused)
