"""One account's backfill: read history beside the daemon, then say what is proven of it and what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from syncd.clock import Clock
from syncd.domain.reports import RunReport
from syncd.inbound import ORDER, PER_RELATION, Progress
from syncd.policy.coverage import Interval
from syncd.providers.contract import StreamKind
from syncd.service.accounts import AccountRuntime
from syncd.service.yielding import GiveWay
from syncd.store import backfilled
from syncd.store.backfilled import Standing

# The youngest time is the daemon's: a window proves up to a little before the request, and the next round goes on.
YOUNG = timedelta(minutes=15)


def chosen(streams: Sequence[str], *, relations: bool) -> tuple[str, ...]:
    """Return the streams to read: those named, else all but the ones that cost a call for each relation; those, too,
    with ``relations``."""
    named = tuple(streams) or tuple(stream for stream in ORDER if stream not in PER_RELATION)
    return tuple(dict.fromkeys((*named, *PER_RELATION))) if relations else named


def planned(runtime: AccountRuntime, streams: Sequence[str], *, named: bool) -> tuple[str, ...]:
    """Return the chosen streams that this account has, in the order in which they are read."""
    known = [stream for stream in runtime.puller.order_of(()) if stream in streams]
    return runtime.puller.order_of(streams) if named else tuple(known)


async def backfill(
    runtime: AccountRuntime,
    clock: Clock,
    since: datetime,
    streams: Sequence[str],
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[tuple[RunReport, ...], tuple[Standing, ...]]:
    """Read the history of these streams; live traffic goes first. Return what was done, and what is proven by now."""
    began_at = clock.now()
    give_way = GiveWay(runtime.store, clock, runtime.account.id)
    reports = await runtime.puller.backfill(since, streams, on_progress, give_way)
    skew = timedelta(seconds=runtime.transport.clock_skew_s or 0.0)
    return reports, await _standings(runtime, Interval(since, began_at + skew - YOUNG), streams, reports)


async def _standings(
    runtime: AccountRuntime, wanted: Interval, streams: Sequence[str], reports: Sequence[RunReport]
) -> tuple[Standing, ...]:
    """Say how far each stream is proven; one that is read whole is if its run succeeded."""
    name, account_id = runtime.account.name, runtime.account.id
    well = {report.stream for report in reports if report.is_success}
    found: list[Standing] = []
    async with runtime.store.begin() as connection:
        for stream in streams:
            match runtime.provider.streams[stream].kind:
                case StreamKind.WINDOW:
                    found.append(await backfilled.of_window(connection, name, account_id, stream, wanted))
                case StreamKind.SWEEP:
                    proven_s = runtime.config.pull.audit_days * 86400.0
                    found.append(await backfilled.of_parents(connection, name, account_id, stream, proven_s))
                case StreamKind.FOLLOW_UP:
                    found.append(await backfilled.of_follow_up(connection, name, account_id, stream))
                case StreamKind.SNAPSHOT:
                    found.append(Standing(name, stream, stream in well))
    return tuple(found)
