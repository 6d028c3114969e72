"""Auditing: what is asked for again, and what a difference means.

A row counts as equal only by comparison of the mirror's row, as it is after the answer was written, with that answer:
never because nothing spoke against it. What could not be read is unread, whatever was known of it before.
"""

from __future__ import annotations

from syncd.domain.audits import Verdict

# Kind of row, and the stream whose calls read it one by one. Tags and subscriptions are counted by their relation.
AUDITED = {
    "relations": "relation_details",
    "relation_tags": "relation_tags",
    "relation_subscriptions": "relation_subscriptions",
    "orders": "relation_orders",
    "invoice_details": "invoice_details",
}


def judge(*, is_changed: bool, is_said_before: bool, is_equal: bool, is_waiting: bool) -> Verdict:
    """Say how a row stands that an answer showed.

    ``is_changed``: writing the answer changed the mirror. ``is_said_before``: the CRM says what it said before.
    ``is_equal``: the row now holds what the answer says. ``is_waiting``: a local change or a conflict may account for a
    difference.
    """
    if is_changed:
        return Verdict.WRONG if is_said_before else Verdict.LATE
    if is_equal:
        return Verdict.EQUAL
    return Verdict.WAITING if is_waiting else Verdict.UNREAD


def calls(rate_per_s: float, share: float, elapsed_s: float, most: int) -> int:
    """Return how many calls a round may make: its share of the rate since the round before, one at least."""
    return max(1, min(most, int(rate_per_s * share * elapsed_s)))


def has_room(taken: int, rate_per_s: float, share: float, elapsed_s: float) -> bool:
    """Tell whether live traffic leaves the auditor its share: what the rate allowed, less what was taken."""
    allowed = rate_per_s * elapsed_s
    return allowed > 0 and taken <= allowed * (1 - share)
