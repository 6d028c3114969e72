"""Sweep: what can only be asked for one parent at a time. The recently active come first, then those
read longest ago, within a budget.

A few small answers are fetched, then written in one transaction; a group is written by itself, because it may be
large. One parent that cannot be read does not stop the others: its turn is over, it is counted, and the run says so.
Several in a row do stop it, and so does a refusal that would meet every parent alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime

from syncd.domain.doubts import Doubt, DoubtKind
from syncd.domain.errors import KeyVanished, MalformedAnswer, ShapeChanged
from syncd.inbound.context import Context
from syncd.inbound.doubting import Misgivings, TooMuch
from syncd.inbound.fetch import Trouble, fetch
from syncd.inbound.parents import ADDRESSES, SINGLE, Shown, is_about, proves, refused_of, write_group, write_shown
from syncd.inbound.snapshot import read_whole
from syncd.policy.states import RunStatus
from syncd.policy.windows import corrected
from syncd.providers.contract import Stream, StreamArguments
from syncd.store import Connection, followup, readings, run_holds, runs, unread, unsettled
from syncd.store.followup import Due
from syncd.store.mirror import Scope
from syncd.store.mirror.scope import MAX_WARNINGS, NOTHING, Written
from syncd.store.mirror.touched import holders, other_holder
from syncd.store.runs import Ending, Run

# As many parents may be found empty without a witness when there is none.
_FEW = 3


@dataclass(slots=True)
class _Tally:
    """What a sweep has come to so far. ``strikes`` are failures in a row; as many as ``most_strikes`` are the end."""

    most_strikes: int
    misgivings: Misgivings
    due: int
    asked: int = 0
    shown: int = 0
    emptied: Doubt | None = None
    has_new_shape: bool = False
    record: bytes = b""
    written: Written = NOTHING
    requests: int = 0
    failed: int = 0
    strikes: int = 0
    reason: str | None = None
    ended_by: Trouble | None = None
    is_struck_out: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_struck_out or self.ended_by is not None

    def fail(self, reason: str) -> None:
        self.failed += 1
        self.strikes += 1
        self.is_struck_out = self.is_struck_out or self.strikes >= self.most_strikes
        self.reason = self.reason or reason

    def succeed(self, written: Written = NOTHING) -> None:
        self.strikes = 0
        self.written += written


async def pull_sweep(context: Context, stream: Stream, run: Run, budget: int | None) -> Ending | Trouble:
    """Ask for the due parents of a stream. The run is left open: its ending says how it went."""
    due = await _due(context, stream, budget)
    tally = _Tally(context.policy.strikes, Misgivings(run, [one.id for one in due]), len(due))
    for part in _parts(due, 1 if stream.name == "group_members" else context.policy.sweep_batch):
        await _pull_part(context, stream, run, part, tally)
        if tally.ended_by is not None:
            return replace(tally.ended_by, requests=tally.requests, written=tally.written)
        if tally.is_struck_out:
            break
    return _ending(tally, len(due))


async def _due(context: Context, stream: Stream, budget: int | None) -> Sequence[Due]:
    """Return what to ask for: the orders of those with something unsettled, of everything else all in turn; without a
    budget (a backfill) whatever is not proven, and addresses always so; an inspection says itself what it asks for."""
    if context.inspection is not None:
        return context.inspection.due
    account_id = context.account.id
    async with context.store.begin() as connection:
        if stream.records == "Order" and budget is not None:
            since = unsettled.since(context.clock.now(), context.policy.unpaid_days)
            return await unsettled.due(connection, account_id, stream.name, since, budget)
        proven_s = context.policy.proven_s if budget is None or stream.name == ADDRESSES else None
        return await followup.due_keys(connection, account_id, stream.name, budget, proven_s)


def _parts(due: Sequence[Due], size: int) -> Iterator[Sequence[Due]]:
    for start in range(0, len(due), size):
        yield due[start : start + size]


async def _pull_part(context: Context, stream: Stream, run: Run, part: Sequence[Due], tally: _Tally) -> None:
    """Fetch a few parents, then write them in one transaction."""
    asked_at = context.clock.now()
    scope = replace(context.scope(run), asked_at=await _database_now(context))
    shown: list[Shown] = []
    tried: list[int] = []
    async with AsyncExitStack() as stack:
        for due in part:
            if context.inspection is not None and not await context.inspection.admits(due):
                break
            answer = await _ask(context, stream, due, stack, tally)
            tally.asked += 1
            context.progressed(stream.name, tally.written.received, 0, done=tally.asked, total=tally.due)
            if tally.ended_by is None or tally.ended_by.is_unauthorised:
                tried.append(due.id)  # what only this parent is refused for must not be asked for first for ever
            if answer is not None:
                shown.append(answer)
                if len(part) > 1:  # one parent by itself has succeeded when it is written
                    tally.succeed()
            if tally.is_over:
                break
        if stream.name in SINGLE and shown and not any(answer.rows for answer in shown):
            shown = shown if await _is_confirmed(context, stream, tried, stack, tally) else []
        if not await _is_credible(context, stream, shown, tried, stack, tally):
            return
        await _write_part(context, stream, scope, shown, tried, asked_at, tally)


async def _database_now(context: Context) -> datetime:
    async with context.store.begin() as connection:
        return await runs.database_now(connection)


async def _ask(context: Context, stream: Stream, due: Due, stack: AsyncExitStack, tally: _Tally) -> Shown | None:
    """Fetch and decode one parent's answer; None when it failed, which the tally then knows."""
    now = corrected(context.clock.now(), context.transport.clock_skew_s)
    fetched = await fetch(context, stream, StreamArguments(now=now, key=due.key), stack)
    tally.requests += fetched.requests
    if isinstance(fetched, Trouble):
        if fetched.is_absent:
            return Shown(due, is_absent=True)
        if fetched.ends_the_run:
            tally.ended_by = fetched
        else:
            tally.fail(fetched.reason)
        return None
    try:
        whole = await asyncio.to_thread(read_whole, context, stream, fetched)
    except MalformedAnswer as malformed:
        tally.fail(str(malformed))
        if isinstance(malformed, ShapeChanged):
            tally.has_new_shape, tally.record = True, tally.record or malformed.record
        return None
    if not is_about(stream, due, whole.rows):
        tally.fail("asked for one e-mail address, the CRM answered with a relation of another one")
        return None
    return Shown(due, tuple(whole.rows), whole.warnings, whole.refused)


async def _is_confirmed(
    context: Context, stream: Stream, absent: Sequence[int], stack: AsyncExitStack, tally: _Tally
) -> bool:
    """Ask for a relation that must be there, when none of those asked for is said to be; end the sweep if it is not.

    A call that has moved, or a gateway in front of it, says "not found" of everyone.
    """
    async with context.store.begin() as connection:
        living = await followup.living_relation(connection, context.account.id, stream.name, absent)
    if living is None and stream.name == ADDRESSES:
        return True  # nobody is known yet, and that nobody has an address deletes nothing
    answer = None if living is None or tally.is_over else await _ask(context, stream, living, stack, tally)
    if answer is not None and answer.rows:
        return True
    tally.fail("none of the relations asked for is known to the CRM, nor one that must be: not believed")
    tally.is_struck_out = True
    if stream.name != ADDRESSES:  # of an address nothing is mirrored yet that could be gone
        tally.emptied = Doubt(DoubtKind.EMPTIED, len(absent), missing=len(absent), may_approve=False)
    return False


async def _is_credible(
    context: Context, stream: Stream, shown: Sequence[Shown], tried: Sequence[int], stack: AsyncExitStack, tally: _Tally
) -> bool:
    """Tell whether to believe that nobody holds anything any more: another who must hold something testifies.

    A call that has gone wrong answers an empty list for everyone, and each by itself looks like an ordinary removal.
    """
    tally.shown += sum(len(answer.rows) for answer in shown)
    if tally.shown or tally.is_over:
        return True
    async with context.store.begin() as connection:
        parents, _ = await holders(
            connection, context.account.id, stream.name, [one.due.id for one in shown if not one.is_absent]
        )
        if parents == 0:
            return True
        other = await other_holder(connection, context.account.id, stream.name, tried)
        _, held = await holders(connection, context.account.id, stream.name, tally.misgivings.parents)
    answer = None if other is None else await _ask(context, stream, other, stack, tally)
    if answer is not None and answer.rows:
        tally.shown += len(answer.rows)
        return True
    if (other is None and parents <= _FEW) or tally.is_over:
        return True
    return await _is_allowed(context, Doubt(DoubtKind.EMPTIED, held, missing=held), tally)


async def _is_allowed(context: Context, doubt: Doubt, tally: _Tally) -> bool:
    """Tell whether a person has allowed the emptiness; end the sweep if nobody has."""
    run = tally.misgivings.run
    async with context.store.begin() as connection:
        if await run_holds.permits(connection, run, doubt):
            tally.misgivings.allowed, tally.misgivings.may_empty = doubt, True
            tally.shown += 1
            return True
    tally.fail(f"{doubt.sentence}: not believed, nothing was written")
    tally.emptied, tally.is_struck_out = doubt, True
    return False


async def _write_part(
    context: Context,
    stream: Stream,
    scope: Scope,
    shown: Sequence[Shown],
    tried: Sequence[int],
    asked_at: datetime,
    tally: _Tally,
) -> None:
    if not tried:
        return
    try:
        context.drift.believe()
        async with context.store.begin_remote() as connection:
            await runs.lock_stream(connection, scope.account_id, stream.name)
            there = await followup.hold(connection, stream.name, tried)
            fresh = there - await readings.fresher(connection, scope, stream.name, tried, asked_at)
            news = [answer for answer in shown if answer.due.id in fresh]
            before = await context.inspection.look(connection, news) if context.inspection else None
            if stream.name == "group_members":
                written = await write_group(context, connection, scope, news, tally.misgivings)
            else:
                written = await write_shown(context, connection, scope, stream, news)
            await unread.keep_of_parents(connection, scope, stream.name, refused_of(news))
            done = await tally.misgivings.believe_rewrite(context, connection, scope)
            await readings.note_read(connection, scope, stream.name, [one for one in tried if one in there])
            if context.inspection is not None and before is not None:
                proven = await context.inspection.judge(connection, scope, stream, news, before)
            else:
                proven = await _proven(context, connection, scope, stream, news, written)
            await readings.note_proof(connection, scope, stream.name, proven)
    except TooMuch:
        return
    except MalformedAnswer as refused:
        tally.fail(str(refused))
        tally.is_struck_out = tally.is_struck_out or isinstance(refused, KeyVanished)
        await _pass_over(context, stream, scope, tried)
        return
    tally.misgivings.done = done
    if shown:
        tally.succeed(written)


async def _proven(
    context: Context, connection: Connection, scope: Scope, stream: Stream, news: Sequence[Shown], written: Written
) -> list[int]:
    """Return the parents that these answers prove, now that they are written.

    A note on a value ("came twice that night") is the reading of it, and takes nothing away. Anything else that was
    said, or put off, concerns a few of them: whom, is found by writing each by itself again, which changes nothing.
    """
    able = [answer for answer in news if proves(stream, answer)]
    if stream.name != "group_members" and _is_doubtful(news, written):
        return [
            answer.due.id
            for answer in able
            if not _is_doubtful([answer], await write_shown(context, connection, scope, stream, [answer]))
        ]
    return [] if _is_doubtful(news, written) else [answer.due.id for answer in able]


def _is_doubtful(news: Sequence[Shown], written: Written) -> bool:
    notes = {note for answer in news for row in answer.rows for note in row.warnings}
    is_cut = len(written.warnings) >= MAX_WARNINGS
    return written.deferred > 0 or is_cut or not notes.issuperset(written.warnings)


async def _pass_over(context: Context, stream: Stream, scope: Scope, tried: Sequence[int]) -> None:
    """End the turn of parents whose answer was not believed: all others would wait behind them for ever."""
    async with context.store.begin() as connection:
        await readings.note_read(connection, scope, stream.name, tried)


def _ending(tally: _Tally, due: int) -> Ending:
    doubt = tally.emptied or tally.misgivings.doubt
    if tally.misgivings.undone is not None and tally.emptied is None:
        told = f"{tally.misgivings.undone.sentence}: it stopped writing before that"
        return Ending(RunStatus.HELD, tally.written, tally.requests, told, doubt=doubt)
    if not tally.failed:
        return Ending(RunStatus.SUCCEEDED, tally.written, tally.requests)
    reason = f"{tally.failed} of {due} could not be read: {tally.reason}"
    return Ending(
        RunStatus.FAILED,
        tally.written,
        tally.requests,
        reason,
        doubt=doubt,
        has_new_shape=tally.has_new_shape,
        record=tally.record,
    )
