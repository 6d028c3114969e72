"""How pulls are shown, and what exit code they stand for: shared by ``pull`` and ``backfill``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from syncd.cli.ending import FAILED, OK, TRY_LATER
from syncd.cli.page import BAD, GOOD, WARN, out, print_json, table
from syncd.domain.reports import RunReport

_COLUMNS = ["account", "stream", "result", "#took", "#received", "#new", "#changed", "#gone"]


def show(reports: Sequence[RunReport], *, as_json: bool) -> int:
    """Print the runs and return the exit code."""
    if as_json:
        print_json(reports)
    else:
        console = out()
        console.print(table("Runs", _COLUMNS, (_row(report) for report in reports)))
        for report in reports:
            if report.reason:
                console.print(Text(f"{report.account} {report.stream}: {report.reason}", style=BAD))
            for sentence in report.news:
                console.print(Text(f"{report.account} {sentence}", style=WARN))
            for warning in report.warnings[:10]:
                console.print(Text(f"{report.account} {report.stream}: {warning}", style=WARN))
    return exit_code(reports)


def exit_code(reports: Sequence[RunReport]) -> int:
    """0 when all succeeded; 75 when all that failed may work later as it is; else 1."""
    failed = [report for report in reports if not report.is_success]
    if not failed:
        return OK
    return TRY_LATER if all(report.is_passing for report in failed) else FAILED


def _row(report: RunReport) -> list[object]:
    return [
        report.account,
        report.stream,
        Text(report.status, style=GOOD if report.is_success else BAD),
        f"{report.elapsed_s:.1f} s",
        report.received,
        report.inserted,
        report.updated,
        report.missing,
    ]
