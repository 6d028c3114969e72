"""``syncd erase`` from the outside: what it shows, whom it asks, what it refuses, and that it survives being killed."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.process import test_cli_holds
from tests.support.commands import Ended, daemon, environment, reap, spawn, syncd
from tests.support.erasing import EMAIL, FIRST, LAST, VALUES, left, make_person, until_suppressed
from tests.support.outbox import rows, run_sql


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(12, 40, 24, seed=7)) as box:
        make_person(box.world)
        yield box


def account(sandbox: Sandbox, database: str, **more: str) -> dict[str, str]:
    """The settings of an account whose whole history is read."""
    return test_cli_holds.account(sandbox, database, horizon_days="3650", **more)


def silent(ended: Ended) -> bool:
    """Tell whether nothing that was said names the person."""
    return not [value for value in VALUES if value.lower() in ended.both.lower()]


async def test_an_erasure_from_looking_to_the_receipt(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """What an operator does when somebody asks to be forgotten."""
    settings = account(sandbox, database, log_level="debug", log_format="json")
    await syncd("pull", cwd=tmp_path, **account(sandbox, database))
    before = await left(store)
    looked = await syncd("erase", EMAIL.upper(), "--dry-run", cwd=tmp_path, **settings)
    assert (looked.code, silent(looked)) == (0, True), looked.both
    assert "kept, with stand-ins" in looked.out
    assert await left(store) == before, "a dry run changes nothing"
    assert await rows(store, "SELECT * FROM syncd.erasures") == []
    refused = await syncd("erase", EMAIL, cwd=tmp_path, **settings)
    assert (refused.code, "erase with --yes" in refused.err, refused.out) == (2, True, "")
    unknown = await syncd("erase", "nobody@x.example", "--yes", cwd=tmp_path, **settings)
    assert (unknown.code, unknown.out) == (1, "")
    assert "nobody with this address is known here; nothing was erased" in unknown.err
    done = await syncd("erase", EMAIL, "--yes", "--actor", "jan", cwd=tmp_path, **settings)
    assert (done.code, silent(done)) == (0, True), done.both
    for words in ("Receipt 1", "erased by jan", "delete relation", "kept for the books", "Backups", "VACUUM"):
        assert words in done.out, words
    assert await left(store) == []
    await syncd("pull", cwd=tmp_path, **settings)
    assert await left(store) == []
    listed = (await syncd("erase", "--list", "--json", cwd=tmp_path, **settings)).json()
    assert [(one["id"], one["actor"], one["counts"]["crm.relations"]) for one in listed] == [(1, "jan", 1)]
    back = await syncd("erase", "--readmit", listed[0]["hash"], cwd=tmp_path, **settings)
    assert (back.code, "readmitted (receipts 1)" in back.out) == (0, True)
    nobody = await syncd("erase", "--readmit", EMAIL, cwd=tmp_path, **settings)
    assert (nobody.code, silent(nobody)) == (1, True)
    await syncd("pull", cwd=tmp_path, **settings)
    assert await left(store) != []


async def test_undelivered_changes_are_shown_and_refused(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """Nothing is lost silently."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    await run_sql(store, "UPDATE crm.relations SET first_name = 'Kanarie' WHERE email = :e", e=EMAIL)
    refused = await syncd("erase", EMAIL, "--yes", cwd=tmp_path, **settings)
    assert (refused.code, "--drop-undelivered" in refused.err) == (2, True)
    assert "update_profile" in refused.out
    done = await syncd("erase", EMAIL, "--yes", "--drop-undelivered", "--json", cwd=tmp_path, **settings)
    assert done.code == 0, done.both
    document = done.json()
    assert document["receipt"]["counts"]["syncd.captures"] == 1
    assert any("1 local changes were given up" in line for line in document["by_hand"])
    assert await left(store, (*VALUES, "Kanarie")) == []


async def test_the_address_may_come_from_standard_input(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A command line is in the shell's history and in every list of processes."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "syncd", "erase", "-", "--yes"),
        cwd=tmp_path,
        env=environment(**settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(EMAIL.encode() + b"\n")
    assert process.returncode == 0, (out, err)
    assert await left(store) == []


@pytest.mark.parametrize(("typed", "code"), [(EMAIL.lower(), 0), ("yes", 2)])
async def test_on_a_terminal_the_address_must_be_typed(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store, typed: str, code: int
) -> None:
    """ "y" is typed before one has read; an address is not."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "syncd", "erase", EMAIL),
        cwd=tmp_path,
        env=environment(**settings),
        stdin=follower,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(follower)
    os.write(leader, typed.encode() + b"\n")
    await process.communicate()
    os.close(leader)
    assert process.returncode == code
    assert (await left(store) == []) is (code == 0)


async def test_a_killed_erasure_is_finished_by_the_same_command(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """kill -9 in the middle: some of the rows are gone, nobody comes back meanwhile, and the rest goes later."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    orders = len(await rows(store, "SELECT id FROM crm.orders WHERE relation_email = :e", e=EMAIL))
    assert orders
    async with store.begin() as application:
        await application.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        await application.exec_driver_sql(f"UPDATE crm.relations SET suffix = 'x' WHERE email = '{EMAIL}'")
        process = await spawn("erase", EMAIL, "--yes", cwd=tmp_path, **settings)
        async with asyncio.timeout(60):
            await until_suppressed(store)
            while await rows(store, "SELECT id FROM crm.orders WHERE relation_email = :e", e=EMAIL):
                continue
        process.send_signal(signal.SIGKILL)
        await reap(process)
        await application.rollback()
    assert await left(store) != []
    await syncd("pull", cwd=tmp_path, **settings)
    assert await rows(store, "SELECT id FROM crm.orders WHERE relation_email = :e", e=EMAIL) == []
    listed = await syncd("erase", "--list", cwd=tmp_path, **settings)
    assert "not finished" in listed.out
    done = await syncd("erase", EMAIL, "--yes", "--json", cwd=tmp_path, **settings)
    assert done.code == 0, done.both
    receipt = done.json()["receipt"]
    assert (receipt["id"], receipt["counts"]["crm.orders"]) == (1, orders)
    assert await left(store) == []


async def test_people_are_erased_beside_a_running_daemon(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """It pulls everything every second or two and delivers edits of all, of those who are erased at that moment too."""
    fast = {f"cadence_{name}_s": "1" for name in ("orders", "invoices", "group_members", "relation_tags")}
    settings = account(sandbox, database, **fast, cadence_relation_orders_s="1", cadence_invoice_details_s="1")
    await syncd("pull", cwd=tmp_path, **settings)
    people = [row["email"] for row in await rows(store, "SELECT email FROM crm.relations ORDER BY id")]
    chosen = [EMAIL, *(email for email in people if email != EMAIL)][:5]
    async with daemon(tmp_path, **settings) as running:
        await running.until("run.finished", stream="group_members")
        for email in chosen:
            await run_sql(store, "UPDATE crm.relations SET last_name = last_name || 'x' WHERE remote_id IS NOT NULL")
            done = await syncd("erase", email, "--yes", "--drop-undelivered", cwd=tmp_path, **settings)
            assert done.code == 0, done.both
        await running.until("run.finished", stream="group_members")
        await running.until("run.finished", stream="relation_orders")
        assert await running.stopped() == 0
    said = "\n".join(running.said).lower()
    assert not [value for value in (EMAIL, FIRST, LAST) if value.lower() in said]
    found = [said[said.index(word) :][:4000] for word in ("deadlock", "traceback", "unexpected") if word in said]
    assert not found, found
    assert await left(store, (*VALUES, *chosen)) == []
