"""The daemon's chores, in process: who may do them, what they leave behind when they are stopped, what they survive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from syncd.clock import Clock, SystemClock
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.sandbox import Sandbox, World
from syncd.service.accounts import AccountRuntime, opened_accounts
from syncd.service.chores import AccountChores
from syncd.service.lease import Lease
from syncd.settings import Settings, resolve_accounts
from syncd.store import Store
from syncd.store.outbox import decide, set_guard
from tests.support.clock import ManualClock
from tests.support.holds import burst, holds, staged_all
from tests.support.logs import Captured, captured_logs
from tests.support.outbox import rows, run_sql


class _Silent:
    """Nothing is pulled or delivered here."""

    def run(self, report: RunReport) -> None:
        raise AssertionError("nothing is pulled here")

    def delivery(self, report: DeliveryReport) -> None:
        raise AssertionError("nothing is delivered here")


@asynccontextmanager
async def _opened(store: Store, **given: float) -> AsyncIterator[AccountRuntime]:
    async with Sandbox(World.seeded(relations=2, orders=0, invoices=0, seed=3)) as sandbox:
        settings = Settings(
            base_url=sandbox.base_url,
            autorespond_admin=sandbox.admin,
            autorespond_key=SecretStr(sandbox.key),
            **{"keep_sent_days": 30, **given},
        )
        configs = resolve_accounts(settings).configs
        async with opened_accounts(configs, store, SystemClock(), _Silent()) as (runtime,):
            yield runtime


@pytest.fixture
async def runtime(store: Store) -> AsyncIterator[AccountRuntime]:
    async with _opened(store) as opened:
        yield opened


async def _chores(
    runtime: AccountRuntime, *, owner: str = "one", clock: Clock | None = None
) -> tuple[AccountChores, Lease]:
    """The chores of a replica that has asked for the lease."""
    lease = Lease(runtime.store, SystemClock(), runtime.account, owner, 60)
    await lease.renew()
    return AccountChores(runtime, lease, clock or SystemClock()), lease


async def _delivered(runtime: AccountRuntime, number: int, *, days_ago: int) -> None:
    """Entries of one lane that were delivered so long ago."""
    await run_sql(
        runtime.store,
        """WITH lane AS (
               INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, acked_seq)
               VALUES (:account_id, (SELECT count(*) FROM syncd.lanes), :number, :number) RETURNING id)
           INSERT INTO syncd.entries
               (lane_id, seq, account_id, operation, facet, payload, status, xact, captured_at, staged_at, settled_at)
           SELECT lane.id, n, :account_id, 'add_tag', 'tag:1', '{}', 'accepted', pg_current_xact_id(), at, at, at
           FROM lane, generate_series(1, :number) n, (SELECT now() - make_interval(days => :days) AS at) AS told""",
        account_id=runtime.account.id,
        number=number,
        days=days_ago,
    )


def _told(logged: Captured) -> list[dict[str, Any]]:
    """What was logged, but for who holds the lease."""
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    return [line for line in lines if not line["event"].startswith("lease.")]


async def _left(store: Store) -> int:
    return int((await rows(store, "SELECT count(*) AS n FROM syncd.entries"))[0]["n"])


async def _decided_hold(runtime: AccountRuntime) -> None:
    """A mass change that was approved, and whose entries were not released: whoever did it died."""
    store, account_id = runtime.store, runtime.account.id
    async with store.begin_remote() as connection:
        await connection.exec_driver_sql(
            f"INSERT INTO crm.relations (id, account_id, remote_id, email) "
            f"SELECT n, {account_id}, n, n || '@x.example' FROM generate_series(1, 20) n"
        )
        await connection.exec_driver_sql(
            f"INSERT INTO crm.tags (id, account_id, remote_id, name) VALUES (1, {account_id}, '1', 'one')"
        )
    async with store.begin() as connection:
        await set_guard(connection, account_id, Guard(relations=10, share=0))
    await burst(store, 1, 20)
    await staged_all(store)
    async with store.begin() as connection:
        await decide(connection, (await holds(store))[0]["id"], HoldStatus.APPROVED, "jan", "as planned")


async def _statuses(store: Store) -> dict[str, int]:
    found = await rows(store, "SELECT status, count(*) AS n FROM syncd.entries GROUP BY status")
    return {row["status"]: row["n"] for row in found}


async def test_what_was_delivered_longer_ago_than_is_kept_goes(runtime: AccountRuntime, store: Store) -> None:
    """A table that only grows is a disk that fills; the setting says what a person may still want to look up."""
    await _delivered(runtime, 5, days_ago=31)
    await _delivered(runtime, 3, days_ago=29)
    with captured_logs(json=True, level="info") as logged:
        chores, _ = await _chores(runtime)
        await chores.prune()
        await chores.prune()
    assert await _left(store) == 3
    told = [(line["event"], line["entries"]) for line in _told(logged)]
    assert told == [("outbox.pruned", 5)], "the second found nothing"


async def test_a_decision_that_a_crash_cut_short_is_carried_out(runtime: AccountRuntime, store: Store) -> None:
    """The person said yes and saw it said; nobody would say it again."""
    await _decided_hold(runtime)
    assert await _statuses(store) == {"held": 20}
    chores, _ = await _chores(runtime)
    await chores.finish_holds()
    assert await _statuses(store) == {"pending": 20}
    assert [hold["finished_at"] is not None for hold in await holds(store)] == [True]


async def test_only_the_holder_of_the_lease_does_chores(runtime: AccountRuntime, store: Store) -> None:
    """Two replicas would walk the same entries at the same time, each in the way of the other."""
    await _delivered(runtime, 5, days_ago=31)
    await _decided_hold(runtime)
    one, lease = await _chores(runtime, owner="one")
    other, others = await _chores(runtime, owner="other")
    await other.prune()
    await other.finish_holds()
    assert await _statuses(store) == {"accepted": 5, "held": 20}
    await lease.release()
    await one.prune()
    await one.finish_holds()
    assert await _statuses(store) == {"accepted": 5, "held": 20}, "it was given away"
    await others.renew()
    await other.prune()
    await other.finish_holds()
    assert await _statuses(store) == {"pending": 20}


async def test_a_long_walk_pauses_and_heeds_the_stop_between_two_batches(runtime: AccountRuntime, store: Store) -> None:
    """A million old entries must neither slow deliveries down nor hold up the end of the daemon."""
    await _delivered(runtime, 2500, days_ago=31)
    clock = ManualClock()
    chores, _ = await _chores(runtime, clock=clock)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        walk = group.create_task(chores.prune())
        await clock.until_sleeping()
        assert await _left(store) == 1500
        ending = group.create_task(chores.finish())
        await asyncio.sleep(0)
        assert not ending.done(), "it waits for the batch under way"
        await clock.advance(1)
        await walk
    assert await _left(store) == 1500
    await chores.prune()
    await chores.finish_holds()
    assert await _left(store) == 1500, "nothing begins after the stop"


async def test_a_walk_ends_when_the_lease_is_lost_on_the_way(runtime: AccountRuntime, store: Store) -> None:
    """Whoever holds it now has begun a walk of its own."""
    await _delivered(runtime, 2500, days_ago=31)
    clock = ManualClock()
    chores, lease = await _chores(runtime, clock=clock)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        walk = group.create_task(chores.prune())
        await clock.until_sleeping()
        await lease.release()
        await clock.advance(1)
        await walk
    assert await _left(store) == 1500


async def test_a_chore_that_breaks_is_told_and_the_next_round_goes_on(runtime: AccountRuntime, store: Store) -> None:
    """One broken chore must not end the daemon."""
    await _delivered(runtime, 5, days_ago=31)
    await run_sql(store, "ALTER TABLE syncd.attempts RENAME TO away")
    with captured_logs(json=True, level="info") as logged:
        chores, _ = await _chores(runtime)
        await chores.prune()
    assert [line["event"] for line in _told(logged)] == ["chore.crashed"]
    assert await _left(store) == 5, "in one transaction with what it could not do"
    await run_sql(store, "ALTER TABLE syncd.away RENAME TO attempts")
    await chores.prune()
    assert await _left(store) == 0


async def test_an_absent_database_is_told_by_others(runtime: AccountRuntime) -> None:
    """The drainer has said so already; a chore that says it every half minute buries what matters."""
    away = Store.open("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    _, lease = await _chores(runtime)
    with captured_logs(json=True, level="info") as logged:
        chores = AccountChores(replace(runtime, store=away), lease, SystemClock())
        await chores.prune()
        await chores.finish_holds()
    await away.close()
    assert _told(logged) == []


@pytest.mark.parametrize(("days", "is_pruned"), [(30.0, True), (0.0, False)])
@pytest.mark.parametrize(
    ("setting", "job"), [("keep_sent_days", "default/prune"), ("keep_history_days", "default/prune_history")]
)
async def test_pruning_is_no_job_where_everything_is_kept(
    store: Store, setting: str, job: str, days: float, is_pruned: bool
) -> None:
    """Books may have to be kept for years; zero says so."""
    async with _opened(store, **{setting: days}) as runtime:
        chores, _ = await _chores(runtime)
        jobs: dict[str, Any] = {job.name: job for job in chores.jobs()}
    assert set(jobs) == {"default/finish_holds", "default/prune", "default/prune_history"}
    assert (jobs[job].every_s > 0) is is_pruned
    assert jobs["default/finish_holds"].every_s > 0
