"""Decode ahead: the next batch is decoded in a thread while the database works on the one before.

Decoding, hashing and the building of arrays are the processor's work, writing is Postgres's: side by side they take
as long as the slower of the two. At most one batch waits, so memory stays flat whatever the size of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from syncd.domain.records import Row
from syncd.providers.contract import Response, Stream

B = TypeVar("B")
Prepared = tuple[B, tuple[str, ...]]


@asynccontextmanager
async def batches(
    stream: Stream, responses: Sequence[Response], prepare: Callable[[Sequence[Row[Any]]], B], batch_rows: int
) -> AsyncIterator[AsyncIterator[Prepared[B]]]:
    """Yield the prepared batches of an answer, each with the warnings about records that were left out.

    On leaving, the thread that decodes has ended: nothing reads the answer's file after it is closed.
    """
    source = _prepared(stream, responses, prepare, batch_rows)
    waiting: list[asyncio.Task[Prepared[B] | None]] = [_next(source)]

    async def drained() -> AsyncIterator[Prepared[B]]:
        while (batch := await waiting[0]) is not None:
            waiting[0] = _next(source)
            yield batch

    try:
        yield drained()
    finally:
        waiting[0].cancel()
        await asyncio.wait(waiting)
        if not waiting[0].cancelled():
            waiting[0].exception()  # seen here, so that nobody warns of it


def _next(source: Iterator[Prepared[B]]) -> asyncio.Task[Prepared[B] | None]:
    return asyncio.ensure_future(_ended(asyncio.to_thread(next, source, None)))


async def _ended(thread: Any) -> Any:
    """Wait for a thread to its end, also when the waiting is cancelled: a thread cannot be."""
    work = asyncio.ensure_future(thread)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _prepared(
    stream: Stream, responses: Sequence[Response], prepare: Callable[[Sequence[Row[Any]]], B], batch_rows: int
) -> Iterator[Prepared[B]]:
    for response in responses:
        for decoded in stream.decode(response):
            yield prepare(decoded.rows[:batch_rows]), decoded.warnings
            for start in range(batch_rows, len(decoded.rows), batch_rows):
                yield prepare(decoded.rows[start : start + batch_rows]), ()
