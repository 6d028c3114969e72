"""``syncd outbox``: look at undelivered changes, and decide about those that wait for a person."""

from __future__ import annotations

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.domain.errors import UserError
from syncd.policy.states import EntryStatus
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.outbox import EntryStory, OutboxEntry, Selection, list_entries, retry_entry, show_entry, skip_entry
from syncd.store.schema import require_current

ENTRY_ID = click.IntRange(1, 2**63 - 1)
_COLOURS = {"pending": "", "held": WARN, "dead": BAD, "parked": BAD, "diverged": WARN, "skipped": QUIET}


@click.group(name="outbox")
def command() -> None:
    """List undelivered changes; show, retry or skip one.

    \b
    pending    waits for its turn or for its next try
    held       a mass change that waits for approval
    dead       refused by the CRM, or tried too often: retry or skip it
    parked     nobody can tell whether it was applied: look in the CRM, then retry or skip it
    diverged   the CRM said yes and shows something else
    """


@command.command(name="list", short_help="List changes, oldest first.")
@click.option("--status", "statuses", multiple=True, type=click.Choice([status.value for status in EntryStatus]))
@click.option("--account", metavar="NAME", help="Only this account.")
@click.option("--email", help="Only this relation.")
@click.option("--operation", help="Only this kind of change, such as add_tag.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@json_option
def list_(
    statuses: tuple[str, ...], account: str | None, email: str | None, operation: str | None, limit: int, as_json: bool
) -> None:
    """List changes, oldest first; without --status all that are not delivered."""
    settings = session.begin().settings
    selection = Selection(statuses, account=account, email=email, operation=operation, most=limit)
    entries = session.run(lambda: _list(settings, selection))
    if as_json:
        print_json(entries)
    elif entries:
        out().print(_table(entries))
    else:
        out().print("Nothing to show.")


@command.command(name="show", short_help="Show one and what was tried for it.")
@click.argument("entry_id", type=ENTRY_ID)
@json_option
def show(entry_id: int, as_json: bool) -> None:
    """Show one change and everything that was tried for it."""
    settings = session.begin().settings
    story = session.run(lambda: _show(settings, entry_id))
    if as_json:
        print_json(story)
    else:
        _tell(story)


@command.command(name="retry", short_help="Send again, with a fresh budget.")
@click.argument("entry_ids", type=ENTRY_ID, nargs=-1, required=True)
@json_option
def retry(entry_ids: tuple[int, ...], as_json: bool) -> None:
    """Send dead, parked, diverged or held changes again, with a fresh budget."""
    settings = session.begin().settings
    session.run(lambda: _retry(settings, entry_ids))
    _done("retried", entry_ids, as_json)


@command.command(name="skip", short_help="Give up; what waits behind goes on.")
@click.argument("entry_ids", type=ENTRY_ID, nargs=-1, required=True)
@click.option("--reason", help="Kept with the change, for whoever asks later.")
@json_option
def skip(entry_ids: tuple[int, ...], reason: str | None, as_json: bool) -> None:
    """Give changes up; what waits behind them goes on. The mirror keeps its value until the next pull."""
    settings = session.begin().settings
    session.run(lambda: _skip(settings, entry_ids, reason))
    _done("skipped", entry_ids, as_json)


async def _list(settings: Settings, selection: Selection) -> tuple[OutboxEntry, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            return await list_entries(connection, selection)


async def _show(settings: Settings, entry_id: int) -> EntryStory:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            story = await show_entry(connection, entry_id)
    if story is None:
        raise UserError(f"there is no entry {entry_id}; `syncd outbox list` shows what there is")
    return story


async def _retry(settings: Settings, entry_ids: tuple[int, ...]) -> None:
    """All or none: one transaction."""
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            for entry_id in entry_ids:
                await retry_entry(connection, entry_id)


async def _skip(settings: Settings, entry_ids: tuple[int, ...], reason: str | None) -> None:
    """All or none: one transaction."""
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            for entry_id in entry_ids:
                await skip_entry(connection, entry_id, reason=reason)


def _done(what: str, entry_ids: tuple[int, ...], as_json: bool) -> None:
    if as_json:
        print_json({what: entry_ids})
    else:
        out().print(f"{what}: {', '.join(map(str, entry_ids))}")


def _table(entries: tuple[OutboxEntry, ...]) -> object:
    now = SystemClock().now()
    columns = ["#entry", "status", "~relation", "change", "#tries", "#age", "~why"]
    return table(
        "Outbox",
        columns,
        (
            [
                str(entry.id),
                Text(entry.status, style=_COLOURS.get(entry.status, GOOD)),
                entry.email or entry.relation_id,
                entry.operation,
                entry.attempts,
                span((now - entry.captured_at).total_seconds()),
                entry.error or entry.block_reason or "",
            ]
            for entry in entries
        ),
    )


def _tell(story: EntryStory) -> None:
    entry, console = story.entry, out()
    console.print(_table((entry,)))
    about = (("account", entry.account), ("facet", entry.facet), ("payload", entry.payload), ("by", entry.actor))
    console.print()
    for label, words in (*about, ("because", entry.reason), ("blocked", entry.block_reason)):
        if words:
            console.print(f"{label:<8}{words}", markup=False)
    if story.attempts:
        rows = [[a.started_at, f"{a.elapsed_s:.2f} s", a.requests, a.outcome, a.detail or ""] for a in story.attempts]
        console.print(
            "", table("Tries", ["started", "#took", "#requests", "outcome", "~what came of it"], rows), sep="\n"
        )
