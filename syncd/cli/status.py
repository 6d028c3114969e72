"""``syncd status``: what stands where, at a glance. Reads the database alone, never the CRM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.domain.audits import Standing
from syncd.ops.health import IN_ORDER, state_in_words
from syncd.policy.shape import Drift
from syncd.service.database import opened
from syncd.service.outlook import Sureness, pulling_of, read_sureness
from syncd.settings import Settings
from syncd.store.audit import read_standings
from syncd.store.holes import Hole, read_holes
from syncd.store.incidents import IncidentRow, list_incidents
from syncd.store.outbox import HoldRow, list_holds
from syncd.store.schema import require_current
from syncd.store.shapes import Odd, list_odd
from syncd.store.status import (
    AccountStatus,
    MirrorStatus,
    OutboxStatus,
    StreamStatus,
    read_accounts,
    read_mirror,
    read_outbox,
    read_streams,
)
from syncd.store.unread import UnreadCount, count_unread

_MOST_INCIDENTS, _MOST_HOLES = 100, 20


@dataclass(frozen=True, slots=True)
class Status:
    """Everything the page shows."""

    accounts: tuple[AccountStatus, ...]
    mirror: tuple[MirrorStatus, ...]
    streams: tuple[StreamStatus, ...]
    outbox: tuple[OutboxStatus, ...]
    proofs: tuple[Standing, ...]
    incidents: tuple[IncidentRow, ...]
    holds: tuple[HoldRow, ...]
    holes: tuple[Hole, ...]
    overlaps: tuple[Sureness, ...]
    unread: tuple[UnreadCount, ...] = ()
    unknown_keys: tuple[Odd, ...] = ()


@click.command(name="status")
@json_option
def command(as_json: bool) -> None:
    """Show accounts, streams, coverage holes, the outbox and open incidents.

    A hole is time that has not been proven read; the daemon refills it by itself. Below the holes stands how sure it is
    that no row came too late to be seen; `syncd streams` tells how stale each kind of data may be. A dead or parked
    change waits for you: see `syncd outbox list`. An incident is open until what it is about is well again; --json
    shows all of it.
    """
    settings = session.begin().settings
    status = session.run(lambda: _read(settings))
    if as_json:
        print_json(status)
    else:
        _show(status, settings.audit_days)


async def _read(settings: Settings) -> Status:
    own_horizons = {name: own.pull.horizon_days for name, own in pulling_of(settings).items()}
    async with opened(settings) as database:
        await require_current(database.store)
        overlaps = await read_sureness(database.store, settings, SystemClock().now())
        async with database.store.begin() as connection:
            return Status(
                await read_accounts(connection),
                await read_mirror(connection),
                await read_streams(connection, settings.horizon_days),
                await read_outbox(connection),
                await read_standings(connection, settings.audit_days * 86400.0),
                await list_incidents(connection, most=_MOST_INCIDENTS),
                await list_holds(connection, is_open=True),
                await read_holes(connection, settings.horizon_days, own_horizons),
                overlaps,
                await count_unread(connection),
                tuple(replace(odd, record=None) for odd in await list_odd(connection) if odd.drift == Drift.UNKNOWN),
            )


def _show(status: Status, audit_days: float) -> None:
    console = out()
    if not status.accounts:
        console.print("No account yet: `syncd check` tests the settings, `syncd run` starts the daemon.")
        return
    console.print(_accounts(status), "", _streams(status), sep="\n")
    for row in status.streams:
        if row.reason and row.status != "succeeded":
            console.print(Text(f"{row.account} {row.stream}: {row.reason}", style=BAD))
    if any(not hole.is_young for hole in status.holes):
        console.print("", _holes(status), sep="\n")
    for sure in status.overlaps:
        console.print(Text(f"{sure.account}: {sure.words}", style=WARN if sure.beyond else QUIET))
    console.print("", _outbox(status), sep="\n")
    if status.proofs:
        console.print("", _proofs(status, audit_days), sep="\n")
    if status.incidents:
        console.print("", _incidents(status), sep="\n")
    for hold in status.holds:
        words = f"{hold.account}: hold {hold.id} waits for you: {hold.reason}; syncd outbox holds {hold.id} says more"
        console.print(Text(words, style=WARN))
    for waiting in status.unread:
        words = f"{waiting.account} {waiting.stream}: {waiting.records} records could not be read and are kept"
        console.print(Text(f"{words} ({waiting.reason}); upgrade syncd, then syncd reproject", style=WARN))
    for odd in status.unknown_keys:
        words = f"{odd.account} {odd.stream}: the key {odd.key} is new to syncd and kept in raw; see syncd shapes"
        console.print(Text(words, style=QUIET))
    for account in status.accounts:
        if account.open_conflicts:
            words = f"{account.name}: {account.open_conflicts} conflicts wait for you: syncd conflicts list"
            console.print(Text(words, style=WARN))


def _accounts(status: Status) -> object:
    mirrors = {row.account: row for row in status.mirror}
    columns = ["account", "~state", "~pulled by", "#clock", "#relations", "#tags", "#groups", "#orders", "#invoices"]
    rows = []
    for row in status.accounts:
        words = state_in_words(row)
        state = Text(words, style=GOOD if words == IN_ORDER else BAD)
        counts = mirrors[row.name]
        puller = row.lease_owner or Text("nobody", style=QUIET)
        skew = Text("-", style=QUIET) if row.clock_skew_s is None else _skew(row.clock_skew_s)
        size = (counts.relations, counts.tags, counts.groups, counts.orders, counts.invoices)
        rows.append([row.name, state, puller, skew, *size])
    return table("Accounts", columns, rows)


def _skew(seconds: float) -> Text:
    return Text(f"{round(seconds):+d} s", style=WARN if abs(seconds) > 60 else "")


def _streams(status: Status) -> object:
    columns = ["account", "stream", "last run", "#ago", "#changed", "#unread", "#holes"]
    colours = {"succeeded": GOOD, "running": QUIET}
    rows = [
        [
            row.account,
            row.stream,
            Text(row.status or "never", style=colours.get(row.status or "", BAD)),
            span(row.age_s),
            row.changed,
            span(row.lag_s),
            Text(f"{row.holes} ({span(row.hole_s)})", style=WARN) if row.holes else "-",
        ]
        for row in status.streams
    ]
    return table("Streams", columns, rows) if rows else Text("Nothing pulled yet.", style=QUIET)


def _holes(status: Status) -> object:
    columns = ["account", "hole in", "#age", "#length", "from", "to"]
    rows = [
        [
            hole.account,
            hole.stream,
            Text(span(hole.age_s), style=WARN),
            span(hole.span_s),
            hole.since,
            "now" if hole.is_open else hole.upto,
        ]
        for hole in status.holes
        if not hole.is_young
    ]
    return table("Holes", columns, rows[:_MOST_HOLES])


def _outbox(status: Status) -> object:
    columns = ["account", "#pending", "#oldest", "#again", "#dead", "#parked", "#held", "#diverged"]
    rows = [
        [
            row.account,
            row.pending,
            Text(span(row.oldest_s), style=WARN if (row.oldest_s or 0) > 300 else ""),
            Text(str(row.reasserting), style="" if row.reasserting else QUIET),
            *(Text(str(count), style=style if count else QUIET) for count, style in _waiting(row)),
        ]
        for row in status.outbox
    ]
    return table("Outbox", columns, rows)


def _waiting(row: OutboxStatus) -> tuple[tuple[int, str], ...]:
    return ((row.dead, BAD), (row.parked, BAD), (row.held, WARN), (row.diverged, WARN))


def _proofs(status: Status, audit_days: float) -> object:
    """Tell of which share it is known that it equals the CRM; rounded down, so that 100 % means every row."""
    columns = ["account", "kind", "#rows", "#proven", "#share", "#oldest"]
    rows = [
        [row.account, row.kind, row.rows, row.proven, f"{int(1000 * row.share) / 10:g} %", span(row.oldest_s)]
        for row in status.proofs
    ]
    return table(f"Proven equal to the CRM within {span(audit_days * 86400)}", columns, rows)


def _incidents(status: Status) -> object:
    now = SystemClock().now()
    columns = ["account", "incident", "about", "#since", "#times", "~what"]
    rows = [
        [
            row.account,
            Text(row.kind, style=BAD),
            row.subject,
            span((now - row.opened_at).total_seconds()),
            row.occurrences,
            row.summary,
        ]
        for row in status.incidents
    ]
    return table("Incidents", columns, rows)
