"""The puller: one stream, or everything in the right order, for one account.

This is the one boundary at which whatever went wrong becomes the ending of a run and a report; nothing below it
decides what a failure means for the account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import Fenced, MalformedAnswer, ShapeChanged, SyncdError, UserError
from syncd.domain.reports import RunReport
from syncd.inbound import doubting
from syncd.inbound.canary import held
from syncd.inbound.context import Context, Progress
from syncd.inbound.details import pull_details
from syncd.inbound.drift import Drift
from syncd.inbound.fetch import Trouble, judged
from syncd.inbound.files import pull_files
from syncd.inbound.inspection import Inspection
from syncd.inbound.policy import PullPolicy
from syncd.inbound.snapshot import pull_snapshot
from syncd.inbound.sweep import pull_sweep
from syncd.inbound.window import Asked, plan_window, pull_window
from syncd.policy.states import RunStatus
from syncd.providers.contract import Provider, Stream, StreamKind
from syncd.store import Connection, Store, account_states, run_holds, runs
from syncd.store.runs import Ending, Run
from syncd.transport import Transport

# Names before what bears them: tags before the tags of relations, groups before members, invoices before details.
ORDER = (
    "administration",
    "fields",
    "tags",
    "groups",
    "lists",
    "group_members",
    "orders",
    "invoices",
    "invoice_details",
    "invoice_files",
    "invoice_relations",
    "relation_details",
    "relation_tags",
    "relation_subscriptions",
    "relation_orders",
)
PER_RELATION = ("relation_details", "relation_tags", "relation_subscriptions", "relation_orders")
FILES = "invoice_files"  # on request: without a place for them it is not among the streams that are pulled

_AGAIN = "syncd asks again by itself, ever more rarely, and goes on when it is answered"
_REFUSED = f"check the account's credentials; {_AGAIN}"
_GONE = f'everything there is "not found": check SYNCD_BASE_URL; {_AGAIN}'
_VANISHED = f"check SYNCD_BASE_URL, the network and the CRM's own state; {_AGAIN}"
_UNREACHED_RUNS = 3


class Puller:
    """Pulls one account. ``report`` is called with every run's report, also those of ``pull_all`` and ``backfill``."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        transport: Transport,
        clock: Clock,
        account: Account,
        policy: PullPolicy,
        report: Callable[[RunReport], None],
    ) -> None:
        self._context = Context(store, provider, transport, clock, account, policy)
        self._report = report

    async def recover(self) -> int:
        """Declare abandoned what a killed process left running; return how many runs. For the start of a daemon."""
        async with self._context.store.begin() as connection:
            return await runs.abandon(connection, self._context.account.id)

    async def pull(
        self, stream: str, trigger: str = "manual", *, reach_s: float = 0, climbs: bool = False
    ) -> RunReport:
        """Pull one stream. A window reaches back at least ``reach_s`` and, if it ``climbs``, as far as the widest rung
        of the cadence ladder that is due. Raises UserError for a stream that is none."""
        return await self._pull(self._context, self._stream(stream), trigger, reach_s=reach_s, climbs=climbs)

    async def inspect(self, stream: str, inspection: Inspection) -> RunReport:
        """Pull what an inspection asks for, through the same pipeline as ever, and let it watch."""
        report = await self._pull(replace(self._context, inspection=inspection), self._stream(stream), "audit")
        if report.run_id is not None:
            run = Run(report.run_id, self._context.account.id, stream, self._context.clock.now())
            async with self._context.store.begin() as connection:
                await inspection.close(connection, self._context.scope(run))
        return report

    async def pull_all(self, trigger: str = "manual") -> tuple[RunReport, ...]:
        """Pull every stream once, in the order in which they need each other; stop when the account is the trouble."""
        return await self._pull_each(self._context, self._known(ORDER), trigger)

    async def backfill(
        self,
        since: datetime,
        streams: Sequence[str] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        give_way: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[RunReport, ...]:
        """Read history back to ``since``; sweeps take every parent. What is proven already is not asked for again, be
        it by this process or by one that was killed. ``give_way`` is awaited before each request."""
        context = replace(self._context, on_progress=on_progress, give_way=give_way)
        return await self._pull_each(context, self._known(streams or ORDER), "backfill", since=since)

    def order_of(self, streams: Sequence[str]) -> tuple[str, ...]:
        """Return the streams that a backfill of these names (empty: all) takes, in its order."""
        return tuple(stream.name for stream in self._known(streams or ORDER))

    def _known(self, names: Sequence[str]) -> tuple[Stream, ...]:
        """Return the streams of these names, those without which nothing else is readable first."""
        if names is not ORDER:
            return tuple(self._stream(name) for name in sorted(names, key=_position))
        streams = self._context.provider.streams
        return tuple(streams[name] for name in ORDER if name in streams and (name != FILES or self._keeps_files))

    @property
    def _keeps_files(self) -> bool:
        return self._context.policy.files is not None

    def _stream(self, name: str) -> Stream:
        streams = self._context.provider.streams
        if name not in streams:
            raise UserError(f"there is no stream called {name!r}; there are: {', '.join(sorted(streams))}")
        if name == FILES and not self._keeps_files:
            raise UserError("PDFs of invoices are kept nowhere; SYNCD_INVOICE_FILES names the directory for them")
        return streams[name]

    async def _pull_each(
        self, context: Context, streams: Sequence[Stream], trigger: str, since: datetime | None = None
    ) -> tuple[RunReport, ...]:
        reports: list[RunReport] = []
        for stream in streams:
            reports.append(await self._pull(context, stream, trigger, since=since))
            if reports[-1].is_fault or reports[-1].run_id is None:
                break  # the account is the trouble, or held: every other stream would say the same
        return tuple(reports)

    async def _pull(
        self,
        context: Context,
        stream: Stream,
        trigger: str,
        *,
        reach_s: float = 0,
        since: datetime | None = None,
        climbs: bool = False,
    ) -> RunReport:
        """Hold, plan, open the run, attempt it, close it, report."""
        context, started = replace(context, drift=Drift()), context.clock.monotonic()
        if (reason := await held(context)) is not None:
            return self._told(_refusal(context, stream, trigger, reason, started))
        is_window = stream.kind is StreamKind.WINDOW
        asked = await plan_window(context, stream, reach_s, since, climbs=climbs) if is_window else None
        run = await _open(context, stream, trigger, asked)
        ending, trouble = await _attempt(context, stream, run, asked, budget=_budget(context, since))
        trouble = await _narrowed(context, stream, trouble)
        await _note(context, trouble)
        return self._told(_report(context, stream, trigger, run, ending, trouble, started))

    def _told(self, report: RunReport) -> RunReport:
        self._report(report)
        return report


def _position(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _budget(context: Context, since: datetime | None) -> int | None:
    return context.policy.sweep_budget if since is None else None


async def _open(context: Context, stream: Stream, trigger: str, asked: Asked | None) -> Run:
    asked_from = asked.plan.asked_from if asked else None
    async with context.store.begin() as connection:
        run = await runs.start(connection, context.account.id, stream.name, trigger, asked_from)
        await context.drift.begin(connection, run, stream)
        return run


async def _attempt(
    context: Context, stream: Stream, run: Run, asked: Asked | None, budget: int | None
) -> tuple[Ending, Trouble | None]:
    """Run the stream's pipeline and close its run, whatever comes of it."""
    try:
        found = await _pipeline(context, stream, run, asked, budget)
    except doubting.Doubted as doubted:
        found = doubting.ending(doubted)
    except MalformedAnswer as refused:
        found = Ending(RunStatus.REFUSED, requests=1, reason=str(refused))
        if isinstance(refused, ShapeChanged):
            found = replace(found, has_new_shape=True, record=refused.record)
    except Fenced as fenced:
        return Ending(RunStatus.ABANDONED, reason=str(fenced)), None
    except asyncio.CancelledError:
        with suppress(SyncdError):  # without a database the run stays open until it is written off
            await _close(context, stream, run, Ending(RunStatus.ABANDONED, reason="it was stopped"))
        raise
    except Exception as error:
        await _close(context, stream, run, Ending(RunStatus.FAILED, reason=f"it ended by {type(error).__name__}"))
        raise
    trouble = found if isinstance(found, Trouble) else None
    ending = found if isinstance(found, Ending) else _failed(found)
    if ending.status is not RunStatus.SUCCEEDED or stream.kind in (StreamKind.SWEEP, StreamKind.FOLLOW_UP):
        ending = await _close(context, stream, run, ending)
    if ending.status is RunStatus.SUCCEEDED:
        async with context.store.at_once() as connection:
            await run_holds.note_well(connection, run.account_id, run.stream)
    return ending, trouble


async def _pipeline(
    context: Context, stream: Stream, run: Run, asked: Asked | None, budget: int | None
) -> Ending | Trouble:
    match stream.kind:
        case StreamKind.WINDOW:
            assert asked is not None
            return await pull_window(context, stream, run, asked)
        case StreamKind.SNAPSHOT:
            return await pull_snapshot(context, stream, run)
        case StreamKind.SWEEP:
            return await pull_sweep(context, stream, run, budget)
        case StreamKind.FOLLOW_UP if stream.name == FILES:
            return await pull_files(context, stream, run, budget)
        case StreamKind.FOLLOW_UP:
            return await pull_details(context, stream, run, budget)


def _failed(trouble: Trouble) -> Ending:
    return Ending(RunStatus.FAILED, trouble.written, trouble.requests, trouble.reason)


async def _close(context: Context, stream: Stream, run: Run, ending: Ending) -> Ending:
    """Close a run outside its writing transaction; somebody may have declared it abandoned meanwhile."""
    try:
        async with context.store.begin() as connection:
            ending = await doubting.asked(connection, run, ending)
            is_whole = stream.kind in (StreamKind.WINDOW, StreamKind.SNAPSHOT)
            await context.drift.write(connection, run, is_believed=not is_whole)
            await runs.finish(connection, run, ending)
    except Fenced as fenced:
        return replace(ending, status=RunStatus.ABANDONED, reason=str(fenced))
    return ending


async def _narrowed(context: Context, stream: Stream, trouble: Trouble | None) -> Trouble | None:
    """Let a refusal of one call alone be that stream's trouble: a safe read tells whether the credentials are good, and
    whether a whole collection that is not to be found is alone in that."""
    request = context.provider.probe()
    is_lost = trouble is not None and trouble.is_absent and stream.kind in (StreamKind.WINDOW, StreamKind.SNAPSHOT)
    if trouble is None or not (trouble.is_unauthorised or is_lost) or request.operation == stream.operation:
        return trouble
    response = judged(context, request.operation, await context.transport.send(request))
    if is_lost:
        return replace(trouble, is_gone=isinstance(response, Trouble) and response.is_absent)
    return trouble if isinstance(response, Trouble) else replace(trouble, is_unauthorised=False)


async def _note(context: Context, trouble: Trouble | None) -> None:
    """Write down what a trouble means for the whole account."""
    if trouble is None:
        return
    async with context.store.begin() as connection:
        if trouble.is_unauthorised:
            await account_states.pause(connection, context.account.id, f"{trouble.reason}; {_REFUSED}")
        elif trouble.is_gone:
            await account_states.pause(connection, context.account.id, f"{trouble.reason}; {_GONE}")
        elif trouble.is_unreachable:
            await _note_unreached(context, connection, trouble)
        elif trouble.throttled_s is not None:
            await account_states.throttle(connection, context.account.id, trouble.throttled_s)


async def _note_unreached(context: Context, connection: Connection, trouble: Trouble) -> None:
    """Pause an account whose host has been away for long; a short absence needs no more than the next round."""
    count, for_s = await runs.unreached(connection, context.account.id)
    if count >= _UNREACHED_RUNS and for_s >= context.policy.away_s:
        since = f"for {for_s / 60:.0f} minutes and {count} pulls"
        await account_states.pause(connection, context.account.id, f"{trouble.reason}, {since}; {_VANISHED}")


def _report(
    context: Context, stream: Stream, trigger: str, run: Run, ending: Ending, trouble: Trouble | None, started: float
) -> RunReport:
    written = ending.written
    return RunReport(
        run_id=run.id,
        account=context.account.name,
        stream=stream.name,
        trigger=trigger,
        status=ending.status.value,
        elapsed_s=context.clock.monotonic() - started,
        requests=ending.requests,
        received=written.received,
        inserted=written.inserted,
        updated=written.updated,
        unchanged=written.unchanged,
        missing=written.missing,
        deferred=written.deferred,
        warnings=written.warnings,
        reason=ending.reason,
        news=tuple(context.drift.told),
        asked_from=ending.asked_from,
        asked_upto=ending.asked_upto,
        is_fault=trouble is not None and trouble.is_fault,
        is_passing=trouble is not None and trouble.is_passing,
    )


def _refusal(context: Context, stream: Stream, trigger: str, reason: str, started: float) -> RunReport:
    """Report a pull that was not begun: no run, and no fault either; later, when the account is held no more, it may
    well work."""
    return RunReport(
        run_id=None,
        account=context.account.name,
        stream=stream.name,
        trigger=trigger,
        status=RunStatus.REFUSED.value,
        elapsed_s=context.clock.monotonic() - started,
        reason=reason,
        is_passing=True,
    )
