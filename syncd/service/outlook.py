"""What may be expected of the mirror: the settings and the database together say how stale and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from syncd.domain.ids import AccountId
from syncd.policy.lateness import Histogram, residue
from syncd.policy.staleness import Cost, Pace, Promise, Size, costs, load, per_hour, promises
from syncd.service.cadences import cadences, rungs, window_rule
from syncd.settings import PullSettings, Settings, SettingsError, resolve_accounts
from syncd.store import Store
from syncd.store.lateness import learned_of_all
from syncd.store.sizes import read_size
from syncd.store.status import read_accounts
from syncd.store.unsettled import since

WINDOWS = ("orders", "invoices")


@dataclass(frozen=True, slots=True)
class Sureness:
    """How far a stream's windows overlap, and what that leaves to chance: ``later`` of ``rows`` rows came later than
    ``overlap_s``, ``beyond`` of them later than the widest read; ``words`` says so to a person."""

    account: str
    stream: str
    overlap_s: float
    rows: int
    later: int
    beyond: int
    words: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """One account: its size, what its cadences cost and promise. ``load`` is the share of the rate that they take."""

    account: str
    size: Size
    requests_per_h: float
    load: float
    costs: tuple[Cost, ...]
    promises: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Pulling:
    """The pull settings that hold for an account, and its rate."""

    pull: PullSettings
    rate_per_s: float


def pulling_of(settings: Settings) -> Mapping[str, Pulling]:
    """Return what each configured account is set to; empty where accounts are not configured completely."""
    try:
        configs = resolve_accounts(settings).configs
    except SettingsError:
        return {}
    return {config.name: Pulling(config.pull, config.http.rate_per_s) for config in configs}


async def read_sureness(store: Store, settings: Settings, now: datetime) -> tuple[Sureness, ...]:
    """Return the overlap of every window stream with the risk that remains."""
    known, default = pulling_of(settings), settings.part(PullSettings)
    async with store.begin() as connection:
        accounts = await read_accounts(connection)
        measured = await learned_of_all(connection, now)
    return tuple(
        _sureness(account.name, stream, measured.get((account.name, stream), Histogram()), pull)
        for account in accounts
        for pull in (known[account.name].pull if account.name in known else default,)
        for stream in WINDOWS
    )


async def read_outlooks(
    store: Store, settings: Settings, now: datetime, relations: int | None = None
) -> tuple[Outlook, ...]:
    """Return what every account may expect; ``relations`` pretends that it has so many."""
    known, default = pulling_of(settings), Pulling(settings.part(PullSettings), settings.rate_per_s)
    sure = {(each.account, each.stream): each for each in await read_sureness(store, settings, now)}
    found: list[Outlook] = []
    async with store.begin() as connection:
        for account in await read_accounts(connection):
            own = known.get(account.name, default)
            size = await read_size(connection, AccountId(account.id), since(now, own.pull.unsettled_days))
            size = size if relations is None else size.scaled(relations)
            found.append(_outlook(account.name, pace(own.pull, own.rate_per_s, sure[account.name, "orders"]), size))
    return tuple(found)


def pace(pull: PullSettings, rate_per_s: float, orders: Sureness | None = None) -> Pace:
    """Translate the settings, and the overlap learned, into what staleness is computed from."""
    return Pace(
        every_s=cadences(pull),
        rungs=rungs(pull),
        sweep_budget=pull.sweep_budget,
        rate_per_s=rate_per_s,
        unpaid_days=pull.unsettled_days,
        overlap_s=pull.overlap_s if orders is None else orders.overlap_s,
    )


def _outlook(account: str, of: Pace, size: Size) -> Outlook:
    return Outlook(account, size, per_hour(of, size), load(of, size), costs(of, size), promises(of, size))


def _sureness(account: str, stream: str, seen: Histogram, pull: PullSettings) -> Sureness:
    live = [rung for rung in rungs(pull) if rung.every_s > 0]
    widest_s = max((rung.reach_s for rung in live), default=0.0)
    left = residue(seen, window_rule(pull).overlap, widest_s)
    words = f"{_late(left.later, left.rows, stream)} later than the overlap of {span(left.overlap_s)}"
    if left.later:
        reads = ", ".join(f"{span(rung.reach_s)} back every {span(rung.every_s)}" for rung in sorted(live))
        words += f"; wider reads find such ({reads})" if reads else "; no wider read is switched on to find such"
    if left.beyond:
        words += f"; {left.beyond:,} came later than all of them reach: only a backfill or a sweep finds those"
    return Sureness(account, stream, left.overlap_s, left.rows, left.later, left.beyond, words)


def _late(later: int, rows: int, stream: str) -> str:
    if not rows:
        return f"no {stream} measured yet: it is not known how many come"
    return f"{later:,} of {rows:,} {stream} came" if later else f"none of {rows:,} {stream} came"


def span(seconds: float) -> str:
    """Say a length of time to the minute, as far as it matters: 2 h 10 min, 3 d, 90 d."""
    minutes = round(seconds / 60)
    days, hours, rest = minutes // 1440, minutes % 1440 // 60, minutes % 60
    parts = [(days, "d"), (hours, "h"), (rest if not days else 0, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or f"{seconds:.0f} s"
