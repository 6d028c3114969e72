"""Follow-up: the PDF of each invoice, where it is asked for; one call each, with its own tries and its own waiting.

What is not a PDF by its type and by its first bytes is never written. A file stands whole in its place before its row
is written; a row therefore always has its file, and a process killed between the two fetches nothing twice.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

from syncd.domain.errors import InfrastructureError, MalformedAnswer
from syncd.inbound.context import Context
from syncd.inbound.details import next_try
from syncd.inbound.fetch import Trouble, fetch
from syncd.policy.states import RunStatus
from syncd.policy.windows import corrected
from syncd.providers.contract import Response, Stream, StreamArguments
from syncd.store import invoice_files
from syncd.store.invoice_files import Content, Taken, Wanted
from syncd.store.mirror import Written
from syncd.store.runs import Ending, Run
from syncd.store.shelf import Shelf, place
from syncd.store.shelf_remote import open_shelf

# Longer than a file is allowed to take: what is being fetched is nobody else's, what a killed process took soon is.
_FETCH_S, _TAKEN_S = 120.0, 300.0


async def pull_files(context: Context, stream: Stream, run: Run, budget: int | None) -> Ending | Trouble:
    """Fetch the PDFs that are due. The run is left open: its ending says how it went."""
    assert context.policy.files is not None, "nobody pulls files without a place for them"
    filing = _Filing(context, stream, open_shelf(context.policy.files))
    try:
        return await filing.all_due(budget)
    except InfrastructureError as full:  # of the disk: no invoice's fault, and no reason to stop other streams
        return Ending(RunStatus.FAILED, filing.written, filing.requests, str(full))


class _Filing:
    """One run, and what it has come to so far."""

    def __init__(self, context: Context, stream: Stream, shelf: Shelf) -> None:
        self._context, self._stream, self._shelf = context, stream, shelf
        self.written, self.requests, self.news = Written(), 0, 0

    async def all_due(self, budget: int | None) -> Ending | Trouble:
        context = self._context
        await asyncio.to_thread(self._shelf.tidy, context.clock.now())
        async with context.store.begin() as connection:
            due = await invoice_files.due(connection, context.account.id, context.clock.now(), budget)
        for count, invoice in enumerate(due, start=1):
            trouble = await self._one(invoice)
            if trouble is not None and trouble.ends_the_run:
                return replace(trouble, requests=self.requests, written=self.written)
            context.progressed(self._stream.name, count, 0, done=count, total=len(due))
        return self._ending()

    async def _one(self, invoice: Wanted) -> Trouble | None:
        context, now = self._context, self._context.clock.now()
        async with context.store.begin() as connection:
            taken = await invoice_files.take(connection, invoice.id, now, now + timedelta(seconds=_TAKEN_S))
        if taken is None:
            return None
        path = place(context.account.name, invoice.number, is_credit=invoice.is_credit)
        if taken.before is not None and await asyncio.to_thread(self._shelf.holds, path, taken.before.sha256):
            await self._keep(invoice, path, taken.before)
            return None
        trouble = await self._fetch(invoice, path)
        if trouble is not None:
            await self._fail(invoice, taken, trouble)
        return trouble

    async def _fetch(self, invoice: Wanted, path: str) -> Trouble | None:
        context = self._context
        now = corrected(context.clock.now(), context.transport.clock_skew_s)
        limit_s = context.policy.time_limit_s or _FETCH_S
        timed = replace(context, policy=replace(context.policy, time_limit_s=limit_s))
        async with AsyncExitStack() as stack:
            arguments = StreamArguments(now=now, key=invoice.number)
            fetched = await fetch(timed, self._stream, arguments, stack, most_bytes=context.policy.file_bytes)
            self.requests += fetched.requests
            if isinstance(fetched, Trouble):
                return fetched
            try:
                await self._file(invoice, path, fetched.responses[0])
            except MalformedAnswer as malformed:
                return Trouble(str(malformed))
        return None

    async def _file(self, invoice: Wanted, path: str, response: Response) -> None:
        """Check, write, write down, move, keep: in this order. Raises MalformedAnswer before anything is written."""
        (decoded,) = self._stream.decode(response)
        content_type = decoded.rows[0].record.content_type
        draft = await asyncio.to_thread(self._shelf.draft, path, response.chunks())
        content = Content(draft.sha256, draft.size_bytes, content_type)
        try:
            async with self._context.store.begin() as connection:
                await invoice_files.announce(connection, invoice.id, content)
            await asyncio.to_thread(self._shelf.publish, draft)
        except BaseException:
            draft.file.unlink(missing_ok=True)
            raise
        await self._keep(invoice, path, content)

    async def _keep(self, invoice: Wanted, path: str, content: Content) -> None:
        async with self._context.store.begin_remote() as connection:
            is_kept = await invoice_files.keep(connection, invoice.id, path, content)
        if is_kept:
            self.written += Written(1, inserted=1)
        else:  # erased while it was fetched
            await asyncio.to_thread(self._shelf.remove, path)

    async def _fail(self, invoice: Wanted, taken: Taken, trouble: Trouble) -> None:
        self.news += trouble.is_news_at(taken.attempts)
        self.written = self.written.warned(f"PDF of invoice {invoice.number}: {trouble.reason}")
        next_at = next_try(self._context, taken.attempts, trouble)
        async with self._context.store.begin() as connection:
            await invoice_files.fail(connection, invoice.id, trouble.reason, next_at)

    def _ending(self) -> Ending:
        """A file that failed waits or is given up by itself: only a run without any success is a failed run, and only
        if a failure of it is news."""
        if self.news and not self.written.inserted:
            return Ending(RunStatus.FAILED, self.written, self.requests, self.written.warnings[0])
        return Ending(RunStatus.SUCCEEDED, self.written, self.requests)
