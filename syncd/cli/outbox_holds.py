"""``syncd outbox holds|approve|reject``: look at mass changes that wait, and decide about them.

Nothing is decided that was not shown: a hold that another large transaction joined since then must be looked at again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.deciding import actor_option, reason_option
from syncd.cli.page import BAD, GOOD, QUIET, WARN, account_option, json_option, number, out, print_json, span, table
from syncd.cli.progress import Counted
from syncd.clock import SystemClock
from syncd.domain.changes import MAILING_OPERATIONS
from syncd.domain.errors import UserError
from syncd.policy.guard import duration_s
from syncd.policy.states import HoldStatus
from syncd.service.database import opened
from syncd.settings import Settings, SettingsError
from syncd.store.accounts import chosen_accounts
from syncd.store.outbox import Became, HoldRow, HoldSummary, carry_out, decide, list_holds, summarise
from syncd.store.schema import require_current

HOLD_ID = click.IntRange(1, 2**63 - 1)
_COLOURS = {"open": WARN, "approved": GOOD, "rejected": QUIET}
# Requests and seconds that a delivery is taken to need while the account has sent nothing to measure.
_CALLS, _CALL_S = 1.5, 0.3


@dataclass(frozen=True, slots=True)
class Prospect:
    """What approving a hold would do. ``may_mail`` is the number of changes that can start or be an e-mail campaign."""

    summary: HoldSummary
    deliveries: int
    requests: int
    estimated_s: float
    rate_per_s: float
    concurrency: int
    may_mail: int


yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")


@click.command(name="holds", short_help="List mass changes, or say all about one.")
@click.argument("hold_id", metavar="[HOLD]", type=HOLD_ID, required=False)
@account_option
@json_option
def holds(hold_id: int | None, account: str | None, as_json: bool) -> None:
    """List mass changes, open ones first; with a number, say what approving that one would do, or what became of it."""
    settings = session.begin().settings
    if hold_id is not None:
        prospect = _prospect(settings, session.run(lambda: _summary(settings, hold_id, account)))
        print_json(prospect) if as_json else _show(prospect)
        return
    found = session.run(lambda: _holds(settings, account))
    if as_json:
        print_json(found)
    else:
        out().print(_table(found) if found else "No mass change was ever held.")


@click.command(name="approve", short_help="Send a mass change after all.")
@click.argument("hold_id", metavar="[HOLD]", type=HOLD_ID, required=False)
@account_option
@yes_option
@actor_option
@reason_option
@json_option
def approve(hold_id: int | None, account: str | None, yes: bool, actor: str, reason: str | None, as_json: bool) -> None:
    """Send a mass change after all: show what it is, ask, and let it go. Without HOLD: the one that is open.

    A burst of many transactions goes on unasked after this, for as long as it lasts.
    """
    _decide(_Verdict(HoldStatus.APPROVED, hold_id, account, actor, reason), yes=yes, as_json=as_json)


@click.command(name="reject", short_help="Give a mass change up.")
@click.argument("hold_id", metavar="[HOLD]", type=HOLD_ID, required=False)
@account_option
@yes_option
@actor_option
@reason_option
@json_option
def reject(hold_id: int | None, account: str | None, yes: bool, actor: str, reason: str | None, as_json: bool) -> None:
    """Give a mass change up: nothing of it is sent. Without HOLD: the one that is open.

    The mirror keeps the edited values until the next pull brings the CRM's back. Values that the CRM cannot be asked
    for, such as Autorespond's free fields, no pull brings back: set them right in the mirror yourself, which is sent
    like any edit. New relations stay in the mirror, unknown to the CRM.
    """
    _decide(_Verdict(HoldStatus.REJECTED, hold_id, account, actor, reason), yes=yes, as_json=as_json)


COMMANDS = (holds, approve, reject)


@dataclass(frozen=True, slots=True)
class _Verdict:
    status: HoldStatus
    hold_id: int | None
    account: str | None
    actor: str
    reason: str | None

    @property
    def verb(self) -> str:
        return "approve" if self.status is HoldStatus.APPROVED else "reject"


def _decide(verdict: _Verdict, *, yes: bool, as_json: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise UserError(
            f"nobody can be asked here; look with `syncd outbox holds HOLD`, then {verdict.verb} with --yes"
        )
    settings = session.begin().settings
    prospect = _prospect(settings, session.run(lambda: _summary(settings, verdict.hold_id, verdict.account)))
    hold = prospect.summary.hold
    if hold.status not in (HoldStatus.OPEN, verdict.status):
        raise UserError(
            f"{_already(prospect.summary, hold.status)}; `syncd outbox holds {hold.id}` says what became of it"
        )
    if not as_json:
        _show(prospect)
    if not yes and hold.status == HoldStatus.OPEN:
        click.confirm(f"\n{verdict.verb.capitalize()} hold {hold.id}?", abort=True, err=as_json)
    is_new, moved = session.run(lambda: _carry_out(settings, verdict, hold))
    if as_json:
        told = {"hold": hold.id, "status": verdict.status.value, "changes": moved, "is_repeat": not is_new}
        print_json({**told, "prospect": prospect})
    else:
        out().print(_concluded(verdict, prospect.summary, moved, is_new=is_new), markup=False)


def _concluded(verdict: _Verdict, summary: HoldSummary, moved: int, *, is_new: bool) -> str:
    hold = summary.hold
    if not is_new:
        follows = "go out" if verdict.status is HoldStatus.APPROVED else "are skipped"
        rest = f"{moved} changes that had not followed {follows} now" if moved else "there is nothing left to do"
        return f"{_already(summary, verdict.status)}; {rest}"
    if verdict.status is HoldStatus.APPROVED:
        return f"hold {hold.id} is approved: {moved} changes go out now, in the order of their edits"
    return (
        f"hold {hold.id} is rejected: {moved} changes are skipped. The mirror keeps their values until the next pull\n"
        "brings the CRM's back; free field values and new relations no pull brings back."
    )


def _already(summary: HoldSummary, status: str) -> str:
    return f"hold {summary.hold.id} was {status} already{_by_whom(summary)}"


def _by_whom(summary: HoldSummary) -> str:
    """Say who decided and when, as far as it was known when the hold was read."""
    verdict = summary.verdict
    return "" if verdict is None else f" by {verdict.actor} at {verdict.decided_at.astimezone():%Y-%m-%d %H:%M:%S}"


async def _holds(settings: Settings, account: str | None) -> tuple[HoldRow, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            return await list_holds(connection, account=account)


async def _summary(settings: Settings, hold_id: int | None, account: str | None) -> HoldSummary:
    """Read the hold that is meant; raises UserError when it is not clear which."""
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            found = await list_holds(connection, account=account, hold_id=hold_id, is_open=hold_id is None)
            if len(found) == 1:
                return await summarise(connection, found[0])
    if found:
        several = ", ".join(f"{hold.id} ({hold.account})" for hold in found)
        raise UserError(f"more than one mass change waits: {several}; say which")
    what = "no mass change waits" if hold_id is None else f"there is no hold {hold_id}"
    raise UserError(f"{what}; `syncd outbox holds` shows what there is")


async def _carry_out(settings: Settings, verdict: _Verdict, hold: HoldRow) -> tuple[bool, int]:
    """Decide, then let the entries follow batch by batch; after a crash the same command, or the daemon, goes on.

    Return whether it was not decided before, and how many followed.
    """
    async with opened(settings) as database:
        async with database.store.begin() as connection:
            is_new = await decide(
                connection, hold.id, verdict.status, verdict.actor, verdict.reason, transactions=hold.transactions
            )
        total = 0
        with Counted("following the decision", total=hold.held) as counted:
            async for moved in carry_out(database.store, hold.id):
                total += moved
                counted.add(moved)
        return is_new, total


def _prospect(settings: Settings, summary: HoldSummary) -> Prospect:
    rate_per_s, concurrency = _pace(settings, summary.hold.account)
    requests = busy_s = 0.0
    for operation, deliveries in summary.members.deliveries.items():
        cost = summary.costs.get(operation)
        requests += deliveries * (cost.calls if cost else _CALLS)
        busy_s += deliveries * (cost.elapsed_s if cost else _CALLS * _CALL_S)
    return Prospect(
        summary,
        sum(summary.members.deliveries.values()),
        round(requests),
        duration_s(requests, busy_s, rate_per_s, concurrency),
        rate_per_s,
        concurrency,
        sum(n for operation, n in summary.members.operations.items() if operation in MAILING_OPERATIONS),
    )


def _pace(settings: Settings, account: str) -> tuple[float, int]:
    """Return the account's own rate and width, or the general ones where its configuration is not at hand."""
    try:
        configs = session.accounts(settings)
    except SettingsError:
        configs = ()
    http = next((config.http for config in configs if config.name == account), None)
    return (http.rate_per_s, http.concurrency) if http else (settings.rate_per_s, settings.concurrency)


def _table(rows: tuple[HoldRow, ...]) -> object:
    columns = ["#hold", "account", "status", "#age", "#changes", "#relations", "~why"]
    return table("Mass changes", columns, (_row(hold) for hold in rows))


def _row(hold: HoldRow) -> list[object]:
    age_s = (SystemClock().now() - hold.opened_at).total_seconds()
    status = Text(hold.status, style=_COLOURS.get(hold.status, BAD))
    waiting = [None, None] if hold.finished_at is not None else [hold.held, hold.relations]
    return [str(hold.id), hold.account, status, span(age_s), *waiting, hold.reason]


def _show(prospect: Prospect) -> None:
    summary, console = prospect.summary, out()
    members = summary.members
    console.print(_table((summary.hold,)), "", sep="\n")
    if summary.became is not None:
        console.print(*_past(summary, summary.became), sep="\n", markup=False)
        return
    things = [[thing.operation, thing.about, thing.changes, thing.relations] for thing in summary.things]
    console.print(table("What it changes", ["change", "~of", "#changes", "#relations"], things), "", sep="\n")
    examples = [[example.email, example.operation, example.about] for example in summary.examples]
    console.print(table("For example", ["~relation", "change", "~of"], examples), "", sep="\n")
    console.print(
        f"Approving sends {members.changes} changes of {members.relations} relations: about {prospect.deliveries}"
        f" deliveries in {prospect.requests} requests,"
    )
    pace = f"{prospect.rate_per_s:g} requests/s, {prospect.concurrency} at once"
    console.print(f"which takes {span(prospect.estimated_s)} or more at the allowed pace ({pace}).")
    if prospect.may_mail:
        words = f"It may mail people: {prospect.may_mail} changes of tags, groups or lists can start e-mail campaigns."
        console.print(Text(words, style=BAD))
    else:
        console.print("None of it is known to mail people.")


def _past(summary: HoldSummary, became: Became) -> Iterator[str]:
    """Say of a decided hold what was decided, and what became of its changes."""
    hold, verdict = summary.hold, summary.verdict
    because = f": {verdict.reason}" if verdict is not None and verdict.reason else "."
    yield f"{hold.status.capitalize()}{_by_whom(summary)}{because}"
    if not became.changes:
        yield "None of its changes is kept any more."
        return
    statuses = ", ".join(f"{number(changes)} {status}" for status, changes in became.statuses.items())
    yield f"{number(became.changes)} changes of {number(became.relations)} relations are kept of it: {statuses}."
    if hold.held:
        verb = "approve" if hold.status == HoldStatus.APPROVED else "reject"
        yield f"{number(hold.held)} do not follow yet; the daemon sees to them, or `syncd outbox {verb} {hold.id}`."
