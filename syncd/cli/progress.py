"""Progress of a one-shot command: a bar on a terminal, log lines elsewhere; the numbers are the same."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from syncd import log
from syncd.cli.page import number, span
from syncd.clock import SystemClock
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.inbound import Progress
from syncd.ops.metrics import Metrics
from syncd.ops.reporter import Reporter

LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Rows a second, or answers where each is asked for, or bytes of an answer that is still coming; ``left_s`` where
    it is known how much there is."""

    per_s: float
    left_s: float | None


def speed_of(progress: Progress, elapsed_s: float) -> Speed:
    """Return how fast a stream goes, ``elapsed_s`` after its first word."""
    share = share_of(progress)
    left_s = elapsed_s * (1 - share) / share if share and elapsed_s > 0 else None
    return Speed(_counted(progress) / elapsed_s if elapsed_s > 0 else 0.0, left_s)


def share_of(progress: Progress) -> float | None:
    """Return how much of a stream is done, from 0 to 1, where that is known."""
    if progress.total is not None:
        return progress.done / progress.total if progress.total else 1.0
    return progress.share_read


def words_of(progress: Progress, speed: Speed) -> str:
    """Say where a stream is, how fast it goes and how long it will be."""
    size = f"{number(round(progress.bytes / 1e6))} MB"
    if progress.is_receiving:
        return f"{progress.stream}: {size} received, {_rate(speed.per_s / 1e6)} MB/s"
    if progress.total is not None:
        count = f"{number(progress.done)} of {number(progress.total)}"
    else:
        count = f"{number(progress.rows)} rows" + (f" of {size}" if progress.bytes >= 1e6 else "")
    left = "" if speed.left_s is None else f", {span(speed.left_s)} left"
    return f"{progress.stream}: {count}, {_rate(speed.per_s)}/s{left}"


def _rate(per_s: float) -> str:
    return f"{per_s:.1f}" if per_s < 100 else number(round(per_s))


def _counted(progress: Progress) -> int:
    if progress.is_receiving:
        return progress.bytes
    return progress.rows if progress.total is None else progress.done


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
        self._phase, self._since = ("", False), 0.0
        self._streams = 0
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
        self.step(f"{report.account} {report.stream}")

    def step(self, words: str) -> None:
        """One of the expected steps ended. What is under way moves the bar on from the steps that have."""
        self._streams += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._streams, description=words)

    def progressed(self, progress: Progress) -> None:
        """A pull has come this far."""
        now, phase = self._clock.monotonic(), (progress.stream, progress.is_receiving)
        if phase != self._phase:
            self._phase, self._since = phase, now
        speed = speed_of(progress, now - self._since)
        if self._bar is not None:
            done = self._streams + min(0.99, share_of(progress) or 0.0)  # the whole is its report's to say
            self._bar.update(self._task, completed=done, description=words_of(progress, speed))
        elif now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            self._log.info(
                "backfill.progressed",
                stream=progress.stream,
                rows=progress.rows,
                bytes=progress.bytes,
                done=progress.done,
                total=progress.total,
                is_receiving=progress.is_receiving,
                per_s=round(speed.per_s, 1),
                left_s=None if speed.left_s is None else round(speed.left_s),
            )

    def delivery(self, report: DeliveryReport) -> None:
        """One delivery ended."""
        if self._bar is None:
            self._reporter.delivery(report)
        else:
            self._bar.update(self._task, advance=len(report.entry_ids), description=f"{report.account} delivering")
