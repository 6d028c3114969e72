"""Decode ahead: the next batch is decoded in a thread while the database works on the one before.

Decoding and hashing are the processor's work, writing is Postgres's: side by side they take as long as the slower of
the two. At most one batch waits, so memory stays flat whatever the size of the answer.

For that, the decoding thread must give way at once when Postgres has answered: Postgres stands still until it has the
next statement, and a batch is a dozen of them.

A stream that can be peeked at is not decoded ahead as long as most of what it shows is familiar: then a batch comes as
``Unread``, and only what the mirror does not hold to the letter is decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from syncd import interpreter
from syncd.domain.records import Refused, Row
from syncd.providers.contract import Decoded, Peeked, Response, Stream
from syncd.store.mirror.normal import seal

Prepare = Callable[[Sequence[Row[Any]]], Any]
Watch = Callable[[Decoded], Decoded]


@dataclass(frozen=True, slots=True)
class Ready:
    """A decoded and prepared batch, with the records that cannot be read and the warnings about them."""

    batch: Any
    warnings: tuple[str, ...]
    refused: tuple[Refused, ...] = ()


@dataclass(slots=True)
class Habit:
    """Whether to peek at the next batch: what the last one showed decides."""

    peeks: bool

    def learn(self, chosen: int, of: int) -> None:
        """Peeking pays as long as few records have to be decoded after all."""
        self.peeks = chosen * 4 <= of


@dataclass(frozen=True, slots=True)
class Unread:
    """A batch of which only keys and seals are known. ``read`` decodes and prepares what is chosen, in a thread."""

    keys: Sequence[str | None]
    seals: Sequence[bytes]
    peeked: Peeked
    prepare: Prepare
    habit: Habit
    watch: Watch

    async def read(self, chosen: Sequence[int]) -> Ready:
        return await asyncio.to_thread(self._read, chosen)

    def _read(self, chosen: Sequence[int]) -> Ready:
        decoded = self.watch(self.peeked.rows(chosen))
        return Ready(self.prepare(decoded.rows), decoded.warnings, decoded.refused)


@asynccontextmanager
async def batches(
    stream: Stream, responses: Sequence[Response], prepare: Prepare, batch_rows: int, watch: Watch
) -> AsyncIterator[AsyncIterator[Ready | Unread]]:
    """Yield the batches of an answer; ``watch`` sees each as it is decoded, and may doubt it. On leaving, the thread
    has ended: nothing reads the answer's file any more."""
    interpreter.tune()
    source = _source(stream, responses, prepare, batch_rows, watch)
    waiting: list[asyncio.Task[Ready | Unread | None]] = [asyncio.create_task(_next(source))]

    async def drained() -> AsyncIterator[Ready | Unread]:
        while (batch := await waiting[0]) is not None:
            waiting[0] = asyncio.create_task(_next(source))
            yield batch

    try:
        yield drained()
    finally:
        waiting[0].cancel()
        await asyncio.wait(waiting)


async def _next(source: Iterator[Ready | Unread]) -> Ready | Unread | None:
    """Take the next batch in a thread; when cancelled, wait for the thread to its end: it cannot be."""
    work = asyncio.ensure_future(asyncio.to_thread(next, source, None))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        work.exception()  # seen here, so that nobody warns of it
        raise


def _source(
    stream: Stream, responses: Sequence[Response], prepare: Prepare, batch_rows: int, watch: Watch
) -> Iterator[Ready | Unread]:
    habit = Habit(peeks=True)
    for response in responses:
        if stream.peek is None:
            for decoded in stream.decode(response):
                yield from _ready(decoded, prepare, batch_rows, watch)
            continue
        for peeked in stream.peek(response):
            if habit.peeks:
                yield Unread(peeked.keys(), [seal(raw) for raw in peeked.raws()], peeked, prepare, habit, watch)
            else:
                yield from _ready(peeked.rows(range(peeked.count)), prepare, batch_rows, watch)


def _ready(decoded: Decoded, prepare: Prepare, batch_rows: int, watch: Watch) -> Iterator[Ready]:
    decoded = watch(decoded)
    yield Ready(prepare(decoded.rows[:batch_rows]), decoded.warnings, decoded.refused)
    for start in range(batch_rows, len(decoded.rows), batch_rows):
        yield Ready(prepare(decoded.rows[start : start + batch_rows]), ())
