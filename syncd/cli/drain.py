"""``syncd drain``: deliver local changes until none is left that can be sent."""

from __future__ import annotations

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.ending import FAILED, OK, TRY_LATER
from syncd.cli.page import BAD, GOOD, account_option, json_option, out, print_json, table
from syncd.cli.progress import Shown
from syncd.domain.reports import DrainReport
from syncd.service.oneshot import opened_runtimes
from syncd.service.stopping import StopSignal
from syncd.settings import AccountConfig, Settings


@click.command(name="drain")
@account_option
@json_option
def command(account: str | None, as_json: bool) -> int:
    """Deliver local changes until none is left that can be sent now.

    Waits out short back-offs. Ctrl-C finishes what is claimed and stops. Exits 0 when every change is delivered, 75
    when one waits for its next try, 1 when one waits for you. A value whose first try may still land is sent once more
    after the settle window: those are counted ("again") and left to the daemon or the next drain.
    """
    settings = session.begin().settings
    configs = session.accounts(settings, account)
    reports = session.run(lambda: _drain(settings, configs))
    if as_json:
        print_json(reports)
    else:
        _show(reports)
    return max((_exit_code(report) for report in reports), default=OK, key=(OK, FAILED, TRY_LATER).index)


async def _drain(settings: Settings, configs: tuple[AccountConfig, ...]) -> list[DrainReport]:
    reports = []
    with Shown("delivering") as shown:
        async with opened_runtimes(settings, configs, shown) as runtimes, StopSignal() as stop:
            for runtime in runtimes:  # all, before anybody stages: one drainer stages for all
                await runtime.drainer.guarding.state(is_kept=False)
            for runtime in runtimes:
                shown.expect((await runtime.drainer.backlog()).pending)
                reports.append(await runtime.drainer.drain(stop.event))
    if stop.number is not None:
        raise session.Stopped(stop.number)
    return reports


def _exit_code(report: DrainReport) -> int:
    if report.pending or report.paused:
        return TRY_LATER
    return FAILED if report.blocked else OK


def _show(reports: list[DrainReport]) -> None:
    columns = ["account", "~result", "#took", "#delivered", "#retried", "#dead", "#parked", "#left", "#yours", "#again"]
    out().print(table("Drained", columns, (_row(report) for report in reports)))


def _row(report: DrainReport) -> list[object]:
    left = Text("waits for you", style=BAD) if report.blocked else Text("empty", style=GOOD)
    result = left if report.is_empty else Text("not empty", style=BAD)
    return [
        report.account,
        Text(f"paused: {report.paused}", style=BAD) if report.paused else result,
        f"{report.elapsed_s:.1f} s",
        report.delivered,
        report.retried,
        report.dead,
        report.parked,
        report.pending,
        report.blocked,
        report.reasserting,
    ]
