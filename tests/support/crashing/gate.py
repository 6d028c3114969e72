"""The gate: every message of the drainer passes here, is counted, and at one of them the world stops.

An **event** is one message of the drainer with its answer: a statement and what the database said to it, a request and
what the CRM said to it. A **point** is an event and a moment: BEFORE the message reached the other side; TORN, when the
half of it did; AFTER the other side has done and answered it, and before the drainer hears of it. From that moment on
nothing passes in either direction, on any connection: what a dying process still says, nobody hears. So a point is
exact although SIGKILL is not.

Killing after one event and before the next leaves the same world when a drainer does one thing at a time; it does not
when it does several, and the gate knows nothing of how many it does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum


class Moment(StrEnum):
    BEFORE = "before"
    TORN = "torn"
    AFTER = "after"


class Kind(StrEnum):
    """``SET_UP`` is what the driver says for itself: it connects, prepares, closes."""

    SET_UP = "set-up"
    SQL = "sql"
    COPY = "copy"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Event:
    """The ``nth`` message of this wording, in the ``place`` among all; ``line`` numbers the connection it came by."""

    kind: Kind
    text: str
    nth: int
    line: int
    place: int

    def __str__(self) -> str:
        return f"{self.text[:90]} #{self.nth}"


@dataclass(frozen=True, slots=True)
class Point:
    """Where to kill: before, in or after the ``nth`` message of this wording; of any wording if it has none."""

    text: str
    nth: int
    moment: Moment

    def __str__(self) -> str:
        return f"{self.moment} {self.text[:90] or 'message'} #{self.nth}"


class Shut(Exception):
    """The world has stopped: nothing passes any more."""


async def _nothing(_: Event) -> None:
    return


class Gate:
    """One drainer's gate. ``reached`` is set when its point is; ``events`` are all that passed, in order.

    ``watch`` is awaited after each answer from the other side, before the drainer gets it.
    """

    def __init__(self, point: Point | None = None, watch: Callable[[Event], Awaitable[None]] = _nothing) -> None:
        self.point = point
        self.events: list[Event] = []
        self.reached = asyncio.Event()
        self._watch = watch
        self._counts: Counter[str] = Counter()
        self._lines = 0
        self._admitted = 0

    @property
    def is_shut(self) -> bool:
        return self.reached.is_set()

    def line(self) -> int:
        """Return a number for a new connection."""
        self._lines += 1
        return self._lines

    def admit(self, kind: Kind, text: str, line: int, message: bytes) -> tuple[Event, bytes]:
        """Let a message pass, wholly or (the world stops with it) its half; Shut when it may not."""
        self.check()
        self._counts[text] += 1
        self._admitted += 1
        event = Event(kind, text, self._counts[text], line, self._admitted)
        if self._is_point(event, Moment.BEFORE):
            self.shut()
            self.check()
        self.events.append(event)
        if self._is_point(event, Moment.TORN):
            self.shut()
            return event, message[: len(message) // 2]
        return event, message

    async def answered(self, event: Event) -> None:
        """The other side has done it and said so. Shut when the drainer is not to hear of it."""
        self.check()
        if self._is_point(event, Moment.AFTER):
            self.shut()
        await self._watch(event)
        self.check()

    def shut(self) -> None:
        self.reached.set()

    def check(self) -> None:
        if self.is_shut:
            raise Shut

    def _is_point(self, event: Event, moment: Moment) -> bool:
        point = self.point
        if point is None or point.moment is not moment:
            return False
        return (event.text, event.nth) == (point.text, point.nth) if point.text else event.place == point.nth
