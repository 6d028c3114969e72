"""Bad days: whatever is wrong with an answer, nothing of it is written, the hole stays, and the next run heals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import text

from syncd.domain.errors import InfrastructureError, UserError
from syncd.domain.reports import RunReport
from syncd.inbound import Progress, PullPolicy
from syncd.policy.states import RunStatus
from syncd.sandbox import OrderLine
from syncd.store import Store, runs
from tests.support.pulling import POLICY, Circle, circle

BREAD = (OrderLine("product", 7001, "Brood", 2),)
PROVEN = "SELECT proven::text FROM syncd.coverage WHERE stream = 'orders'"
KILL_THE_WRITER = text("""
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database
    WHERE locktype = 'advisory' AND granted AND datname = current_database()
""")
LAST_RUN = "SELECT status, reason IS NOT NULL FROM syncd.runs WHERE stream = '{}' ORDER BY id DESC LIMIT 1"

UNREADABLE = {
    "malformed JSON": {"kind": "malformed"},
    "HTML with 200": {"kind": "html", "status": 200},
    "truncated body": {"kind": "truncated"},
    "data missing": {"kind": "missing"},
    "no body": {"kind": "empty_body"},
    "connection reset": {"kind": "reset"},
    "503": {"kind": "status", "status": 503},
    "200 with an error": {"kind": "error"},
}


async def newcomers(it: Circle, count: int = 3) -> None:
    """Let time pass and orders be placed, as on any day."""
    await it.advance(600)
    for relation in list(it.world.relations)[:count]:
        it.world.add_order(relation, BREAD)
    await it.advance(600)


@pytest.mark.parametrize("fault", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_unreadable_answer_writes_nothing_proves_nothing_and_heals(
    store: Store, fault: dict[str, object]
) -> None:
    """Half an answer taken for a whole one is silent loss: the commonest fault of systems of this kind."""
    async with circle(store) as it:
        await it.pull("orders")
        proven = await it.value(PROVEN)
        await newcomers(it)
        it.box.faults.add(**{"operation": "orders", **fault})  # type: ignore[arg-type]
        broken = await it.pull("orders")
        assert broken.status in (RunStatus.FAILED, RunStatus.REFUSED)
        assert broken.reason
        assert await it.value(PROVEN) == proven
        assert await it.value("SELECT count(*) FROM crm.orders") == 30
        assert (await it.rows(LAST_RUN.format("orders")))[0] == (broken.status, True)
        healed = await it.pull("orders")
        assert (healed.status, healed.inserted) == ("succeeded", 3)
        assert await it.value(PROVEN) != proven


@pytest.mark.parametrize("stream", ["orders", "invoices", "tags", "groups", "fields", "lists"])
async def test_an_empty_list_where_known_rows_must_be_is_refused(store: Store, stream: str) -> None:
    """An account that suddenly answers empty is an incident, not a deletion of everything."""
    async with circle(store) as it:
        it.world.add_order(next(iter(it.world.relations)), BREAD)
        invoice = next(iter(it.world.invoices.values()))
        today = {"number": "today", "created_at": it.clock.now(), "invoiced_on": it.clock.now().date()}
        it.world.add_invoice(msgspec.structs.replace(invoice, **today))
        await it.pull(stream)
        rows = await it.value(f"SELECT count(*) FROM crm.{stream} WHERE missing_since IS NULL")
        for _ in range(3):
            it.box.faults.add("empty_list", operation=stream)
            refused = await it.pull(stream)
            assert (refused.status, refused.received) == ("refused", 0)
            await it.advance(7200 if stream not in ("orders", "invoices") else 0)
        assert await it.value(f"SELECT count(*) FROM crm.{stream} WHERE missing_since IS NULL") == rows


async def test_a_window_that_lacks_known_orders_is_refused_even_when_it_has_new_ones(store: Store) -> None:
    """A silently capped or filtered answer looks healthy; only the rows that we know can speak against it."""
    async with circle(store, orders=0) as it:
        for relation in list(it.world.relations) * 2:
            it.world.add_order(relation, BREAD)
        await it.pull("orders")
        proven = await it.value(PROVEN)
        await newcomers(it)
        it.box.faults.add("dropped_rows", operation="orders", share=0.6)
        refused = await it.pull("orders")
        assert refused.status == "refused"
        assert "known rows" in (refused.reason or "")
        assert await it.value("SELECT count(*) FROM crm.orders") == 20, "the new ones among them are not kept either"
        assert await it.value(PROVEN) == proven


async def test_a_few_orders_gone_are_kept_and_told(store: Store) -> None:
    """One order deleted in the CRM must not stop the pull for ever, nor vanish from the books by silence."""
    async with circle(store, orders=0) as it:
        placed = [it.world.add_order(relation, BREAD) for relation in it.world.relations]
        await it.pull("orders")
        it.world.delete_order(placed[0].id)
        report = await it.pull("orders")
        assert report.is_success
        assert str(placed[0].id) in report.warnings[0]
        assert await it.value("SELECT count(*) FROM crm.orders WHERE missing_since IS NULL") == 10


async def test_rows_that_come_twice_count_once(store: Store) -> None:
    """Without snapshot isolation at the CRM a row can be on two places of one answer."""
    async with circle(store) as it:
        for stream in ("orders", "invoices", "tags"):
            it.box.faults.add("duplicate_rows", operation=stream)
        for stream, count in (("orders", 30), ("invoices", 20), ("tags", len(it.world.tags))):
            report = await it.pull(stream)
            assert (report.status, report.inserted) == ("succeeded", count)
            assert report.warnings


async def test_a_wrong_key_pauses_the_account_and_stops_the_round(store: Store) -> None:
    """Asking on with refused credentials can lock the account; one run says it, the rest wait for a probe."""
    async with circle(store, key="wrong") as it:
        reports = await it.puller.pull_all()
        assert len(reports) == 1
        assert (reports[0].status, reports[0].is_fault) == ("failed", True)
        assert await it.value("SELECT pause_reason IS NOT NULL FROM syncd.account_states")
        asked = len(list(it.box.requests))
        held = await it.pull("orders")
        assert (held.run_id, held.status, held.is_fault, held.is_passing) == (None, "refused", False, True)
        assert len(await it.puller.pull_all()) == 1
        assert "paused" in (held.reason or "")
        assert len(list(it.box.requests)) == asked


async def test_a_pause_is_lifted_by_a_probe_that_works(store: Store) -> None:
    """Credentials mended in the CRM must start the pulls again without anybody's help."""
    async with circle(store) as it:
        it.box.faults.add("status", status=401, times=2)
        assert (await it.pull("tags")).is_fault
        await it.edit("UPDATE syncd.account_states SET next_probe_at = now() - interval '1 second'")
        assert (await it.pull("tags")).is_success
        assert await it.value("SELECT paused_at IS NULL FROM syncd.account_states")


async def test_a_refusal_of_one_call_alone_stops_that_stream_alone(store: Store) -> None:
    """A key without the right to one call, or a part of the CRM that is not booked, may not stop orders for ever."""
    async with circle(store) as it:
        it.box.faults.add("status", status=403, operation="lists", times=0)
        reports = {report.stream: report for report in await it.puller.pull_all()}
        assert (reports["lists"].status, reports["lists"].is_fault) == ("failed", False)
        assert "credentials refused" in (reports["lists"].reason or "")
        assert reports["orders"].inserted == 30
        assert await it.value("SELECT count(*) FROM syncd.account_states WHERE paused_at IS NOT NULL") == 0


async def test_a_host_that_is_gone_is_a_fault_of_the_account(store: Store) -> None:
    """Every other stream would fail the same way; nothing is deleted by it."""
    async with circle(store) as it:
        await it.puller.pull_all()
        await it.box.__aexit__(None, None, None)
        reports = await it.puller.pull_all()
        assert [report.status for report in reports] == ["failed"]
        assert reports[0].is_fault
        assert await it.value("SELECT count(*) FROM crm.relations WHERE missing_since IS NOT NULL") == 0
        await it.box.__aenter__()


async def test_one_broken_parent_does_not_stop_a_sweep(store: Store) -> None:
    """A relation that the CRM cannot show must not hide the tags of all others, nor be asked for first for ever."""
    async with circle(store) as it:
        await it.pull("tags", "groups", "group_members", "orders")
        it.box.faults.add("status", status=500, operation="relation_tags", nth=2)
        report = await it.pull("relation_tags")
        relations = await it.value("SELECT count(*) FROM crm.relations")
        assert report.status == "failed"
        assert report.reason
        assert f"1 of {relations}" in report.reason
        assert it.requested("relation_tags") == relations
        assert (await it.pull("relation_tags")).is_success


async def test_groups_that_are_not_believed_do_not_starve_the_others(store: Store) -> None:
    """Three emptied groups are three strikes; asked for first each time, they would hide all other groups for ever."""
    async with circle(store, relations=60) as it:
        await it.pull("groups", "group_members")
        groups = list(it.world.groups)
        for group in groups[:3]:
            it.box.faults.add("empty_list", operation="group_members", path=f"/{group}/", times=0)
        before = it.requested("group_members")
        for _ in range(2):
            await it.advance(3600)
            assert (await it.pull("group_members")).status == "failed"
        asked = [line.path for line in it.box.requests if line.operation == "group_members"][before:]
        assert all(any(f"/{group}/" in path for path in asked) for group in groups)


async def test_a_relation_that_alone_is_forbidden_is_not_asked_for_first_for_ever(store: Store) -> None:
    """A refusal of one object ends the run, because it may be the key's; at the next it must be another's turn."""
    async with circle(store) as it:
        await it.pull("tags", "groups", "group_members")
        it.box.faults.add("status", status=403, operation="relation_tags", times=1)
        assert (await it.pull("relation_tags")).status == "failed"
        await it.advance(1800)
        await it.pull("relation_tags")
        asked = [line.path for line in it.box.requests if line.operation == "relation_tags"]
        assert asked[0] == asked[-1]
        assert asked[0] != asked[1]


async def test_a_sweep_that_keeps_failing_stops(store: Store) -> None:
    """Ten thousand calls into a broken CRM are not a sweep but an attack."""
    async with circle(store) as it:
        await it.pull("groups", "group_members", "orders")
        it.box.faults.add("status", status=500, operation="relation_tags", times=0)
        assert (await it.pull("relation_tags")).status == "failed"
        assert it.requested("relation_tags") == POLICY.strikes


async def test_a_sweep_that_fails_at_the_end_of_a_part_stops_there(store: Store) -> None:
    """What was written of the part before must not wash the failures away."""
    policy = PullPolicy(window=POLICY.window, sweep_batch=5)
    async with circle(store, relations=30, policy=policy) as it:
        await it.pull("groups", "group_members", "orders")
        it.box.faults.add("status", status=500, operation="relation_tags", nth=3, times=0)
        report = await it.pull("relation_tags")
        assert report.status == "failed"
        assert it.requested("relation_tags") == 2 + policy.strikes


async def test_runs_of_a_killed_process_are_abandoned_at_the_next_start(store: Store) -> None:
    """A run that stays 'running' for ever would hide that its window was never written."""
    async with circle(store) as it:
        async with store.begin() as connection:
            await runs.start(connection, it.account.id, "orders", "schedule", None)
        assert await it.puller.recover() == 1
        assert await it.value("SELECT status FROM syncd.runs") == "abandoned"


async def test_a_run_declared_abandoned_meanwhile_writes_nothing(store: Store) -> None:
    """Two daemons on one database: the one that was written off must not bring its rows and proof after all."""
    async with circle(store) as it:
        it.box.faults.add("hold_answer", operation="orders")
        async with _pulling(it) as task:
            await it.puller.recover()
            it.box.release()
            report = await task
        assert report.status == "abandoned"
        assert await it.value("SELECT count(*) FROM crm.orders") == 0
        assert await it.value("SELECT count(*) FROM syncd.coverage") == 0


async def test_an_answer_older_than_what_is_written_is_refused(store: Store) -> None:
    """A slow answer that arrives after a younger one would turn paid back into unpaid."""
    async with circle(store) as it:
        order = it.world.add_order(next(iter(it.world.relations)), BREAD, is_paid=False)
        it.box.faults.add("hold_answer", operation="orders")
        async with _pulling(it) as task:
            it.world.pay_order(order.id)
            assert (await it.pull("orders")).is_success
            it.box.release()
            late = await task
        assert late.status == "refused"
        assert await it.value(f"SELECT is_paid FROM crm.orders WHERE remote_id = '{order.id}'") is True


async def test_a_pull_killed_inside_its_transaction_leaves_no_half_window(store: Store) -> None:
    """Kill -9 in the middle of writing must leave what was there before, or everything; the next pull heals."""
    async with circle(store, policy=PullPolicy(window=POLICY.window, batch_rows=5)) as it:

        async def kill() -> None:
            async with store.begin() as connection:
                await connection.execute(KILL_THE_WRITER)

        async with store.begin() as holder:  # a quick pull must not be done before it is killed
            await holder.execute(text("LOCK TABLE syncd.coverage IN SHARE MODE"))
            killed = await _killed_after_rows(it, 10, kill)
        assert killed
        assert await it.value("SELECT count(*) FROM crm.orders") == 0
        assert await it.value("SELECT count(*) FROM syncd.coverage") == 0
        assert await it.value("SELECT count(*) FROM crm.relations") == 0
        healed = await it.pull("orders")
        assert (healed.status, healed.inserted) == ("succeeded", 30)


async def test_a_stream_that_is_none_is_named_with_those_that_are(store: Store) -> None:
    """A typing error on the command line must not look like an empty success."""
    async with circle(store) as it:
        with pytest.raises(UserError, match="orders"):
            await it.pull("order")


@asynccontextmanager
async def _pulling(it: Circle) -> AsyncIterator[asyncio.Task[RunReport]]:
    """A pull of the orders whose answer the CRM holds back."""
    task = asyncio.create_task(it.puller.pull("orders", "schedule"))
    try:
        await it.box.until_held()
        yield task
    finally:
        it.box.release()
        await asyncio.wait([task])


async def _killed_after_rows(it: Circle, rows: int, kill: Callable[[], Awaitable[None]]) -> bool:
    """Backfill the orders and kill the writing connection once so many rows are written; tell whether it died."""
    killing: list[asyncio.Task[None]] = []

    def watch(progress: Progress) -> None:
        if progress.rows >= rows and not killing:
            killing.append(asyncio.ensure_future(kill()))

    try:
        await it.puller.backfill(it.clock.now() - timedelta(days=3650), ["orders"], watch)
    except InfrastructureError:
        await asyncio.gather(*killing)
        return True
    await asyncio.gather(*killing)
    return False
