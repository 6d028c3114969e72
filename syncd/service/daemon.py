"""The daemon: its whole life in one function.

The health pages open before anything is waited for, so that a supervisor sees a living process whose ``/readyz`` says
what it waits for, instead of a start that seems to hang.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from syncd import __version__, log
from syncd.clock import Clock, SystemClock
from syncd.domain.audits import AuditReport
from syncd.domain.errors import InfrastructureError
from syncd.ops.health import Health
from syncd.ops.metrics import Metrics
from syncd.ops.reporter import Reporter
from syncd.ops.server import OpsServer
from syncd.service.accounts import AccountRuntime, opened_accounts
from syncd.service.audits import AccountAudits
from syncd.service.chores import AccountChores
from syncd.service.database import Database, DatabaseWatch, make_ready, opened
from syncd.service.drains import keep_draining
from syncd.service.lease import Lease
from syncd.service.notify import Notifier
from syncd.service.pulls import AccountPulls
from syncd.service.schedule import Schedule
from syncd.service.stopping import StopSignal
from syncd.settings import AccountConfig, Settings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lives as long as the process: settings, time, the wish to stop, and those who watch."""

    settings: Settings
    clock: Clock
    stop: StopSignal
    notifier: Notifier
    health: Health
    replica: str


async def run_daemon(settings: Settings, configs: Sequence[AccountConfig]) -> int:
    """Run until SIGTERM or SIGINT and return the exit code."""
    clock, metrics, replica = SystemClock(), Metrics(), settings.replica or replica_name()
    health = Health(metrics, replica, settings.horizon_days)
    async with (
        StopSignal() as stop,
        OpsServer(health, settings.ops_host, settings.ops_port),
        opened(settings) as database,
    ):
        around = Surroundings(settings, clock, stop, Notifier(), health, replica)
        watch = DatabaseWatch(database, clock)
        if await wait_until_ready(around, database, watch):
            reporter = Reporter(metrics)
            async with opened_accounts(configs, database.store, clock, reporter) as runtimes:
                for runtime in runtimes:  # all, before anybody stages: one drainer stages for all
                    await runtime.drainer.guarding.state(is_kept=True)
                await work(around, database, watch, runtimes, reporter.audit)
    log.get("syncd.service").info("service.stopped")
    return stop.exit_code


async def wait_until_ready(around: Surroundings, database: Database, watch: DatabaseWatch) -> bool:
    """Wait for the database and bring its schema up; False when told to stop first."""
    around.health.wait_for("the database")
    around.notifier.tell("STATUS=waiting for the database")
    while await watch.until_it_answers(around.stop.event, is_first=True):
        try:
            await make_ready(database, may_migrate=around.settings.migrate_on_start)
        except InfrastructureError:
            await watch.pause(1.0, around.stop.event)
        else:
            return True
    return False


async def work(
    around: Surroundings,
    database: Database,
    watch: DatabaseWatch,
    runtimes: tuple[AccountRuntime, ...],
    on_audit: Callable[[AuditReport], None],
) -> None:
    """Register the jobs, say that we are ready, wait for the signal, and end what is under way."""
    leases = [_lease(around, database, runtime) for runtime in runtimes]
    pulls = [
        AccountPulls(runtime, lease, database.store, around.clock)
        for runtime, lease in zip(runtimes, leases, strict=True)
    ]
    outbox = [AccountChores(runtime, lease, around.clock) for runtime, lease in zip(runtimes, leases, strict=True)]
    audits = [
        AccountAudits(runtime, lease, around.clock, on_audit) for runtime, lease in zip(runtimes, leases, strict=True)
    ]
    workers: list[AccountPulls | AccountChores | AccountAudits] = [*pulls, *outbox, *audits]
    schedule = _schedule(around.clock, workers)
    async with asyncio.TaskGroup() as group:
        chores = [group.create_task(chore) for chore in _chores(around, watch, leases, pulls)]
        drains = [
            group.create_task(keep_draining(runtime, watch, around.clock, around.stop.event)) for runtime in runtimes
        ]
        schedule.start()
        try:
            _say_ready(around, database, runtimes, schedule)
            await around.stop.event.wait()
            _say_stopping(around)
            ends = [account.finish() for account in workers]
            await _finish(around, [*drains, *map(group.create_task, ends)])
        finally:
            schedule.stop()
            for task in (*chores, *drains):
                task.cancel()
    await asyncio.gather(*(lease.release() for lease in leases))


def _lease(around: Surroundings, database: Database, runtime: AccountRuntime) -> Lease:
    lease_s = around.settings.replica_lease_s
    return Lease(database.store, around.clock, runtime.account, around.replica, lease_s)


def _schedule(clock: Clock, accounts: Sequence[AccountPulls | AccountChores | AccountAudits]) -> Schedule:
    schedule = Schedule(clock)
    for job in (job for account in accounts for job in account.jobs()):
        schedule.add(job)
    return schedule


def _chores(
    around: Surroundings, watch: DatabaseWatch, leases: Sequence[Lease], pulls: Sequence[AccountPulls]
) -> list[Coroutine[object, object, None]]:
    """Return what runs for as long as the daemon does."""
    keeping = [lease.keep() for lease in leases]
    leading = [account.lead() for account in pulls]
    return [around.notifier.keep_alive(around.clock), watch.keep_server(around.stop.event), *keeping, *leading]


async def _finish(around: Surroundings, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Let what is under way end within the grace; what does not is cancelled and resumed at the next start."""
    _, unfinished = await asyncio.wait(tasks, timeout=around.settings.stop_grace_s)
    for task in unfinished:
        task.cancel()
    if unfinished:
        log.get("syncd.service").warning("service.hurried", grace_s=around.settings.stop_grace_s)


def _say_ready(
    around: Surroundings, database: Database, runtimes: Sequence[AccountRuntime], schedule: Schedule
) -> None:
    around.health.serve(database.store)
    around.notifier.tell("READY=1", "STATUS=running")
    log.get("syncd.service").info(
        "service.started",
        version=__version__,
        replica=around.replica,
        accounts=[runtime.account.name for runtime in runtimes],
        database="embedded" if database.embedded else "external",
        jobs=len(schedule.names),
    )


def _say_stopping(around: Surroundings) -> None:
    around.health.wait_for("the end: stopping")
    around.notifier.tell("STOPPING=1", "STATUS=finishing what is claimed")
    log.get("syncd.service").info("service.stopping", grace_s=around.settings.stop_grace_s)


def replica_name() -> str:
    """Return this process's name among replicas."""
    return f"{socket.gethostname()}-{os.getpid()}"
