"""``syncd streams``: how stale each kind of data may be, and what that costs the CRM in requests."""

from __future__ import annotations

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.service.database import opened
from syncd.service.outlook import Outlook, read_outlooks
from syncd.settings import Settings
from syncd.store.schema import require_current


@click.command(name="streams")
@click.option("--relations", type=click.IntRange(1, 100_000_000), help="Compute it for an account of so many.")
@json_option
def command(relations: int | None, as_json: bool) -> None:
    """Show how stale each kind of data may be, and how many requests an hour the cadences cost.

    Both are computed from the settings and from how large the account is now. What is promised holds while the CRM
    answers; reads the database alone, never the CRM.
    """
    settings = session.begin().settings
    outlooks = session.run(lambda: _read(settings, relations))
    if as_json:
        print_json(outlooks)
        return
    console = out()
    if not outlooks:
        console.print("No account yet: `syncd check` tests the settings, `syncd run` starts the daemon.")
    for outlook in outlooks:
        console.print(_promises(outlook), "", _costs(outlook), sep="\n")
        console.print(_sum(outlook), "", sep="\n")


async def _read(settings: Settings, relations: int | None) -> tuple[Outlook, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        return await read_outlooks(database.store, settings, SystemClock().now(), relations)


def _promises(outlook: Outlook) -> object:
    rows = [
        [row.kind, Text("not noticed", style=WARN) if row.within_s is None else span(row.within_s), row.by]
        for row in outlook.promises
    ]
    return table(f"{outlook.account}: right in the mirror within", ["what", "#within", "by"], rows)


def _costs(outlook: Outlook) -> object:
    rows = [
        [
            row.stream,
            Text("off", style=QUIET) if row.cycle_s is None else span(row.every_s),
            _number(row.calls),
            _number(row.per_hour),
            span(row.cycle_s),
        ]
        for row in outlook.costs
    ]
    columns = ["stream", "#every", "#requests a round", "#an hour", "#all asked in"]
    return table(f"{outlook.account}: requests", columns, rows)


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 10 or value == round(value) else f"{value:.2g}"


def _sum(outlook: Outlook) -> Text:
    share = f"{outlook.load:.0%} of what the rate allows"
    words = f"{_number(round(outlook.requests_per_h))} requests an hour for {outlook.size.relations} relations, {share}"
    if outlook.load > 1:
        words += ": the promises are late by as much; raise the rate, or the cadences of the dearest streams"
    return Text(words, style=BAD if outlook.load > 1 else GOOD)
