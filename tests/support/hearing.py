"""Hearing: every request that was begun towards a CRM, in that order, and how it ended as far as we know.

The simulator's journal tells what took effect and when; a request may be slow in getting there. What order the outbox
kept shows here alone: at the moment of saying, and whoever said it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from syncd.providers.contract import Answer, Answered, NotSent, Request
from syncd.transport import Transport


class End(StrEnum):
    """How a request ended: the CRM did it, the CRM certainly did not, or it may have, or may yet."""

    DONE = "done"
    REFUSED = "refused"
    DOUBT = "doubt"


@dataclass(slots=True)
class Heard:
    """``answer`` is None while there is none, and for good if nobody waited for it."""

    request: Request
    answer: Answer | None = None

    @property
    def end(self) -> End:
        match self.answer:
            case Answered(response):
                return End.DONE if response.status < 400 else End.REFUSED
            case NotSent():
                return End.REFUSED
        return End.DOUBT


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


def disorder(said: Iterable[tuple[int, End]], applied: list[int], *, may_end_older: bool = False) -> str | None:
    """Say what is wrong with the growing numbers of one facet, None if nothing is.

    ``said`` are those that were sent, in that order, each with how that ended; ``applied`` those that took effect. No
    number is ever sent after a larger one, unless that was refused. One may take effect after a larger one if a request
    that said it ended in doubt, and once for each such request; what stands at the end is the largest of all, unless
    ``may_end_older``: a person gave it up, or the word that would have put it right.
    """
    said, newest = list(said), 0
    for number, end in said:
        if number < newest:
            return f"{number} was said after {newest}: {said}"
        newest = newest if end is End.REFUSED else number
    doubts, newest = [number for number, end in said if end is End.DOUBT], 0
    for number in applied:
        if number < newest:
            if number not in doubts:
                return f"{number} took effect after {newest}, and no request for it was in doubt: {applied}"
            doubts.remove(number)
        newest = max(newest, number)
    if applied and applied[-1] != newest and not may_end_older:
        return f"{applied[-1]} stands, and {newest} was there: {applied}"
    return None
