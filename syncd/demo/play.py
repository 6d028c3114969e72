"""The play itself: set the stage, fill the mirror, edit it, watch it arrive, judge."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from rich.console import Console

from syncd.clock import Clock, SystemClock
from syncd.demo import show
from syncd.demo.daemon import running_daemon
from syncd.demo.delivered import Arrival, arrivals, undelivered, unproven
from syncd.demo.edits import choose_cast, edits_of, make
from syncd.demo.options import DemoOptions
from syncd.demo.witness import Comparison, compare
from syncd.domain.errors import InfrastructureError
from syncd.sandbox import Sandbox, World
from syncd.sandbox.faults import Fault
from syncd.store import Store
from syncd.store.embedded import EmbeddedPostgres, default_data_dir
from syncd.store.throwaway import fresh_database

LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class Stage:
    """Everything that runs while the demo plays."""

    options: DemoOptions
    console: Console
    clock: Clock
    store: Store
    sandbox: Sandbox
    daemon: asyncio.subprocess.Process
    database_url: str
    directory: Path


async def run_demo(options: DemoOptions) -> int:
    """Play the demo and return its exit code: 0 when both sides are equal, 1 when anything differs."""
    console = show.console(sys.stderr if options.as_json else sys.stdout)
    async with set_stage(options, console) as stage:
        before = await fill_mirror(stage)
        await edit_mirror(stage)
        after = await watch_arrival(stage)
        code = await judge(stage, before, after)
        if not options.once:
            await stay(stage)
        return code


@asynccontextmanager
async def set_stage(options: DemoOptions, console: Console) -> AsyncIterator[Stage]:
    """Start the embedded Postgres, the simulator and the daemon; end them in the opposite order."""
    show.act(console, 1, "Starting the embedded Postgres, the simulated CRM and the daemon")
    directory = options.data_dir or default_data_dir() / "demo"
    async with EmbeddedPostgres(directory) as server_url:
        database_url = await fresh_database(server_url, "syncd_demo")
        world = World.seeded(options.relations, options.orders, options.invoices, options.seed)
        async with Sandbox(world) as sandbox, running_daemon(directory, told(sandbox, database_url)) as daemon:
            store = Store.open(database_url, pool_size=2)
            try:
                yield Stage(options, console, SystemClock(), store, sandbox, daemon, database_url, directory)
            finally:
                await store.close()


def told(sandbox: Sandbox, database_url: str) -> dict[str, str]:
    """The daemon's settings: what it would find in a real installation, with the simulator's address."""
    return {
        "SYNCD_DATABASE_URL": database_url,
        "SYNCD_BASE_URL": sandbox.base_url,
        "SYNCD_AUTORESPOND_ADMIN": str(sandbox.admin),
        "SYNCD_AUTORESPOND_KEY": sandbox.key,
    }


async def fill_mirror(stage: Stage) -> tuple[Comparison, ...]:
    """Wait until the mirror says what the CRM says, and show it."""
    show.act(stage.console, 2, "Pulling: what the CRM holds, mirrored into typed tables")
    found = await until_equal(stage)
    show.mirrored(stage.console, found)
    return found


async def edit_mirror(stage: Stage) -> None:
    """Arrange one lost answer and one 503, then edit the mirror with plain SQL."""
    show.act(stage.console, 3, "Editing the mirror with plain SQL; the CRM loses an answer and throws a 503")
    stage.sandbox.faults.add(Fault.parse("lost_answer:operation=tag_add"))
    stage.sandbox.faults.add(Fault.parse("status:operation=relation_email,status=503"))
    for edit in edits_of(await choose_cast(stage.store)):
        await make(stage.store, edit)
        show.edited(stage.console, edit)


async def watch_arrival(stage: Stage) -> tuple[Arrival, ...]:
    """Wait until the outbox is empty and pulls have shown what they can, and tell what the CRM made of it."""
    show.act(stage.console, 4, "What reached the CRM")
    deadline = stage.clock.monotonic() + stage.options.timeout_s
    while await undelivered(stage.store) or await unproven(stage.store):
        if stage.clock.monotonic() >= deadline:
            break
        await breathe(stage)
    found = await arrivals(stage.store, stage.sandbox.world)
    show.arrived(stage.console, found)
    return found


async def judge(stage: Stage, before: Sequence[Comparison], delivered: Sequence[Arrival]) -> int:
    """Compare both sides once more and say how it ended."""
    show.act(stage.console, 5, "Both sides, value by value")
    after = await until_equal(stage)
    show.mirrored(stage.console, after)
    show.differences(stage.console, after)
    left = await undelivered(stage.store)
    is_equal = not left and bool(delivered) and all(each.is_equal for each in (*before, *after))
    stage.console.print("   [bold green]Equal.[/]" if is_equal else f"   [bold red]Not equal[/], {left} undelivered.")
    if stage.options.as_json:
        verdict = {"equal": is_equal, "undelivered": left}
        shown = {"delivered": [asdict(each) for each in delivered], "compared": [asdict(each) for each in after]}
        print(json.dumps({**verdict, **shown}, default=str))
    return 0 if is_equal else 1


async def until_equal(stage: Stage) -> tuple[Comparison, ...]:
    """Compare until both sides are equal or time is up; the last comparison is returned either way."""
    deadline = stage.clock.monotonic() + stage.options.timeout_s
    while True:
        found = await compare_if_migrated(stage)
        if found and (all(each.is_equal for each in found) or stage.clock.monotonic() >= deadline):
            return found
        if stage.clock.monotonic() >= deadline:
            raise InfrastructureError(f"the daemon did not start in time; its log is {stage.directory / 'daemon.log'}")
        await breathe(stage)


async def compare_if_migrated(stage: Stage) -> tuple[Comparison, ...]:
    """Compare, or return nothing while the daemon has not made the tables yet."""
    async with stage.store.begin() as connection:
        is_there = (await connection.exec_driver_sql("SELECT to_regclass('crm.invoice_lines')")).scalar()
    return await compare(stage.store, stage.sandbox.world) if is_there else ()


async def breathe(stage: Stage) -> None:
    """Give the daemon a moment; fail at once when it has died."""
    if stage.daemon.returncode is not None:
        log = stage.directory / "daemon.log"
        raise InfrastructureError(f"the daemon ended with exit code {stage.daemon.returncode}; its log is {log}")
    await stage.clock.sleep(LOOK_EVERY_S)


async def stay(stage: Stage) -> None:
    """Leave everything running and say how to play on, until Ctrl-C."""
    url = plain_url(stage.database_url)
    show.invitation(stage.console, url, stage.sandbox.base_url, str(stage.directory / "daemon.log"))
    try:
        while True:
            await breathe(stage)
            await stage.clock.sleep(1)
    except asyncio.CancelledError:
        show.farewell(stage.console)  # this is how it is meant to end, and no failure


def plain_url(database_url: str) -> str:
    """Spell the URL of a local socket the short way, without escapes, for people and for psql."""
    parts = urlsplit(database_url)
    socket_dir = parse_qs(parts.query)["host"][0]
    return f"postgresql:///{parts.path.lstrip('/')}?host={quote(socket_dir)}&user={parts.username}"
