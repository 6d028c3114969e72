"""Progress of a one-shot command: a bar on a terminal, log lines elsewhere; the numbers are the same."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from syncd import log
from syncd.cli.page import span
from syncd.clock import SystemClock
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.inbound import Progress
from syncd.ops.metrics import Metrics
from syncd.ops.reporter import Reporter

LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Rows a second, or answers where each is asked for; ``left_s`` where it is known how many there are."""

    per_s: float
    left_s: float | None


def speed_of(progress: Progress, elapsed_s: float) -> Speed:
    """Return how fast a stream goes, ``elapsed_s`` after its first word."""
    done = progress.rows if progress.total is None else progress.done
    per_s = done / elapsed_s if elapsed_s > 0 else 0.0
    if progress.total is None or per_s <= 0:
        return Speed(per_s, None)
    return Speed(per_s, (progress.total - progress.done) / per_s)


def words_of(progress: Progress, speed: Speed) -> str:
    """Say where a stream is, how fast it goes and how long it will be."""
    size = f", {progress.bytes / 1e6:,.0f} MB" if progress.bytes >= 1e6 else ""
    count = f"{progress.rows:,} rows" if progress.total is None else f"{progress.done:,} of {progress.total:,}"
    left = "" if speed.left_s is None else f", {span(speed.left_s)} left"
    return f"{progress.stream}: {count}{size}, {speed.per_s:,.1f}/s{left}"


class Counted:
    """A bar of things done, on a terminal alone: nothing that is counted so takes long enough to be logged."""

    def __init__(self, title: str, total: int | None = None) -> None:
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not Console(stderr=True).is_terminal,
        )
        self._task = self._bar.add_task(title, total=total)

    def __enter__(self) -> Counted:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def add(self, number: int) -> None:
        self._bar.update(self._task, advance=number)


class Shown:
    """Told of every run and delivery, and of how much there is; shows it on standard error while the block lasts."""

    def __init__(self, title: str) -> None:
        console = Console(stderr=True)
        self._reporter = Reporter(Metrics())
        self._clock, self._logged_at = SystemClock(), 0.0
        self._log = log.get("syncd.cli")
        self._total = 0
        self._stream, self._stream_since = "", 0.0
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeElapsedColumn(), console=console, transient=True)
            self._task = self._bar.add_task(title, total=None)

    def __enter__(self) -> Shown:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """Say how many more steps there will be."""
        self._total += total
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)

    def run(self, report: RunReport) -> None:
        """One pull ended."""
        if self._bar is None:
            self._reporter.run(report)
        else:
            self._bar.update(self._task, advance=1, description=f"{report.account} {report.stream}")

    def progressed(self, progress: Progress) -> None:
        """A pull has come this far."""
        now = self._clock.monotonic()
        if progress.stream != self._stream:
            self._stream, self._stream_since = progress.stream, now
        speed = speed_of(progress, now - self._stream_since)
        if self._bar is not None:
            self._bar.update(self._task, description=words_of(progress, speed))
        elif now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            self._log.info(
                "backfill.progressed",
                stream=progress.stream,
                rows=progress.rows,
                bytes=progress.bytes,
                done=progress.done,
                total=progress.total,
                per_s=round(speed.per_s, 1),
                left_s=None if speed.left_s is None else round(speed.left_s),
            )

    def delivery(self, report: DeliveryReport) -> None:
        """One delivery ended."""
        if self._bar is None:
            self._reporter.delivery(report)
        else:
            self._bar.update(self._task, advance=len(report.entry_ids), description=f"{report.account} delivering")
