"""The daemon as a whole on bad days: its Postgres is killed under it, it is stopped meanwhile, an account throttles."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from syncd.domain.errors import InfrastructureError
from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.support.commands import accounts_file, daemon, syncd
from tests.support.outbox import rows, run_sql
from tests.support.proving import Say, is_long
from tests.support.world_edits import Rename, Transaction, commit, read_ledger
from tests.support.world_postgres import Cluster

pytestmark = pytest.mark.slow

GRACE_S = 8.0

long_form = pytest.mark.skipif(not is_long(), reason="it takes long, or times what it sees: make prove")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


def account(sandbox: Sandbox, url: str, **more: str) -> dict[str, str]:
    given = {"base_url": sandbox.base_url, "autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    return {"database_url": url, "send_lease_s": "10", "send_timeout_s": "5", **given, **more}


async def everybody(store: Store) -> list[int]:
    return [row["id"] for row in await rows(store, "SELECT id FROM crm.relations ORDER BY id")]


async def edit_on(store: Store) -> None:
    """Edit as an application that meets errors and goes on; whether it was committed, the ledger knows."""
    people = await everybody(store)
    for count in itertools.count():
        with suppress(InfrastructureError):
            await commit(store, Transaction((Rename(people[count % len(people)], "last_name", f"Name {count}"),)))
        await asyncio.sleep(0.05)


async def committed(store: Store) -> dict[int, str]:
    """Return the last committed name by the CRM's id, as the ledger has it."""
    ids = {row["id"]: int(row["remote_id"]) for row in await rows(store, "SELECT id, remote_id FROM crm.relations")}
    edits = [edit for edit in await read_ledger(store) if isinstance(edit, Rename)]
    return {ids[edit.who]: edit.value for edit in edits}


def holds(sandbox: Sandbox, names: dict[int, str]) -> bool:
    return all(sandbox.world.relations[number].last_name == name for number, name in names.items())


async def test_daemon_outlives_a_postgres_that_is_killed(
    tmp_path: Path, cluster: Cluster, cluster_url: str, cluster_store: Store, sandbox: Sandbox
) -> None:
    """It says so once when it goes and once when it is back, and delivers what was committed before, and since."""
    async with daemon(tmp_path, **account(sandbox, cluster_url)) as running:
        await running.until("run.finished", stream="relation_subscriptions", status="succeeded")
        editing = asyncio.create_task(edit_on(cluster_store))
        try:
            await sandbox.journal.until(lambda j: len(j.of("relation.changed")) >= 10, timeout_s=30)
            await cluster.kill()
            await running.until("database.lost")
            await cluster.revive()
            await running.until("database.recovered")
            seen = len(sandbox.journal)
            await sandbox.journal.until(lambda j: len(j.of("relation.changed")) >= seen + 5, timeout_s=30)
        finally:
            editing.cancel()
            await asyncio.wait([editing])
        names = await committed(cluster_store)
        await sandbox.journal.until(lambda j: holds(sandbox, names), timeout_s=30)
        assert await running.stopped() == 0
    assert (running.count("database.lost"), running.count("database.recovered")) == (1, 1)
    assert not [line for line in running.said if "Traceback" in line]


@long_form
async def test_daemon_that_is_stopped_while_its_postgres_is_away_loses_nothing(
    tmp_path: Path, cluster: Cluster, cluster_url: str, cluster_store: Store, sandbox: Sandbox
) -> None:
    """An answer came that nobody could write down: it ends within its grace, with 0, and the next one finds it out."""
    async with daemon(tmp_path, **account(sandbox, cluster_url, stop_grace_s=str(GRACE_S))) as running:
        await running.until("run.finished", stream="relation_subscriptions", status="succeeded")
        sandbox.faults.add("hold_answer", operation="relation_upsert")
        for who in await everybody(cluster_store):
            await commit(cluster_store, Transaction((Rename(who, "last_name", f"Kept {who}"),)))
        names = await committed(cluster_store)
        await sandbox.until_held()
        await cluster.kill()
        sandbox.release()
        await running.until("database.lost")
        started = asyncio.get_running_loop().time()
        assert await running.stopped() == 0
        assert asyncio.get_running_loop().time() - started < GRACE_S + 2
    await cluster.revive()
    async with asyncio.timeout(60):
        while (await syncd("drain", "--json", cwd=tmp_path, **account(sandbox, cluster_url))).json()[0]["pending"]:
            pass
    assert holds(sandbox, names)
    again = [each for each in sandbox.journal.of("relation.changed") if "Kept" in str(each.after)]
    assert len(again) == len(names), "sent again or not, each had its one effect"


@long_form
async def test_a_throttled_account_does_not_delay_another(
    tmp_path: Path, database: str, store: Store, proof: Say
) -> None:
    """Two administrations in one daemon: the patience that one asks for is not the other's."""
    async with (
        Sandbox(World.seeded(relations=6, orders=4, invoices=2, seed=1)) as slow,
        Sandbox(World.seeded(relations=6, orders=4, invoices=2, seed=2)) as quick,
    ):
        path = accounts_file(tmp_path, slow=slow, quick=quick)
        async with daemon(tmp_path, database_url=database, accounts_file=str(path)) as running:
            for name in ("slow", "quick"):
                while not any(
                    event.get("account") == name and event.get("stream") == "relation_subscriptions"
                    for event in running.events
                ):
                    await running.until("run.finished", stream="relation_subscriptions")
            slow.faults.add("status", operation="relation_upsert", status=429, retry_after_s=300, times=0)
            await rename_all(store, "slow", "Throttled")
            await slow.until_requests("relation_upsert", timeout_s=30)
            delays_s = [await delay_s(store, quick, f"Quick {count}", count) for count in range(1, 21)]
            assert await running.stopped() == 0
        left = await rows(
            store,
            "SELECT e.status, e.attempts FROM syncd.entries e JOIN crm.accounts a ON a.id = e.account_id "
            "WHERE a.name = 'slow'",
        )
    proof(f"two accounts, one throttled: commit to request of the other {statistics.median(delays_s) * 1000:.0f} ms")
    assert max(delays_s) < 2.0
    assert statistics.median(delays_s) < 0.5
    assert left == [{"status": "pending", "attempts": 0}] * 6, "unharmed: being told to wait costs no attempt"
    assert slow.requests.by_operation["relation_upsert"] <= 6


async def rename_all(store: Store, name: str, value: str) -> None:
    await run_sql(
        store,
        "UPDATE crm.relations SET last_name = :value FROM crm.accounts a WHERE a.id = account_id AND a.name = :name",
        value=value,
        name=name,
    )


async def delay_s(store: Store, crm: Sandbox, value: str, count: int) -> float:
    """Rename one relation and return how long it took from the commit to the request, by the simulator's clock."""
    await run_sql(
        store,
        "UPDATE crm.relations SET last_name = :value WHERE id = (SELECT min(r.id) FROM crm.relations r "
        "JOIN crm.accounts a ON a.id = r.account_id WHERE a.name = 'quick')",
        value=value,
    )
    done_at: datetime = crm.clock.now()
    await crm.until_requests("relation_upsert", count, timeout_s=30)
    return (crm.requests.of("relation_upsert")[-1].at - done_at).total_seconds()
