"""Outcome: what the end of a conversation means for the entry that it was about.

The words of an answer are the provider's to judge; here its verdict, in one of six kinds, meets what the entry is
(barrier or not), what happened before (an earlier try that may have been applied) and how much patience is left.
It must never let a call that is not repeat-safe be sent twice unread, and never spend an entry's budget on trouble
that is the account's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from syncd.policy.states import EntryStatus


class Ending(StrEnum):
    """The six kinds of end, as ``providers.contract.outcome`` names them, and the one where nothing was begun."""

    DELIVERED = "delivered"
    RETRYABLE = "retryable"
    THROTTLED = "throttled"
    UNAUTHORISED = "unauthorised"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    UNTOUCHED = "untouched"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """``is_once``: repeating the call would do something twice. ``is_repeat``: this try began by reading back.
    ``is_spent``: with this try the budget is used up. ``is_account_down``: the breaker is open; then even a refusal may
    be the host's. ``may_land_late``: the answer was a gateway's, which had lost patience with a server that may still
    be at work."""

    is_barrier: bool
    is_once: bool
    is_repeat: bool
    is_spent: bool
    is_account_down: bool = False
    may_land_late: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``status`` of the entry from now on. A pending one with ``is_tried`` backs off; without, it waits unharmed.

    ``is_uncertain`` marks for good that a try may have been applied, whatever the operation: a barrier is read back
    before it is sent again, and after the delivery of any other its facet's last value is said once more.
    """

    status: EntryStatus
    is_tried: bool = True
    is_uncertain: bool = False


_UNHARMED = Verdict(EntryStatus.PENDING, is_tried=False)


def verdict(ending: Ending, now: Circumstances) -> Verdict:
    """Decide what becomes of an entry that was not delivered."""
    match ending:
        case Ending.RETRYABLE:
            return _retryable(now)
        case Ending.THROTTLED | Ending.UNAUTHORISED | Ending.UNTOUCHED:
            return _UNHARMED
        case Ending.REJECTED:
            return _UNHARMED if now.is_account_down else Verdict(EntryStatus.DEAD)
        case Ending.UNKNOWN:
            return _unknown(now)
        case Ending.DELIVERED:
            raise ValueError("a delivered entry takes its status from the proof")
        case _:
            assert_never(ending)


def _retryable(now: Circumstances) -> Verdict:
    is_uncertain = now.may_land_late
    if now.is_account_down:
        return Verdict(EntryStatus.PENDING, is_tried=False, is_uncertain=is_uncertain)
    if not now.is_spent:
        return Verdict(EntryStatus.PENDING, is_uncertain=is_uncertain)
    # An earlier try may have been applied: giving up does not make that a no.
    is_parked = now.is_barrier and (now.is_repeat or is_uncertain)
    return Verdict(EntryStatus.PARKED if is_parked else EntryStatus.DEAD, is_uncertain=is_uncertain)


def _unknown(now: Circumstances) -> Verdict:
    if not now.is_barrier:
        if now.is_account_down:
            return Verdict(EntryStatus.PENDING, is_tried=False, is_uncertain=True)
        return Verdict(EntryStatus.DEAD if now.is_spent else EntryStatus.PENDING, is_uncertain=True)
    if now.is_spent or (now.is_once and now.is_repeat):
        return Verdict(EntryStatus.PARKED, is_uncertain=True)
    return Verdict(EntryStatus.PENDING, is_uncertain=True)
