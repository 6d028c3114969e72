"""``syncd conflicts``: fields that both sides changed: list them, and decide about those that wait for a person."""

from __future__ import annotations

from dataclasses import dataclass

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.deciding import actor_option, reason_option, settle_window_s
from syncd.cli.page import GOOD, QUIET, WARN, account_option, json_option, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.accounts import chosen_accounts
from syncd.store.conflicts import ConflictRow, Resolved, Take, count_decided, list_conflicts, resolve_conflict
from syncd.store.schema import require_current

CONFLICT_ID = click.IntRange(1, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Found:
    """``decided`` were decided by their owners within a week."""

    conflicts: tuple[ConflictRow, ...]
    decided: int


@click.group(name="conflicts")
def command() -> None:
    """List fields that both sides changed; decide about one.

    Whose value counts is a setting, for each field: the application's (local), the CRM's (remote), or nobody's until
    you decide here (hold): until then neither side's value is overwritten.
    """


@command.command(name="list", short_help="List conflicts, the open ones first.")
@click.option("--all", "with_resolved", is_flag=True, help="Those that are decided, too.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 100_000))
@account_option
@json_option
def list_(with_resolved: bool, limit: int, account: str | None, as_json: bool) -> None:
    """List conflicts that wait for you; with --all those that were decided, and how."""
    settings = session.begin().settings
    found = session.run(lambda: _read(settings, account, with_resolved, limit))
    if as_json:
        print_json(found)
        return
    out().print(_table(found.conflicts) if found.conflicts else "No conflict waits for you.")
    if found.decided and not with_resolved:
        out().print(Text(f"{found.decided} were decided by their owner within a week: --all shows them.", style=QUIET))


@command.command(name="resolve", short_help="Decide a conflict.")
@click.argument("conflict_id", metavar="ID", type=CONFLICT_ID)
@click.option("--take", required=True, metavar="local|remote|VALUE", help="Whose value counts, or another value.")
@actor_option
@reason_option
@json_option
def resolve(conflict_id: int, take: str, actor: str, reason: str | None, as_json: bool) -> None:
    """Decide a conflict: the application's value, the CRM's, or one of your own.

    What the CRM does not have yet is sent like any edit, behind what waits for its relation already. A conflict that
    its owner decided may be overruled, as long as nobody has edited the field since. A value that reads like one of the
    two words is given as =local or =remote.
    """
    settings = session.begin().settings
    resolved = session.run(lambda: _resolve(settings, conflict_id, _take(take), actor, reason))
    if as_json:
        print_json({"conflict": conflict_id, "field": resolved.field, "is_sent": resolved.is_sent})
        return
    what = "it is sent like any edit" if resolved.is_sent else "the CRM has it already"
    out().print(f"conflict {conflict_id} is decided: {resolved.field} is set in the mirror, and {what}")


def _take(said: str) -> Take:
    return Take(said) if said in ("local", "remote") else Take("value", said.removeprefix("="))


async def _read(settings: Settings, account: str | None, with_resolved: bool, limit: int) -> Found:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            rows = await list_conflicts(connection, account=account, with_resolved=with_resolved, most=limit)
            return Found(rows, await count_decided(connection, account))


async def _resolve(settings: Settings, conflict_id: int, take: Take, actor: str, reason: str | None) -> Resolved:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin_remote() as connection:
            window_s = settle_window_s(settings)
            return await resolve_conflict(
                connection, conflict_id, take, actor=actor, reason=reason, settle_window_s=window_s
            )


def _table(rows: tuple[ConflictRow, ...]) -> object:
    columns = ["#conflict", "account", "~relation", "field", "~agreed", "~here", "~in the CRM", "owner", "#age"]
    columns.append("~state")
    return table("Conflicts", columns, (_row(row) for row in rows))


def _row(row: ConflictRow) -> list[object]:
    age_s = (SystemClock().now() - row.noticed_at).total_seconds()
    state = Text("waits for you", style=WARN) if row.owner == "hold" else Text("about to be decided", style=QUIET)
    if row.status == "resolved":
        who = row.actor or {"owner": "its owner", "agreement": "both sides"}.get(row.decided_by or "", "-")
        state = Text(f"{row.value if row.decided == 'value' else row.decided}, by {who}", style=GOOD)
    values = (row.base, row.local, row.remote)
    return [str(row.id), row.account, row.email or "-", row.name, *values, row.owner, span(age_s), state]
