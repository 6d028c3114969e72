"""What happened at the CRM: every effect on its state, and every request that came in.

The journal is the witness in a test: it says what was applied, how often, in what order and by which request,
whatever the client believes. An effect is recorded when state changes, or when a call does something each time (a
planned mail, a contact note); a call documented as a no-op leaves a request line and no effect. Neither holds a key or
a password.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from syncd.sandbox.clock import MovableClock

SECRET = frozenset({"admin", "key", "password"})


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state: what kind, of whom, from what to what, when, and through which request (0 = an edit)."""

    seq: int
    at: datetime
    kind: str
    subject: str
    before: object = None
    after: object = None
    request: int = 0


class RequestLine(msgspec.Struct, kw_only=True):
    """One request as it came in; ``fate`` says how it ended: answered, lost, reset, truncated, late, held, failed."""

    seq: int
    at: datetime
    operation: str
    verb: str
    path: str
    parameters: dict[str, str]
    status: int = 0
    fate: str = "open"


class Journal:
    """The effects, in order, as a sequence; ``until`` waits for one without sleeping."""

    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock
        self._effects: list[Effect] = []
        self._moved: asyncio.Event | None = None
        self.request = 0

    def record(self, kind: str, subject: str, before: object = None, after: object = None) -> None:
        """Write one effect down, in the name of the request being applied."""
        self._effects.append(
            Effect(
                seq=len(self._effects) + 1,
                at=self._clock.now(),
                kind=kind,
                subject=subject,
                before=before,
                after=after,
                request=self.request,
            )
        )
        if self._moved is not None:
            self._moved.set()

    def since(self, seq: int) -> list[Effect]:
        """Return the effects after a sequence number."""
        return self._effects[seq:]

    def of(self, kind: str, subject: str | None = None) -> list[Effect]:
        """Return the effects of one kind, in order, of one subject if given."""
        return [effect for effect in self._effects if effect.kind == kind and subject in (None, effect.subject)]

    async def until(self, holds: Callable[[Journal], bool], *, timeout_s: float = 10.0) -> None:
        """Wait until a predicate over this journal holds; TimeoutError if it does not in time."""
        async with asyncio.timeout(timeout_s):
            while not holds(self):
                self._moved = self._moved or asyncio.Event()
                await self._moved.wait()
                self._moved = None

    def __len__(self) -> int:
        return len(self._effects)

    def __iter__(self) -> Iterator[Effect]:
        return iter(self._effects)

    def __getitem__(self, index: int) -> Effect:
        return self._effects[index]


class RequestLog:
    """The last requests, bounded, with counters over all of them by operation and by status."""

    def __init__(self, clock: MovableClock, keep: int = 10_000) -> None:
        self._clock = clock
        self._lines: deque[RequestLine] = deque(maxlen=keep)
        self.total = 0
        self.by_operation: Counter[str] = Counter()
        self.by_status: Counter[int] = Counter()
        self.by_fate: Counter[str] = Counter()

    def open(self, operation: str, verb: str, path: str, parameters: dict[str, str]) -> RequestLine:
        """Begin a line; the parameters are kept without the key and without any password."""
        self.total += 1
        self.by_operation[operation] += 1
        shown = {name: value for name, value in parameters.items() if name not in SECRET}
        line = RequestLine(
            seq=self.total, at=self._clock.now(), operation=operation, verb=verb, path=path, parameters=shown
        )
        self._lines.append(line)
        return line

    def close(self, line: RequestLine, status: int, fate: str) -> None:
        """Write down how a request ended."""
        line.status = status
        line.fate = fate
        self.by_status[status] += 1
        self.by_fate[fate] += 1

    def since(self, seq: int) -> list[RequestLine]:
        """Return the kept lines after a sequence number."""
        return [line for line in self._lines if line.seq > seq]

    def of(self, operation: str) -> list[RequestLine]:
        """Return the kept lines of one operation, in order."""
        return [line for line in self._lines if line.operation == operation]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[RequestLine]:
        return iter(self._lines)
