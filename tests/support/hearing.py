"""Hearing: every request that was begun towards a CRM, in that order, and how it ended as far as we know.

The simulator's journal tells what took effect and when; a request may be slow in getting there. What order the outbox
kept shows here alone: at the moment of saying, and whoever said it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from syncd.providers.contract import Answer, MaybeApplied, Request
from syncd.transport import Transport


@dataclass(slots=True)
class Heard:
    """``answer`` is None while there is none, and for good if nobody waited for it."""

    request: Request
    answer: Answer | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether it may have been applied, or may yet be, without our knowing."""
        return self.answer is None or isinstance(self.answer, MaybeApplied)


class HearingTransport(Transport):
    """A transport that remembers, for as many drainers as share it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.heard: list[Heard] = []

    async def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        heard = Heard(request)
        self.heard.append(heard)
        heard.answer = await super().send(request, timeout_s=timeout_s)
        return heard.answer


def disorder(said: Iterable[tuple[int, bool]], applied: list[int], *, may_end_older: bool = False) -> str | None:
    """Say what is wrong with the growing numbers of one facet, None if nothing is.

    ``said`` are those that were sent, in that order, each with whether it ended in doubt; ``applied`` those that took
    effect. No number is ever sent after a larger one. One may take effect after a larger one if a request that said it
    ended in doubt, and once for each such request; what stands at the end is the largest of all, unless
    ``may_end_older``: a person gave it up, or the word that would have put it right.
    """
    numbers, doubts = [], []
    for number, is_in_doubt in said:
        numbers.append(number)
        if is_in_doubt:
            doubts.append(number)
    if numbers != sorted(numbers):
        return f"an older value was said after a newer one: {numbers}"
    newest = 0
    for number in applied:
        if number < newest:
            if number not in doubts:
                return f"{number} took effect after {newest}, and no request for it was in doubt: {applied}"
            doubts.remove(number)
        newest = max(newest, number)
    if applied and applied[-1] != newest and not may_end_older:
        return f"{applied[-1]} stands, and {newest} was there: {applied}"
    return None
