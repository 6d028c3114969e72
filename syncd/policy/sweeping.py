"""Sweeping: how a sweep shares its calls between those who were active and those who wait longest.

Whoever bought or changed lately is the likeliest to have changed elsewhere, too. They may not have every call: else an
account that is busy enough would never ask for anybody else again.
"""

from __future__ import annotations

from math import ceil

ACTIVE_SHARE = 0.1


def active_calls(budget: int) -> int:
    """Return how many calls of a sweep go to the recently active, at most; the rest go by age."""
    return int(budget * ACTIVE_SHARE)


def rounds(parents: int, budget: int) -> int:
    """Return after how many rounds, at the latest, each parent has been asked for; at least 1."""
    return 1 if parents <= budget else ceil(parents / (budget - active_calls(budget)))
