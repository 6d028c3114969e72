"""Danger: the kinds of places at which a drainer that is wrong does harm when it dies there.

A kind says what happens there and never where that is among the messages of a drain, so that a drainer with a round
trip more or less still dies at the same place. ``survey`` finds the points of each; a planted bug names the one kind
that brings it to light every time.
"""

from __future__ import annotations

from enum import StrEnum


class Danger(StrEnum):
    """In the order in which they are worth trying."""

    CALLED = "after a call that is not repeat-safe"
    SETTLING = "before a settle is committed"
    CLAIMING = "before a claim is committed"
    BINDING = "before a new relation's remote id is written"
    SETTLED = "after a settle is committed"
    HALF_SETTLED = "within a settle"
    CALLING = "before a call that is not repeat-safe"
    CLAIMED = "after a claim is committed"
    IDENTIFIED = "after a relation is made or has another address"
    HALF_CLAIMED = "within a claim"
    BEGUN = "after it is written down that a call begins"
