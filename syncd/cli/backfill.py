"""``syncd backfill``: pull history, as far back as you say."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from syncd.cli import runs, session
from syncd.cli.page import account_option, json_option
from syncd.cli.progress import Shown
from syncd.cli.pull import require_streams
from syncd.clock import SystemClock
from syncd.domain.reports import RunReport
from syncd.inbound import ORDER
from syncd.service.oneshot import opened_runtimes
from syncd.settings import AccountConfig, Settings


@click.command(name="backfill")
@click.option(
    "--since",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    default="2000-01-01",
    show_default=True,
    metavar="YYYY-MM-DD",
    help="The oldest day to read.",
)
@click.option("--streams", metavar="NAME,...", default="", help="Only these streams; default: all.")
@account_option
@json_option
def command(since: datetime, streams: str, account: str | None, as_json: bool) -> int:
    """Pull history into the mirror. Resumable: what was proven before an interruption is not asked for again.

    It only reads from the CRM, at the same rate as everything else, so it may run beside the daemon.
    """
    since = since.replace(tzinfo=UTC)
    if since > SystemClock().now():
        raise click.BadParameter(f"{since:%Y-%m-%d} lies in the future", param_hint="'--since'")
    settings = session.begin().settings
    configs = session.accounts(settings, account)
    names = tuple(name.strip() for name in streams.split(",") if name.strip())
    return runs.show(session.run(lambda: _backfill(settings, configs, since, names)), as_json=as_json)


async def _backfill(
    settings: Settings, configs: tuple[AccountConfig, ...], since: datetime, streams: tuple[str, ...]
) -> list[RunReport]:
    reports: list[RunReport] = []
    with Shown("backfill") as shown:
        async with opened_runtimes(settings, configs, shown) as runtimes:
            for runtime in runtimes:
                require_streams(runtime, streams)
                shown.expect(len(streams) or len(ORDER))
                reports += await runtime.puller.backfill(since, streams or None, shown.progressed)
    return reports
