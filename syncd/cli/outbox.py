"""``syncd outbox``: look at undelivered changes, and decide about those that wait for a person."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import click
from rich.text import Text

from syncd.cli import outbox_accounts, outbox_holds, session
from syncd.cli.deciding import actor_option, reason_option, settle_window_s
from syncd.cli.page import BAD, GOOD, QUIET, WARN, account_option, json_option, number, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.domain.errors import UserError
from syncd.policy.states import EntryStatus
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store import Connection
from syncd.store.accounts import chosen_accounts
from syncd.store.outbox import (
    EntryStory,
    OutboxEntry,
    ReasonGroup,
    Selection,
    count_entries,
    group_by_reason,
    list_entries,
    retry_entries,
    show_entry,
    skip_entries,
)
from syncd.store.schema import require_current

ENTRY_ID = click.IntRange(1, 2**63 - 1)
_COLOURS = {"pending": "", "held": WARN, "dead": BAD, "parked": BAD, "diverged": WARN, "skipped": QUIET}
_WAITING_FOR_YOU = ("dead", "parked", "diverged")
# As many as one transaction may retry: it keeps their lanes locked, and what is staged for them waits.
_AT_ONCE = 1000
T = TypeVar("T")


@click.group(name="outbox")
def command() -> None:
    """List undelivered changes; show, retry or skip one; approve or reject a mass change; pause and resume.

    \b
    pending    waits for its turn or for its next try
    held       part of a mass change that waits for approval
    dead       refused by the CRM, or tried too often: retry or skip it
    parked     nobody can tell whether it was applied: look in the CRM, then retry or skip it
    diverged   the CRM said yes and shows something else
    """


@command.command(name="list", short_help="List changes, oldest first.")
@click.option("--status", "statuses", multiple=True, type=click.Choice([status.value for status in EntryStatus]))
@click.option("--account", metavar="NAME", help="Only this account.")
@click.option("--email", help="Only this relation.")
@click.option("--operation", help="Only this kind of change, such as add_tag.")
@click.option("--facet", help="Only this part of a relation, such as tag:12 or identity.")
@click.option("--hold", "hold_id", type=ENTRY_ID, help="Only what belongs to this mass change.")
@click.option("--by-reason", is_flag=True, help="Group what waits for you by why it waits.")
@click.option("--counts", "only_counts", is_flag=True, help="Only how many there are of each status, whatever --limit.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@json_option
def list_(
    statuses: tuple[str, ...],
    account: str | None,
    email: str | None,
    operation: str | None,
    facet: str | None,
    hold_id: int | None,
    by_reason: bool,
    only_counts: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List changes, oldest first; without --status all that are not delivered.

    With --by-reason, without --status, those that wait for you: dead, parked, diverged. What --limit leaves out is
    told: on the page, and with --json on standard error.
    """
    settings = session.begin().settings
    if by_reason and not statuses:
        statuses = _WAITING_FOR_YOU
    selection = Selection(
        statuses, account=account, email=email, operation=operation, facet=facet, hold_id=hold_id, most=limit
    )
    if only_counts:
        counts = session.run(lambda: _read(settings, lambda connection: _count(connection, selection)))
        print_json(counts) if as_json else out().print(_counted(counts) if counts else "Nothing to show.")
        return
    listed = session.run(lambda: _read(settings, lambda connection: _list(connection, selection, by_reason)))
    if as_json:
        print_json(listed.groups if by_reason else listed.entries)
    elif listed.counts:
        out().print(_counted(listed.counts), "", _reasons(listed) if by_reason else _table(listed.entries), sep="\n")
    else:
        out().print("Nothing to show.")
    if listed.left_out:
        left_out = f"{number(listed.left_out)} more are not listed: --limit is {number(limit)}"
        print(f"syncd: {left_out}", file=sys.stderr) if as_json else out().print(Text(left_out, style=QUIET))


@command.command(name="show", short_help="Show one, what was tried and what was decided.")
@click.argument("entry_id", type=ENTRY_ID)
@json_option
def show(entry_id: int, as_json: bool) -> None:
    """Show one change, everything that was tried for it and everything that was decided about it."""
    settings = session.begin().settings
    story = session.run(lambda: _read(settings, lambda connection: show_entry(connection, entry_id)))
    if story is None:
        raise UserError(f"there is no entry {entry_id}; `syncd outbox list` shows what there is")
    if as_json:
        print_json(story)
    else:
        _tell(story)


@command.command(name="retry", short_help="Send again, with a fresh budget.")
@click.argument("entry_ids", type=ENTRY_ID, nargs=-1)
@click.option("--operation", help="Instead of numbers: the dead changes of this kind, such as subscribe.")
@account_option
@click.option(
    "--as-new", is_flag=True, help="You have looked in the CRM: it was not applied. Send without reading back."
)
@actor_option
@reason_option
@json_option
def retry(
    entry_ids: tuple[int, ...],
    operation: str | None,
    account: str | None,
    as_new: bool,
    actor: str,
    reason: str | None,
    as_json: bool,
) -> None:
    """Send dead, parked, diverged or held changes again, with a fresh budget; all of them or none.

    Refused for a change that would undo a later one of the same facet. With --operation, and perhaps --account: what is
    dead of one kind, for when the cause is mended that killed them all; the oldest thousand at a time.
    """
    settings = session.begin().settings
    left = 0
    if operation is not None:
        if entry_ids:
            raise click.UsageError("give either the numbers of changes or --operation")
        entry_ids, left = _dead(settings, operation, account)
    elif not entry_ids or account is not None:
        raise click.UsageError("give the numbers of changes, or --operation and perhaps --account")
    retry_all = partial(retry_entries, entry_ids=entry_ids, as_new=as_new, actor=actor, reason=reason)
    session.run(lambda: _read(settings, retry_all))
    _done("retried", entry_ids, as_json)
    if left:
        more = f"{number(left)} more are dead; the same command retries them"
        print(f"syncd: {more}", file=sys.stderr) if as_json else out().print(more)


@command.command(name="skip", short_help="Give up; what waits behind goes on.")
@click.argument("entry_ids", type=ENTRY_ID, nargs=-1, required=True)
@actor_option
@reason_option
@json_option
def skip(entry_ids: tuple[int, ...], actor: str, reason: str | None, as_json: bool) -> None:
    """Give changes up, all of them or none; what waits behind them goes on.

    The mirror keeps its value until the next pull shows the CRM's. What is being sent at that moment may be applied all
    the same, and is named (with --json: in_hand).
    """
    settings = session.begin().settings

    window_s = settle_window_s(settings)

    skip_all = partial(skip_entries, entry_ids=entry_ids, actor=actor, reason=reason, settle_window_s=window_s)
    in_hand = session.run(lambda: _read(settings, skip_all))
    if as_json:
        print_json({"skipped": entry_ids, "in_hand": in_hand})
        return
    _done("skipped", entry_ids, as_json)
    if in_hand:
        out().print(f"being sent at that moment, so perhaps applied all the same: {', '.join(map(str, in_hand))}")


for _command in (*outbox_holds.COMMANDS, *outbox_accounts.COMMANDS):
    command.add_command(_command)


@dataclass(frozen=True, slots=True)
class _Listed:
    counts: dict[str, int]
    entries: tuple[OutboxEntry, ...] = ()
    groups: tuple[ReasonGroup, ...] = ()

    @property
    def left_out(self) -> int:
        """How many of the selected changes are neither listed nor in a group that is."""
        listed = len(self.entries) + sum(group.entries for group in self.groups)
        return max(0, sum(self.counts.values()) - listed)  # what was captured in between may be listed, uncounted


async def _read(settings: Settings, ask: Callable[[Connection], Awaitable[T]]) -> T:
    """Ask the database in one transaction."""
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            return await ask(connection)


def _dead(settings: Settings, operation: str, account: str | None) -> tuple[tuple[int, ...], int]:
    """Return the oldest dead changes of an operation, and how many more there are. Raises UserError where none is."""
    selection = Selection((EntryStatus.DEAD.value,), account=account, operation=operation, most=_AT_ONCE)
    listed = session.run(lambda: _read(settings, lambda connection: _list(connection, selection, by_reason=False)))
    if not listed.entries:
        raise UserError(f"no change of kind {operation!r} is dead; `syncd outbox list` shows what there is")
    return tuple(entry.id for entry in listed.entries), listed.left_out


async def _count(connection: Connection, selection: Selection) -> dict[str, int]:
    await chosen_accounts(connection, selection.account)
    return await count_entries(connection, selection)


async def _list(connection: Connection, selection: Selection, by_reason: bool) -> _Listed:
    counts = await _count(connection, selection)
    if by_reason:
        return _Listed(counts, groups=await group_by_reason(connection, selection))
    return _Listed(counts, await list_entries(connection, selection))


def _done(what: str, entry_ids: tuple[int, ...], as_json: bool) -> None:
    if as_json:
        print_json({what: entry_ids})
    else:
        out().print(f"{what}: {', '.join(map(str, entry_ids))}")


def _counted(counts: dict[str, int]) -> Text:
    return Text(", ").join(
        Text(f"{entries} {status}", style=_COLOURS.get(status, GOOD)) for status, entries in counts.items()
    )


def _reasons(listed: _Listed) -> object:
    now = SystemClock().now()
    columns = ["#changes", "#relations", "status", "change", "#oldest", "#entry", "~why"]
    return table(
        "By reason",
        columns,
        (
            [
                group.entries,
                group.relations,
                Text(group.status, style=_COLOURS.get(group.status, GOOD)),
                group.operation,
                span((now - group.oldest_at).total_seconds()),
                str(group.entry_id),
                group.reason,
            ]
            for group in listed.groups
        ),
    )


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
                _why(entry),
            ]
            for entry in entries
        ),
    )


def _why(entry: OutboxEntry) -> str:
    if entry.status == "held":
        return f"mass change: hold {entry.hold_id}"
    return entry.error or entry.block_reason or ""


def _tell(story: EntryStory) -> None:
    entry, console = story.entry, out()
    console.print(_table((entry,)))
    about = (("account", entry.account), ("facet", entry.facet), ("payload", entry.payload), ("by", entry.actor))
    console.print()
    for label, words in (*about, ("because", entry.reason), ("blocked", entry.block_reason)):
        if words:
            console.print(f"{label:<8}{words}", markup=False)
    if story.attempts:
        tries = [[a.started_at, f"{a.elapsed_s:.2f} s", a.requests, a.outcome, a.detail or ""] for a in story.attempts]
        columns = ["started", "#took", "#requests", "outcome", "~what came of it"]
        console.print("", table("Tries", columns, tries), sep="\n")
    if story.decisions:
        decided = [[d.decided_at, d.verb, d.actor, d.reason or ""] for d in story.decisions]
        console.print("", table("Decisions", ["when", "what", "who", "~why"], decided), sep="\n")
