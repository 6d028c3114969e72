"""How pulls are shown, and what exit code they stand for: shared by ``pull`` and ``backfill``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from syncd.cli.page import BAD, GOOD, WARN, out, print_json, table
from syncd.domain.reports import RunReport

_COLUMNS = ["account", "stream", "result", "#took", "#received", "#new", "#changed", "#gone"]


def show(reports: Sequence[RunReport], *, as_json: bool) -> int:
    """Print the runs and return the exit code: 0 when all succeeded, else 1."""
    if as_json:
        print_json(reports)
    else:
        console = out()
        console.print(table("Runs", _COLUMNS, (_row(report) for report in reports)))
        for report in reports:
            if report.reason:
                console.print(Text(f"{report.account} {report.stream}: {report.reason}", style=BAD))
            for warning in report.warnings[:10]:
                console.print(Text(f"{report.account} {report.stream}: {warning}", style=WARN))
    return 0 if all(report.is_success for report in reports) else 1


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
