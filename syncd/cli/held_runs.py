"""``syncd runs list|approve|reject``: look at pulls that would do more than they may, and decide about them.

What is decided is what was shown: a pull that would do more by then asks anew, under a number of its own.
"""

from __future__ import annotations

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.deciding import actor_option, reason_option
from syncd.cli.page import BAD, GOOD, QUIET, WARN, account_option, json_option, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.domain.errors import UserError
from syncd.policy.states import RunHoldStatus
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store import run_holds
from syncd.store.accounts import chosen_accounts
from syncd.store.run_holds import RunHold
from syncd.store.schema import require_current

_COLOURS = {"open": WARN, "approved": GOOD, "rejected": QUIET, "used": QUIET, "lapsed": QUIET}


@click.group(name="runs", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Pulls that would change or mark missing more of what is known than they may unasked.

    Such a pull writes nothing of it and proves no time. Either the CRM is wrong, then leave it: the pulls go on by
    themselves when its answers are well again. Or it is right, then approve: the next pull of that stream may do as
    much as was shown, once, within SYNCD_APPROVAL_HOURS.
    """


@command.command(name="list", short_help="List the pulls that wait.")
@click.option("--all", "with_past", is_flag=True, help="Also those that are over.")
@account_option
@json_option
def list_(with_past: bool, account: str | None, as_json: bool) -> None:
    """List the pulls that wait for a decision, and what was decided."""
    settings = session.begin().settings
    found = session.run(lambda: _read(settings, account=account, with_past=with_past))
    if as_json:
        print_json(found)
    else:
        out().print(_table(found) if found else "No pull waits for you.")


@command.command(name="approve", short_help="Let the next pull do as much as was shown.")
@click.argument("which", metavar="ID|STREAM")
@account_option
@actor_option
@reason_option
@json_option
def approve(which: str, account: str | None, actor: str, reason: str | None, as_json: bool) -> None:
    """Let the next pull of a stream do as much as was shown, once. A daemon does it in its next round."""
    _decide(which, account, RunHoldStatus.APPROVED, actor, reason, as_json=as_json)


@command.command(name="reject", short_help="Keep the mirror as it is.")
@click.argument("which", metavar="ID|STREAM")
@account_option
@actor_option
@reason_option
@json_option
def reject(which: str, account: str | None, actor: str, reason: str | None, as_json: bool) -> None:
    """Keep the mirror as it is; pulls that want as much go on being held. It can be approved later after all."""
    _decide(which, account, RunHoldStatus.REJECTED, actor, reason, as_json=as_json)


def _decide(
    which: str, account: str | None, status: RunHoldStatus, actor: str, reason: str | None, *, as_json: bool
) -> None:
    settings = session.begin().settings
    hold = session.run(lambda: _decided(settings, which, account, status, actor, reason))
    if as_json:
        print_json({"hold": hold, "status": status.value})
        return
    out().print(f"{hold.account} {hold.stream}: {hold.sentence}")
    if status is RunHoldStatus.APPROVED:
        hours = f"{settings.approval_hours:g} h"
        out().print(f"approved: the next pull of {hold.stream} may do as much, once, within {hours}")
    else:
        out().print("rejected: the mirror stays as it is")


async def _read(settings: Settings, *, account: str | None, with_past: bool) -> tuple[RunHold, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            return await run_holds.list_run_holds(connection, account=account, with_past=with_past)


async def _decided(
    settings: Settings, which: str, account: str | None, status: RunHoldStatus, actor: str, reason: str | None
) -> RunHold:
    """Find the one hold that is meant and decide it. Raises UserError when it is not clear which."""
    hold_id = int(which) if which.isascii() and which.isdigit() and len(which) < 19 else None
    stream = which if hold_id is None else None
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            found = await run_holds.list_run_holds(connection, account=account, stream=stream, hold_id=hold_id)
            if len(found) != 1:
                raise UserError(_unclear(which, found))
            for_s = settings.approval_hours * 3600.0
            await run_holds.decide(connection, found[0].id, status, actor, reason, for_s=for_s)
            return found[0]


def _unclear(which: str, found: tuple[RunHold, ...]) -> str:
    if not found:
        return f"no pull waits for a decision as {which!r}; `syncd runs list` shows those that do"
    several = ", ".join(f"{hold.id} ({hold.account})" for hold in found)
    return f"more than one account has such a pull: {several}; say which number"


def _table(rows: tuple[RunHold, ...]) -> object:
    columns = ["#hold", "account", "stream", "status", "#age", "#times", "#known", "#changed", "#gone", "~what"]
    return table("Pulls that ask", columns, (_row(hold) for hold in rows))


def _row(hold: RunHold) -> list[object]:
    age_s = (SystemClock().now() - hold.opened_at).total_seconds()
    status = Text(hold.status, style=_COLOURS.get(hold.status, BAD))
    counts = [hold.occurrences, hold.known, hold.rewritten, hold.missing]
    return [str(hold.id), hold.account, hold.stream, status, span(age_s), *counts, hold.sentence]
