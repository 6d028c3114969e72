"""Window: orders and invoices, asked by time, proven by time.

Fetch; then one transaction decodes, diffs and writes batch by batch, hears the witnesses, proves coverage and closes
the run. Anything wrong on the way undoes all of it, and the hole stays to be asked for again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Protocol

from syncd.domain.records import Refused, Row
from syncd.inbound.ahead import Ready, Unread, batches
from syncd.inbound.context import Context, NotBelieved, Progress
from syncd.inbound.doubting import absence, believe, believe_rewrite
from syncd.inbound.fetch import Fetched, Trouble, fetch
from syncd.policy import ladder, lateness, windows, witness
from syncd.policy.coverage import Interval
from syncd.policy.states import RunStatus
from syncd.policy.windows import Plan, corrected, plan, proven_by
from syncd.providers.contract import Stream, StreamArguments
from syncd.store import Connection, coverage, rungs, runs, unread
from syncd.store.lateness import Appeared, learned, measure
from syncd.store.mirror import Gone, Scope, Written, absent_orders, invoices, orders, proving
from syncd.store.mirror.scope import Seen
from syncd.store.mirror.touched import mark_missing
from syncd.store.runs import Ending, Run

_SKEWED = "the CRM's clock is too far off, or moved during the run: the rows are kept, but no time is proven"


class WindowKind(Protocol):
    """How one kind of record is prepared and written: a module of ``store.mirror``."""

    TABLE: str

    def prepare(self, rows: Sequence[Row[Any]]) -> Any: ...

    async def write(self, connection: Connection, scope: Scope, batch: Any, seen: Seen) -> Written: ...

    async def gone(
        self, connection: Connection, scope: Scope, span: Interval, seen: Seen, *, is_empty_answer: bool
    ) -> Gone: ...


KINDS: Mapping[str, WindowKind] = {"Order": orders, "Invoice": invoices}


@dataclass(frozen=True, slots=True)
class Asked:
    """A window as it was asked for: our own time and the skew known just before. ``climbed_s`` is the rung of the
    ladder that it was widened for, 0 if it was not."""

    plan: Plan
    arguments: StreamArguments
    complete_from: datetime
    started_at: datetime
    skew_s: float | None
    is_history: bool
    climbed_s: float = 0

    @property
    def now(self) -> datetime:
        """The CRM's time just before."""
        return self.arguments.now


async def plan_window(
    context: Context, stream: Stream, reach_s: float, since: datetime | None, *, climbs: bool = False
) -> Asked:
    """Decide from when to ask; ``since`` widens the horizon (a backfill), ``climbs`` takes the ladder's due rung."""
    started_at, skew_s = context.clock.now(), context.transport.clock_skew_s
    now, rule = corrected(started_at, skew_s), context.policy.window
    async with context.store.begin() as connection:
        proven = await coverage.proven(connection, context.account.id, stream.name)
        seen = await learned(connection, context.account.id, stream.name, now)
        climbed_s = await _climb(context, connection, stream, now) if climbs else 0.0
    rule = replace(rule, overlap_s=lateness.overlap_s(seen, rule.overlap))
    if since is not None:
        rule = replace(rule, horizon_s=max(0.0, (now - since).total_seconds()))
    planned = plan(proven, now, rule, max(reach_s, climbed_s))
    arguments = StreamArguments(now=now, asked_from=planned.asked_from)
    complete_from = stream.covers_from(arguments) if stream.covers_from else planned.asked_from
    return Asked(planned, arguments, complete_from, started_at, skew_s, since is not None, climbed_s)


async def _climb(context: Context, connection: Connection, stream: Stream, now: datetime) -> float:
    """Return the reach of the widest rung that is due, and note that it is tried."""
    stands = await rungs.footings(connection, context.account.id, stream.name)
    reach_s = ladder.reach_due_s(context.policy.ladder, stands, now)
    if reach_s:
        await rungs.note_tried(connection, context.account.id, stream.name, reach_s, now)
    return reach_s


async def pull_window(context: Context, stream: Stream, run: Run, asked: Asked) -> Ending | Trouble:
    """Pull a window; the run is closed in the same transaction when it succeeds."""
    async with AsyncExitStack() as stack:
        fetched = await fetch(context, stream, asked.arguments, stack)
        if isinstance(fetched, Trouble):
            return fetched
        skew_s = context.transport.latest_skew_s
        span = proven_by(asked.complete_from, asked.started_at, asked.skew_s, skew_s, context.policy.window)
        async with context.store.begin_remote() as connection:
            await claim_stream(connection, run, is_history=asked.is_history)
            seen = Seen()
            written = await _write(context, connection, stream, run, fetched, span, seen)
            await believe_rewrite(context, connection, context.scope(run), run, written, absent=written.missing)
            await context.drift.write(connection, run)
            if span is not None:
                await _prove(context, connection, stream, run, asked, span, seen)
            ending = _ending(asked, span, written, fetched)
            await runs.finish(connection, run, ending)
            return ending


async def claim_stream(connection: Connection, run: Run, *, is_history: bool = False) -> None:
    """Write a stream alone, and only with an answer that is no older than what is written.

    An answer about history takes longer than the daemon's rounds beside it. It is not refused for them: each row that
    they wrote since it was asked for stays as they left it.
    """
    await runs.lock_stream(connection, run.account_id, run.stream)
    if not is_history and await runs.has_newer(connection, run):
        raise NotBelieved("an answer that was asked for later has been written meanwhile; this one is stale")


async def _prove(
    context: Context, connection: Connection, stream: Stream, run: Run, asked: Asked, span: Interval, seen: Seen
) -> None:
    """Measure what came late, then prove the time, and note which rungs of the ladder this read has kept."""
    account_id, rule = context.account.id, context.policy.window
    await measure(connection, account_id, Appeared(stream.name, stream.records, seen.new, asked.now))
    latest = windows.latest(asked.started_at, asked.skew_s, context.transport.latest_skew_s, rule)
    await coverage.prove(connection, account_id, stream.name, span, run.id, None if asked.is_history else latest)
    reaches = ladder.kept(context.policy.ladder, asked.plan.asked_from, asked.now)
    await rungs.note_read(connection, account_id, stream.name, reaches, asked.now)


async def _write(
    context: Context,
    connection: Connection,
    stream: Stream,
    run: Run,
    fetched: Fetched,
    span: Interval | None,
    seen: Seen,
) -> Written:
    kind, scope = KINDS[stream.records], context.scope(run)
    written, digests, keys = Written(), list[bytes](), list[str]()
    async with batches(
        stream, fetched.responses, kind.prepare, context.policy.batch_rows, context.drift.watch
    ) as parts:
        async for part in parts:
            async for more, refused in _write_part(context, connection, kind, scope, part, seen):
                written += more
                digests += unread.digests(refused)
                keys += [one.key for one in refused if one.key is not None]
                await unread.keep(connection, scope, stream.name, refused)
                share_read = fetched.share_read()
                context.tell(Progress(stream.name, written.received, fetched.size_bytes, share_read=share_read))
    context.drift.believe()
    await unread.forget_shown(connection, scope, kind.TABLE, chain(seen.ids, seen.new), digests)
    if stream.records == "Order":
        await absent_orders.forget_shown(connection, scope, seen.ids)
        written = written.warned(*await proving.by_orders(connection, scope, seen))
    if span is None:
        return written.warned(_SKEWED)
    witnessed = Interval(span.lower, span.upper + timedelta(seconds=2 * context.policy.window.margin_s))
    # A row that is shown and cannot be read is not gone, yet it proves nothing.
    seen.ids.extend(await unread.mirrored(connection, scope, kind.TABLE, keys))
    return written + await _testify(context, connection, stream, run, scope, witnessed, seen, written.received)


async def _write_part(
    context: Context, connection: Connection, kind: WindowKind, scope: Scope, part: Ready | Unread, seen: Seen
) -> AsyncIterator[tuple[Written, Sequence[Refused]]]:
    """Write one batch; of an unread one only what the mirror does not hold to the letter. Yield also what cannot be
    read."""
    if isinstance(part, Ready):
        scope = replace(scope, is_strange=context.drift.is_strange)
        yield (await kind.write(connection, scope, part.batch, seen)).warned(*part.warnings), part.refused
        return
    chosen = await orders.familiar(connection, scope, part.keys, part.seals, seen)
    part.habit.learn(len(chosen), len(part.keys))
    known = len(part.keys) - len(chosen)
    context.drift.pass_over(known)
    yield Written(received=known, unchanged=known), ()
    for start in range(0, len(chosen), context.policy.batch_rows):
        ready = await part.read(chosen[start : start + context.policy.batch_rows])
        yield (await kind.write(connection, scope, ready.batch, seen)).warned(*ready.warnings), ready.refused


async def _testify(
    context: Context,
    connection: Connection,
    stream: Stream,
    run: Run,
    scope: Scope,
    span: Interval,
    seen: Seen,
    received: int,
) -> Written:
    """Hold the answer against the rows known in its window. Raises Doubted when too many are gone; those that are gone
    by a person's word are marked missing.

    Witnesses are younger than what is proven, too: a row that an earlier answer showed cannot be too new for this one.
    """
    gone = await KINDS[stream.records].gone(connection, scope, span, seen, is_empty_answer=received == 0)
    lost = len(gone.keys)
    match witness.judge(gone.known, lost, received, context.policy.window_witness):
        case witness.Verdict.BELIEVED:
            return Written()
        case witness.Verdict.CONFIRM:
            lacking = ", ".join(gone.keys[:5])
            told = f"{lost} of {gone.known} known rows are not in the answer and are kept as they are: {lacking}"
            return Written(warnings=(told,))
        case witness.Verdict.REFUSED:
            await believe(connection, run, absence(gone.known, lost, received))
            table = KINDS[stream.records].TABLE
            return Written(missing=await mark_missing(connection, scope, table, gone.ids))


def _ending(asked: Asked, span: Interval | None, written: Written, fetched: Fetched) -> Ending:
    return Ending(
        RunStatus.SUCCEEDED,
        written,
        fetched.requests,
        asked_from=asked.plan.asked_from,
        asked_upto=span.upper if span else None,
    )
