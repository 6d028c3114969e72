"""The daemon as a real process, against the simulator and a real Postgres, on good days and bad ones."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.conftest import admin, database_url
from tests.support.commands import accounts_file, daemon, free_port, proxied
from tests.support.embedded import reachable_directory

CANARY = "canary8f2d1c"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


def account(sandbox: Sandbox, database: str, **more: str) -> dict[str, str]:
    given = {"base_url": sandbox.base_url, "autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    return {"database_url": database, **given, **more}


async def page(port: int, path: str) -> tuple[int, str]:
    """Fetch one health page."""

    def fetch() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(fetch)


async def rename(store: Store, name: str) -> int:
    """Edit one mirrored relation as an application would; return its remote id."""
    async with store.begin() as connection:
        row = await connection.execute(
            text("UPDATE crm.relations SET last_name = :name WHERE id = 1 RETURNING remote_id"), {"name": name}
        )
        return int(row.scalar_one())


async def test_daemon_pulls_delivers_shows_and_stops(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """One life: started, mirror filled, an edit delivered, pages true, SIGTERM, exit 0, nothing left held."""
    port = free_port()
    async with daemon(tmp_path, **account(sandbox, database, ops_port=str(port))) as running:
        await running.until("service.started")
        await running.until("run.finished", stream="relation_subscriptions", status="succeeded")
        remote_id = await rename(store, "Changed")
        settled = await running.until("delivery.settled")
        assert settled["outcome"] in ("verified", "accepted")
        assert sandbox.world.relations[remote_id].last_name == "Changed"
        assert await page(port, "/livez") == (200, "ok\n")
        status, body = await page(port, "/readyz")
        assert (status, json.loads(body)["accounts"]) == (200, {"default": "in order"})
        metrics = (await page(port, "/metrics"))[1]
        for line in ("syncd_database_up 1.0", 'syncd_held_leases{account="default"} 1.0', "syncd_deliveries_total{"):
            assert line in metrics
        assert (await page(port, "/nothing"))[0] == 404
        assert await running.stopped() == 0
    names = [event.get("event") for event in running.events]
    assert names[-2:] == ["service.stopping", "service.stopped"]
    assert sandbox.key not in "\n".join([*running.said, metrics, body])
    async with store.begin() as connection:
        held = await connection.execute(text("SELECT count(*) FROM syncd.account_states WHERE lease_owner IS NOT NULL"))
        open_runs = await connection.execute(text("SELECT count(*) FROM syncd.runs WHERE status = 'running'"))
        assert (held.scalar_one(), open_runs.scalar_one()) == (0, 0)


async def test_daemon_waits_for_a_database_that_is_away_at_start(
    tmp_path: Path, sandbox: Sandbox, database: str
) -> None:
    """After a power cut everything starts at once; the database is seldom first. One line says so, not one a second."""
    port = free_port()
    async with (
        proxied(database, is_open=False) as proxy,
        daemon(tmp_path, **account(sandbox, proxy.url, ops_port=str(port))) as running,
    ):
        await running.until("database.lost")
        status, body = await page(port, "/readyz")
        assert (status, json.loads(body)["waiting_for"]) == (503, "the database")
        assert (await page(port, "/livez"))[0] == 200
        assert "syncd_database_up 0.0" in (await page(port, "/metrics"))[1]
        await proxy.open()
        await running.until("database.recovered")
        await running.until("service.started")
        assert (await page(port, "/readyz"))[0] == 200
        assert await running.stopped() == 0
    assert running.count("database.lost") == 1


async def test_daemon_outlives_a_database_that_goes_away(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A restart of Postgres costs a pause, never a change and never the process."""
    async with (
        proxied(database) as proxy,
        daemon(tmp_path, **account(sandbox, proxy.url, cadence_orders_s="1")) as running,
    ):
        await running.until("run.finished", stream="relation_subscriptions")
        await proxy.shut()
        await running.until("database.lost")
        remote_id = await rename(store, "Meanwhile")
        await proxy.open()
        await running.until("database.recovered")
        await running.until("delivery.settled")
        assert sandbox.world.relations[remote_id].last_name == "Meanwhile"
        assert await running.stopped() == 0
    assert running.count("database.lost") == running.count("database.recovered") == 1


async def test_daemon_can_be_stopped_while_it_waits(tmp_path: Path, sandbox: Sandbox) -> None:
    """An operator who gives up waiting must not need kill -9."""
    settings = account(sandbox, f"postgresql://u:{CANARY}@127.0.0.1:{free_port()}/x")
    async with daemon(tmp_path, **settings) as running:
        await running.until("database.lost")
        assert await running.stopped() == 0
    assert CANARY not in "\n".join(running.said)


async def test_missing_schema_in_ones_own_database_ends_the_daemon(
    tmp_path: Path, sandbox: Sandbox, server_url: str
) -> None:
    """syncd makes tables in somebody's database when told to, and not before."""
    name = "syncd_test_missing_schema"
    await admin(server_url, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    try:
        settings = account(sandbox, database_url(server_url, name))
        async with daemon(tmp_path, **settings) as refused:
            assert await refused.ended() == 78
        assert "run: syncd migrate" in refused.said[-1]
        async with daemon(tmp_path, **settings, migrate_on_start="true") as allowed:
            await allowed.until("schema.migrated")
            await allowed.until("service.started")
            assert await allowed.stopped() == 0
    finally:
        await admin(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_newer_schema_ends_the_daemon(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """78, so that no supervisor restarts an old program on a new schema for ever."""
    async with store.begin() as connection:
        await connection.execute(text("UPDATE syncd.alembic_version SET version_num = '9999'"))
    async with daemon(tmp_path, **account(sandbox, database, migrate_on_start="true")) as running:
        assert await running.ended() == 78
    assert "newer than this syncd" in running.said[-1]


async def test_wrong_key_pauses_the_account_and_not_the_process(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A refused key is for a person to mend; hammering the CRM with it is how accounts get locked."""
    port = free_port()
    settings = account(sandbox, database, autorespond_key=CANARY, ops_port=str(port), cadence_orders_s="1")
    async with daemon(tmp_path, **settings) as running:
        await running.until("account.paused")
        body = json.loads((await page(port, "/readyz"))[1])
        assert body["accounts"]["default"].startswith("paused: ")
        assert 'syncd_paused_accounts{account="default"} 1.0' in (await page(port, "/metrics"))[1]
        assert await running.stopped() == 0
    assert CANARY not in "\n".join(running.said)
    assert len(sandbox.requests) <= 3
    async with store.begin() as connection:
        stored = await connection.execute(text("SELECT string_agg(pause_reason, '') FROM syncd.account_states"))
        assert CANARY not in stored.scalar_one()


async def test_second_replica_waits_its_turn_to_pull(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """Two replicas must not ask everything twice; when the first leaves, the second takes over."""
    settings = account(sandbox, database, cadence_orders_s="1")
    async with daemon(tmp_path, replica="first", **settings) as first:
        await first.until("lease.taken")
        async with daemon(tmp_path, replica="second", **settings) as second:
            started = await second.until("service.started")
            while _age_s(started, await first.until("run.finished", stream="orders")) < 2.5:
                pass
            await rename(store, "Once")
            assert await first.stopped() == 0
            await second.until("lease.taken")
            await second.until("run.finished", stream="orders")
            assert await second.stopped() == 0
    before = second.events[: _position(second.events, "lease.taken")]
    assert not [event for event in before if event.get("event") == "run.finished"]


def _age_s(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Seconds between two log lines."""
    instants = [datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")) for event in (before, after)]
    return (instants[1] - instants[0]).total_seconds()


def _position(events: list[dict[str, object]], name: str) -> int:
    return next(index for index, event in enumerate(events) if event.get("event") == name)


async def test_systemd_is_told_the_truth(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """Type=notify: READY only when the jobs run, WATCHDOG while the loop turns, STOPPING before the end."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.setblocking(False)
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        async with daemon(tmp_path, env, **account(sandbox, database)) as running:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(60):
                words = [(await loop.sock_recv(channel, 4096)).decode()]
                while "READY=1" not in words[-1] or "WATCHDOG=1" not in " ".join(words):
                    words.append((await loop.sock_recv(channel, 4096)).decode())
                    if "WATCHDOG=1" in words[-1] and any("READY=1" in word for word in words):
                        break
            assert await running.stopped() == 0
        rest = []
        try:
            while True:
                rest.append(channel.recv(4096).decode())
        except BlockingIOError:
            pass
    assert words[0] == "STATUS=waiting for the database"
    assert any(word.startswith("STOPPING=1") for word in rest)


async def test_taken_port_is_a_matter_of_configuration(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """The sentence names the setting; restarting would not help."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with daemon(tmp_path, **account(sandbox, database, ops_port=port)) as running:
            assert await running.ended() == 78
    assert "SYNCD_OPS_PORT" in running.said[-1]


async def test_probe_asks_the_running_daemon(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """Container probes have no curl and see loopback alone."""
    import sys

    from tests.support.commands import environment

    port = str(free_port())

    async def probe(name: str) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "syncd.ops.probe",
            name,
            cwd=tmp_path,
            env=environment(ops_port=port),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()

    assert await probe("livez") == 1
    async with daemon(tmp_path, **account(sandbox, database, ops_port=port)) as running:
        await running.until("service.started")
        assert [await probe("livez"), await probe("readyz"), await probe("other")] == [0, 0, 2]
        assert await running.stopped() == 0


async def test_two_accounts_from_a_file_are_kept_apart(tmp_path: Path, database: str, store: Store) -> None:
    """Agencies run many administrations in one process; a key must reach its own CRM alone."""
    async with (
        Sandbox(World.seeded(relations=9, orders=20, invoices=5, seed=1)) as one,
        Sandbox(World.seeded(relations=9, orders=20, invoices=5, seed=2)) as two,
    ):
        path = accounts_file(tmp_path, one=one, two=two)
        async with daemon(tmp_path, database_url=database, accounts_file=str(path)) as running:
            await running.until("service.started", accounts=["one", "two"])
            for name in ("one", "two"):
                while not any(
                    event.get("account") == name and event.get("stream") == "orders" for event in running.events
                ):
                    await running.until("run.finished", stream="orders")
            assert await running.stopped() == 0
    async with store.begin() as connection:
        rows = await connection.execute(
            text("SELECT a.name, count(*) FROM crm.orders o JOIN crm.accounts a ON a.id = o.account_id GROUP BY 1")
        )
        names = [name for name, _ in rows]
    assert sorted(names) == ["one", "two"]


@pytest.mark.slow
async def test_daemon_keeps_a_postgres_of_its_own(tmp_path: Path, sandbox: Sandbox) -> None:
    """Without a database named, everything is made, migrated, revived when killed, and stopped with the daemon."""
    with reachable_directory(tmp_path) as home:
        settings = {**account(sandbox, ""), "data_dir": str(home), "cadence_orders_s": "1"}
        async with daemon(tmp_path, **settings) as running:
            await running.until("schema.migrated")
            await running.until("run.finished", stream="orders", status="succeeded")
            os.kill(int((home / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            await running.until("server.revived")
            await running.until("run.finished", stream="orders", status="succeeded")
            assert await running.stopped() == 0
        assert not (home / "postgres" / "postmaster.pid").exists()
