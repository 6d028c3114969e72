"""Signals: Ctrl-C at any time ends in one line and loses nothing; a second one is obeyed at once."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from syncd.sandbox import Fault, Kind, Sandbox, World
from syncd.store import Store
from tests.support.commands import daemon, environment, reap, spawn, syncd


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


def account(sandbox: Sandbox, database: str) -> dict[str, str]:
    given = {"base_url": sandbox.base_url, "autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    return {"database_url": database, "rate_per_s": "1000", **given}


async def interrupted(process: asyncio.subprocess.Process, number: int) -> tuple[int, str]:
    """Send a signal and return the exit code and what standard error said."""
    process.send_signal(number)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "closing of the terminal")],
)
async def test_signal_during_a_pull_ends_it_in_one_line(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store, number: int, code: int, words: str
) -> None:
    """The hole stays a hole, no run looks as if it went on, and the same command goes on from there."""
    sandbox.faults.add(Fault(kind=Kind.HOLD, operation="orders"))
    process = await spawn("pull", "orders", cwd=tmp_path, **account(sandbox, database))
    try:
        await sandbox.until_held(timeout_s=60)
        ended, err = await interrupted(process, number)
    finally:
        await reap(process)
        sandbox.release()
    assert ended == code
    assert words in err
    assert "Traceback" not in err
    async with store.begin() as connection:
        (run,) = await connection.execute(text("SELECT status, reason FROM syncd.runs"))
    assert tuple(run) == ("abandoned", "it was stopped")
    again = await syncd("pull", "orders", "--json", cwd=tmp_path, **account(sandbox, database))
    assert (again.code, again.json()[0]["received"]) == (0, len(sandbox.world.orders) and again.json()[0]["received"])


STUBBORN = """
import asyncio
from syncd.cli import session

async def work():
    while True:
        print("at it", flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

session.run(work)
"""


async def test_second_ctrl_c_ends_a_command_at_once(tmp_path: Path) -> None:
    """The first leaves properly, however long that takes; the second takes no time at all."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUBBORN, cwd=tmp_path, env=environment(), stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    try:
        for _ in range(2):
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"at it\n"
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await process.communicate() == (b"", b"")
    finally:
        await reap(process)
    assert process.returncode == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_during_a_drain_settles_what_was_sent(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store, number: int, code: int
) -> None:
    """The call under way is finished and written down; nothing of it is sent again."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'Held' WHERE id = 1"))
    sandbox.faults.add(Fault(kind=Kind.HOLD, operation="relation_upsert"))
    process = await spawn("drain", cwd=tmp_path, **settings)
    try:
        await sandbox.until_held(timeout_s=60)
        process.send_signal(number)
        sandbox.release()
        async with asyncio.timeout(60):
            _, err = await process.communicate()
    finally:
        await reap(process)
    assert process.returncode == code
    assert b"Traceback" not in err
    again = await syncd("drain", "--json", cwd=tmp_path, **settings)
    assert (again.code, again.json()[0]["pending"]) == (0, 0)
    changes = [effect for effect in sandbox.journal if "Held" in repr(effect)]
    assert len(changes) == 1


async def test_ctrl_c_stops_the_daemon_cleanly_with_130(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """A person at a terminal gets the same clean stop as a supervisor."""
    async with daemon(tmp_path, **account(sandbox, database)) as running:
        await running.until("service.started")
        assert await running.stopped(signal.SIGINT) == 130
    assert running.count("service.stopped") == 1
    assert running.said[-1].startswith("syncd: stopped by Ctrl-C")


async def test_second_signal_ends_the_daemon_at_once(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """Whoever asks twice means it: no grace, however long a request hangs."""
    sandbox.faults.add(Fault(kind=Kind.HOLD, operation="fields"))
    async with daemon(tmp_path, **account(sandbox, database), stop_grace_s="600") as running:
        await sandbox.until_held(timeout_s=60)
        running.process.send_signal(signal.SIGTERM)
        await running.until("service.stopping")
        assert await running.stopped(signal.SIGTERM) == 128 + signal.SIGTERM
    sandbox.release()


async def test_stop_does_not_wait_longer_than_its_grace(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """A supervisor kills after its own patience; ours must end first, and say that it hurried."""
    sandbox.faults.add(Fault(kind=Kind.HOLD, operation="fields"))
    async with daemon(tmp_path, **account(sandbox, database), stop_grace_s="1") as running:
        await sandbox.until_held(timeout_s=60)
        assert await running.stopped() == 0
    assert running.count("service.hurried") == 1
    sandbox.release()


async def test_killed_daemon_leaves_a_mirror_that_the_next_one_goes_on_from(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """kill -9 in the middle of a pull: the run is closed as abandoned, and the hole is refilled."""
    sandbox.faults.add(Fault(kind=Kind.HOLD, operation="orders"))
    async with daemon(tmp_path, **account(sandbox, database)) as killed:
        await sandbox.until_held(timeout_s=60)
        await killed.stopped(signal.SIGKILL)
    sandbox.release()
    async with daemon(tmp_path, **account(sandbox, database)) as running:
        await running.until("run.finished", stream="orders", status="succeeded")
        assert await running.stopped() == 0
    async with store.begin() as connection:
        statuses = await connection.execute(text("SELECT status FROM syncd.runs WHERE stream = 'orders' ORDER BY id"))
        assert [status for (status,) in statuses][:2] == ["abandoned", "succeeded"]
