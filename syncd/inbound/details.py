"""Follow-up: the detail of each new normal invoice, one call each, with its own tries and its own waiting.

The list's coverage never waits for it. Credit invoices have no detail call and are never asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from syncd.domain.errors import KeyVanished, MalformedAnswer
from syncd.domain.records import Row
from syncd.inbound.context import Context
from syncd.inbound.fetch import Trouble, fetch
from syncd.inbound.snapshot import read_whole
from syncd.policy.states import RunStatus
from syncd.policy.windows import corrected
from syncd.providers.contract import Stream, StreamArguments
from syncd.store import followup, inspecting, readings
from syncd.store.followup import Due
from syncd.store.mirror import Written, invoice_details
from syncd.store.runs import Ending, Run

_LONGEST_WAIT_S = 86400.0


async def pull_details(context: Context, stream: Stream, run: Run, budget: int | None) -> Ending | Trouble:
    """Ask for the details that are due. The run is left open: its ending says how it went."""
    due = await _due(context, budget)
    written, failures, news = Written(), 0, 0
    for count, invoice in enumerate(due, start=1):
        if context.inspection is not None and not await context.inspection.admits(invoice):
            break
        found = await _ask(context, stream, invoice)
        if isinstance(found, Trouble) and found.ends_the_run:
            if found.is_unauthorised:  # perhaps for this invoice alone: it waits, so that the others get their turn
                await _fail(context, run, invoice, found)
            return replace(found, requests=count, written=written)
        if isinstance(found, Trouble):
            failures += 1
            news += found.is_news_at(invoice.attempts)
            written = written.warned(f"invoice {invoice.key}: {found.reason}")
            await _fail(context, run, invoice, found)
        else:
            written += await _write(context, run, invoice, found)
        context.progressed(stream.name, count, 0, done=count, total=len(due))
    return _ending(written, len(due), failures, news)


async def _due(context: Context, budget: int | None) -> Sequence[Due]:
    if context.inspection is not None:
        return context.inspection.due
    async with context.store.begin() as connection:
        return await followup.due_details(connection, context.account.id, context.clock.now(), budget)


async def _ask(context: Context, stream: Stream, invoice: Due) -> Row[Any] | Trouble:
    now = corrected(context.clock.now(), context.transport.clock_skew_s)
    async with AsyncExitStack() as stack:
        fetched = await fetch(context, stream, StreamArguments(now=now, key=invoice.key), stack)
        if isinstance(fetched, Trouble):
            return fetched
        try:
            whole = read_whole(context, stream, fetched)
            context.drift.believe()
        except KeyVanished:
            raise  # of all answers, not of this invoice: its tries are not used up
        except MalformedAnswer as malformed:
            return Trouble(str(malformed))
        return _only(whole.rows)


def _only(rows: Sequence[Row[Any]]) -> Row[Any] | Trouble:
    return rows[0] if rows else Trouble("the CRM knows no such invoice", is_absent=True, may_retry=False)


async def _fail(context: Context, run: Run, invoice: Due, trouble: Trouble) -> None:
    async with context.store.begin_remote() as connection:
        if context.inspection is not None:  # it has its detail: what failed is the look, which has its turn again
            await readings.note_read(connection, context.scope(run), "invoice_details", [invoice.id])
            if trouble.is_absent:
                await context.inspection.vanished(connection, context.scope(run), invoice.id)
            return
        await followup.fail_detail(
            connection, run.id, invoice.id, trouble.reason, next_try(context, invoice.attempts, trouble)
        )


def next_try(context: Context, attempts: int, trouble: Trouble) -> datetime | None:
    """Return when to ask again; None when it cannot be asked for or has been tried often enough.

    A refusal is asked about again as well, only later: a gateway's "not found" looks no different, and passes.
    """
    policy = context.policy
    if not trouble.requests or attempts + 1 >= policy.detail_attempts:
        return None
    first_s = policy.detail_backoff_s if trouble.may_retry else policy.refusal_backoff_s
    wait_s = min(_LONGEST_WAIT_S, first_s * 2**attempts)
    return context.clock.now() + timedelta(seconds=wait_s * (0.5 + context.clock.random() / 2))


async def _write(context: Context, run: Run, invoice: Due, row: Row[Any]) -> Written:
    scope, inspection = context.scope(run), context.inspection
    async with context.store.begin_remote() as connection:
        is_said = await inspecting.is_detail_said(connection, invoice.id, row.raw) if inspection is not None else None
        written = await invoice_details.write(connection, scope, invoice.id, row)
        await readings.note_proof(connection, scope, "invoice_details", [] if row.warnings else [invoice.id])
        if inspection is not None and is_said is not None:
            await inspection.judge_detail(connection, scope, invoice.id, is_said_before=is_said)
        return written


def _ending(written: Written, due: int, failures: int, news: int) -> Ending:
    """A detail that failed waits or has failed for good by itself: only a run without any success is a failed run, and
    only if a failure of it is news."""
    if news and failures == due:
        return Ending(RunStatus.FAILED, written, due, written.warnings[0])
    return Ending(RunStatus.SUCCEEDED, written, due)
