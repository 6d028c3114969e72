"""The daemon's rounds, in process: who may pull, when not to, and what a broken round may not do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from syncd.clock import SystemClock
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.sandbox import Sandbox, World
from syncd.service.accounts import AccountRuntime, opened_accounts
from syncd.service.lease import Lease
from syncd.service.pulls import AccountPulls
from syncd.settings import Settings, resolve_accounts
from syncd.store import Store
from syncd.store.account_pace import Breaking, open_breaker
from syncd.store.account_states import pause, throttle
from tests.support.clock import ManualClock


class Told:
    """Keeps the reports."""

    def __init__(self) -> None:
        self.runs: list[RunReport] = []

    def run(self, report: RunReport) -> None:
        self.runs.append(report)

    def delivery(self, report: DeliveryReport) -> None:
        raise AssertionError("nothing is delivered here")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def runtime(store: Store, sandbox: Sandbox, told: Told) -> AsyncIterator[AccountRuntime]:
    settings = Settings(
        base_url=sandbox.base_url,
        autorespond_admin=sandbox.admin,
        autorespond_key=SecretStr(sandbox.key),
        rate_per_s=1000,
        cadence_lists_s=0,
    )
    async with opened_accounts(resolve_accounts(settings).configs, store, SystemClock(), told) as (opened,):
        yield opened


def rounds(runtime: AccountRuntime, store: Store, owner: str = "one") -> tuple[AccountPulls, Lease]:
    lease = Lease(store, SystemClock(), runtime.account, owner, 60)
    return AccountPulls(runtime, lease, store, SystemClock()), lease


async def orders_round(pulls: AccountPulls) -> None:
    await next(job for job in pulls.jobs() if job.name == "default/orders").run()


async def test_only_the_holder_of_the_lease_pulls(runtime: AccountRuntime, store: Store, told: Told) -> None:
    """The same round on two replicas would ask everything twice."""
    one, one_lease = rounds(runtime, store, "one")
    two, two_lease = rounds(runtime, store, "two")
    await one_lease.renew()
    await two_lease.renew()
    await orders_round(two)
    assert told.runs == []
    await orders_round(one)
    assert [run.stream for run in told.runs] == ["orders"]
    await one_lease.release()
    await two_lease.renew()
    await orders_round(one)
    assert len(told.runs) == 1
    await orders_round(two)
    assert len(told.runs) == 2


@pytest.mark.parametrize("trouble", ["throttled", "paused", "broken"])
async def test_held_account_is_left_alone_and_in_silence(
    runtime: AccountRuntime, store: Store, told: Told, trouble: str
) -> None:
    """A pause that is logged again at every round buries what matters; to find out when it ends is the drainer's."""
    pulls, lease = rounds(runtime, store)
    await lease.renew()
    async with store.begin() as connection:
        match trouble:
            case "throttled":
                await throttle(connection, runtime.account.id, 60)
            case "paused":
                await pause(connection, runtime.account.id, "the key is refused", probe_in_s=-1)
            case _:
                await open_breaker(connection, runtime.account.id, Breaking(reason="no answer"), pause_s=-1)
    await orders_round(pulls)
    assert told.runs == []


async def test_no_round_starts_after_the_stop(runtime: AccountRuntime, store: Store, told: Told) -> None:
    """A pull that begins while everything closes would be cut off in the middle."""
    pulls, lease = rounds(runtime, store)
    await lease.renew()
    await pulls.finish()
    await orders_round(pulls)
    assert told.runs == []


async def test_ladder_reaches_further_back_now_and_then(runtime: AccountRuntime, store: Store, told: Told) -> None:
    """An order that is paid after a month changes without a date; only a wider read sees it."""
    pulls, lease = rounds(runtime, store)
    await lease.renew()
    jobs = {job.name: job for job in pulls.jobs()}
    for name in ("default/orders", "default/orders", "default/orders/reread", "default/orders/deep_reread"):
        await jobs[name].run()
    spans = [
        (run.asked_upto - run.asked_from).total_seconds() for run in told.runs if run.asked_upto and run.asked_from
    ]
    assert len(spans) == 4
    recent, wide, deep = (round(seconds / 3600) for seconds in spans[1:])
    assert recent <= 3
    assert wide >= 72
    assert deep >= 90 * 24
    assert "default/lists" in jobs
    assert jobs["default/lists"].every_s == 0


async def test_lost_database_postpones_a_round(runtime: AccountRuntime, store: Store, told: Told) -> None:
    """The schedule goes on; the next round finds the database back."""
    pulls, lease = rounds(runtime, store)
    await lease.renew()
    away = Store.open("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    broken = AccountPulls(runtime, lease, away, SystemClock())
    await orders_round(broken)
    await away.close()
    assert told.runs == []
    await orders_round(pulls)
    assert told.runs[0].is_success


async def test_lease_is_believed_for_less_than_its_length(runtime: AccountRuntime, store: Store) -> None:
    """A replica that slept through its lease must know on waking that another may hold it."""
    clock = ManualClock()
    lease = Lease(store, clock, runtime.account, "one", 60)
    await lease.renew()
    assert lease.is_held
    await clock.advance(53)
    assert lease.is_held
    await clock.advance(3)
    assert not lease.is_held
    await lease.renew()
    assert lease.is_held
