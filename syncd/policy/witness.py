"""Witness: rows that we know must be in an answer testify for the rest of it.

A window overlaps time that is already mirrored and a snapshot is asked for whole, so known rows must come back. An
answer that lacks too many of them is an incident (a capped window, a fault that looks like emptiness), not news: it
is refused and nothing is written. A few gone may be true; they are confirmed one by one, never deleted by this.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    BELIEVED = "believed"  # every known row is there
    CONFIRM = "confirm"  # believed, but the few rows gone must be asked for by themselves
    REFUSED = "refused"  # not believed: nothing of it may be written


@dataclass(frozen=True, slots=True)
class WitnessRule:
    """Up to ``few`` rows, or up to ``max_gone_share`` of the known ones, may be gone before an answer is refused.
    ``may_be_empty`` lets an empty answer pass by the same count (the members of one group, not a whole collection)."""

    few: int = 3
    max_gone_share: float = 0.02
    may_be_empty: bool = False


def judge(known: int, gone: int, received: int, rule: WitnessRule) -> Verdict:
    """Judge an answer of ``received`` rows in which ``gone`` of the ``known`` rows that it should hold are not."""
    if gone <= 0:
        return Verdict.BELIEVED
    if received == 0 and not rule.may_be_empty:
        return Verdict.REFUSED
    if gone <= rule.few or gone <= known * rule.max_gone_share:
        return Verdict.CONFIRM
    return Verdict.REFUSED


def reason(known: int, gone: int, received: int) -> str:
    """Return the sentence that a refused run carries."""
    if received == 0:
        return f"the answer is empty, but {known} known rows should be in it: not believed, nothing was written"
    return f"{gone} of {known} known rows are not in the answer: not believed, nothing was written"
