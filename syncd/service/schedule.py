"""When what is due: the only importer of APScheduler, and nothing but times.

A job is a call into the pipeline. Rounds that were missed (a long pull, a machine that slept) are made up by one, never
by many; a round never runs beside itself; and no round is ever dropped for being late.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from syncd.clock import Clock
from syncd.policy.staleness import JITTER_MAX_S, JITTER_SHARE


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` is called every ``every_s`` seconds with a little jitter, the first time after ``first_s``."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]
    first_s: float = 0.0


class Schedule:
    """Jobs that run between ``start`` and ``stop``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scheduler = AsyncIOScheduler(
            timezone="UTC",
            logger=_scheduler_log(),
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def add(self, job: Job) -> None:
        """Register a job; one with an interval of 0 is switched off."""
        if job.every_s <= 0:
            return
        self._scheduler.add_job(
            job.run,
            "interval",
            id=job.name,
            name=job.name,
            seconds=job.every_s,
            jitter=min(JITTER_MAX_S, job.every_s * JITTER_SHARE),
            next_run_time=self._first(job.first_s),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(job.id for job in self._scheduler.get_jobs())

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Start no further round; those under way go on, and are their owner's to end."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _first(self, seconds: float) -> datetime:
        return self._clock.now() + timedelta(seconds=seconds)


def _scheduler_log() -> logging.Logger:
    """Return APScheduler's logger without its warning of each round that finds the last one still under way: that a
    round never runs beside itself is the plan, and how long rounds take stands in their own lines."""
    logger = logging.getLogger("apscheduler.scheduler")
    logger.addFilter(_is_news)
    return logger


def _is_news(record: logging.LogRecord) -> bool:
    return "maximum number of running instances" not in str(record.msg)
