"""``syncd backfill``: pull history, as far back as you say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click
from rich.text import Text

from syncd.cli import runs, session
from syncd.cli.ending import OK, TRY_LATER
from syncd.cli.page import GOOD, WARN, account_option, json_option, number, out, print_json, table
from syncd.cli.progress import Shown
from syncd.cli.pull import names_of, require_streams
from syncd.clock import SystemClock
from syncd.domain.reports import RunReport
from syncd.service.backfills import backfill, chosen, planned
from syncd.service.oneshot import opened_runtimes
from syncd.settings import AccountConfig, Settings
from syncd.store.backfilled import Standing

_PARENTS = {
    "group_members": "groups",
    "invoice_details": "invoices",
    "invoice_files": "invoices",
    "invoice_relations": "addresses",
}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was done, and what is proven by now."""

    runs: list[RunReport] = field(default_factory=list)
    proven: list[Standing] = field(default_factory=list)


class Day(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs of newer versions alone
    """A day that has begun, as the instant of its first second (UTC)."""

    name = "day"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            day = datetime.strptime(value.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"{value!r} is no day; write it as YYYY-MM-DD, such as 2019-01-01", param, ctx)
        if day > SystemClock().now():
            self.fail(f"{day:%Y-%m-%d} lies in the future", param, ctx)
        return day


@click.command(name="backfill")
@click.option(
    "--since",
    type=Day(),
    default="2000-01-01",
    show_default=True,
    metavar="YYYY-MM-DD",
    help="The oldest day to read.",
)
@click.option("--streams", metavar="NAME,...", default="", help="Only these; default: all but those of --relations.")
@click.option("--relations", is_flag=True, help="Also those that take a request for each relation.")
@account_option
@json_option
def command(since: datetime, streams: str, relations: bool, account: str | None, as_json: bool) -> int:
    """Pull history into the mirror. Resumable: what was proven before an interruption is not asked for again.

    It only reads from the CRM, and may run beside the daemon: while that has work it sends at most one request in ten
    seconds. Ends with 0 when all of it is proven; else the summary says what is not, and the same command goes on.

    \b
    Streams: administration, fields, tags, groups, lists, group_members,
      orders, invoices, invoice_details, invoice_relations,
      invoice_files (into SYNCD_INVOICE_FILES);
      of --relations, which asks for each relation by itself: relation_details,
      relation_tags, relation_subscriptions, relation_orders.

    \b
    Examples:
      syncd backfill --since 2015-01-01
      syncd backfill --relations
      syncd backfill --streams orders,invoices --json
    """
    settings = session.begin().settings
    configs = session.accounts(settings, account)
    named = names_of(streams)
    outcome = session.run(lambda: _backfill(settings, configs, since, named, relations))
    if as_json:
        print_json(outcome)
        code = runs.exit_code(outcome.runs)
    else:
        code = runs.show(outcome.runs, as_json=False)
        out().print("", _summary(outcome.proven), sep="\n")
    return code if code != OK or all(one.is_whole for one in outcome.proven) else TRY_LATER


async def _backfill(
    settings: Settings, configs: tuple[AccountConfig, ...], since: datetime, named: tuple[str, ...], relations: bool
) -> _Outcome:
    outcome, clock, streams = _Outcome(), SystemClock(), chosen(named, relations=relations)
    with Shown("backfill") as shown:
        async with opened_runtimes(settings, configs, shown) as runtimes:
            for runtime in runtimes:
                require_streams(runtime, named)
                own = planned(runtime, streams, named=bool(named))
                shown.expect(len(own))
                reports, proven = await backfill(runtime, clock, since, own, shown.progressed)
                outcome.runs.extend(reports)
                outcome.proven.extend(proven)
    return outcome


def _summary(proven: Sequence[Standing]) -> object:
    rows = [[one.account, one.stream, _whole(one), _told(one)] for one in proven]
    return table("Proven", ["account", "stream", "all of it", "~what"], rows)


def _whole(one: Standing) -> Text:
    return Text("yes", style=GOOD) if one.is_whole else Text("no", style=WARN)


def _none(one: Standing) -> str:
    return "nothing to ask for" if one.is_whole else "not read, for nothing is known yet to ask for"


def _told(one: Standing) -> str:
    if one.since is not None:
        spans = ", ".join(f"{span.lower:%Y-%m-%d %H:%M} to {span.upper:%Y-%m-%d %H:%M}" for span in one.unproven)
        return f"not proven: {spans} UTC" if spans else f"all since {one.since:%Y-%m-%d}"
    if one.parts is None:
        return "read whole" if one.is_whole else "not read"
    left, proven = one.parts - (one.proven or 0) - one.given_up, one.proven or 0
    unit = _PARENTS.get(one.stream, "relations")
    words = [f"{number(proven)} of {number(one.parts)} {unit}"] if one.parts else [_none(one)]
    words += [f"{number(left)} still to be asked for"] if left else []
    words += [f"{number(one.given_up)} refused by the CRM for good"] if one.given_up else []
    words += [f"except for tags of one name: {', '.join(map(repr, one.ambiguous))}"] if one.ambiguous else []
    return ", ".join(words)
