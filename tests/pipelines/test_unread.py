"""Records that cannot be read: kept whole with their window's proof, and gone when there is nothing left to read."""

from __future__ import annotations

import pytest

from syncd.domain.reports import RunReport
from syncd.policy.erasure import Invoices
from syncd.service.erasing import Order, erase, look
from syncd.store import Store
from syncd.store.unread import count_unread
from tests.support.pulling import Circle, circle

UNREAD = "SELECT stream, remote_id, parent_id FROM syncd.unread ORDER BY id"
ALL = 3650 * 86400.0


async def _whole(it: Circle, stream: str = "orders") -> RunReport:
    return await it.puller.pull(stream, reach_s=ALL)


async def test_a_record_that_cannot_be_read_is_kept_and_its_neighbours_are_written(store: Store) -> None:
    """One broken order in a thousand must neither be lost nor hold the others back."""
    async with circle(store) as it:
        it.box.faults.add("retyped_key", operation="orders", key="orderlines", times=0, every=10)
        report = await _whole(it)
        assert (report.status, report.inserted) == ("succeeded", 27)
        assert await it.value("SELECT count(*) FROM syncd.coverage WHERE stream = 'orders'") == 1
        kept = await it.rows("SELECT remote_id, raw::jsonb ->> 'orderId', reason FROM syncd.unread ORDER BY 1")
        assert len(kept) == 3
        assert all(key == told and "orderlines" in reason for key, told, reason in kept)
        mirrored = {key for (key,) in await it.rows("SELECT remote_id FROM crm.orders")}
        assert mirrored | {key for key, _, _ in kept} == {str(number) for number in it.world.orders}
        async with store.begin() as connection:
            assert [(one.stream, one.records) for one in await count_unread(connection)] == [("orders", 3)]


async def test_the_same_unread_record_is_kept_once_and_costs_no_write(store: Store) -> None:
    """It comes with every window until somebody can read it."""
    async with circle(store) as it:
        it.box.faults.add("retyped_key", operation="orders", key="orderlines", times=0, every=10)
        await _whole(it)
        before = await it.rows("SELECT id, xmin::text FROM syncd.unread ORDER BY 1")
        await _whole(it)
        assert await it.rows("SELECT id, xmin::text FROM syncd.unread ORDER BY 1") == before


@pytest.mark.parametrize(
    ("stream", "kind", "key", "was_mirrored"),
    [
        ("orders", "retyped_key", "orderlines", True),
        ("orders", "retyped_key", "orderlines", False),
        ("invoices", "dropped_key", "isCreditInvoice", False),
    ],
)
async def test_a_record_that_comes_readable_again_is_unread_no_more(
    store: Store, stream: str, kind: str, key: str, was_mirrored: bool
) -> None:
    """Read later from what was kept, it would overwrite what the CRM says by now."""
    async with circle(store, orders=30, invoices=30) as it:
        if was_mirrored:
            await _whole(it, stream)
        fault = it.box.faults.add(kind, operation=stream, key=key, times=0, every=10)
        await _whole(it, stream)
        unread = len(await it.rows(UNREAD))
        assert unread >= 3
        it.box.faults.clear(fault)
        await _whole(it, stream)
        assert await it.rows(UNREAD) == []
        assert await it.value(f"SELECT count(*) FROM crm.{stream}") >= 30


async def test_a_known_row_that_is_shown_unreadably_is_not_gone(store: Store) -> None:
    """A third of an answer that cannot be read is no sign that a third was deleted."""
    async with circle(store) as it:
        await _whole(it)
        it.box.faults.add("retyped_key", operation="orders", key="orderlines", times=0, every=3)
        report = await _whole(it)
        assert (report.status, len(await it.rows(UNREAD))) == ("succeeded", 10), report.reason
        assert not any("are not in the answer" in warning for warning in report.warnings)


async def test_what_a_snapshot_or_a_parent_shows_no_more_is_not_kept(store: Store) -> None:
    """They are always shown whole: what is not in the last answer is nobody's word."""
    async with circle(store) as it:
        await it.pull("groups", "group_members")
        it.box.faults.add("dropped_key", operation="groups", key="id", times=1, every=3)
        it.box.faults.add("dropped_key", operation="group_members", key="id", times=1, every=2)
        assert (await it.pull("groups")).is_success
        await it.pull("group_members")
        found = await it.rows(UNREAD)
        assert {stream for stream, _, _ in found} == {"groups", "group_members"}
        assert all((parent > 0) is (stream == "group_members") for stream, _, parent in found)
        await it.pull("groups", "group_members")
        assert await it.rows(UNREAD) == []


async def test_an_answer_of_which_most_cannot_be_read_is_kept_by_its_incident(store: Store) -> None:
    """Then nothing is written and no time is proven: the hole brings it all again when it can be read."""
    async with circle(store) as it:
        it.box.faults.add("retyped_key", operation="orders", key="orderlines", times=0)
        assert (await _whole(it)).status == "refused"
        assert (await it.rows(UNREAD), await it.rows("SELECT * FROM syncd.coverage")) == ([], [])
        assert '"orderlines":{"value"' in str(await it.value("SELECT record FROM syncd.shapes WHERE key = ''"))


async def test_an_erasure_reaches_what_is_kept_and_keeps_it_out(store: Store) -> None:
    """A person must not live on in a record that nobody could read, nor come back in the next one."""
    async with circle(store) as it:
        it.box.faults.add("retyped_key", operation="orders", key="orderlines", times=0, every=2)
        await _whole(it)
        whose = (
            "SELECT raw::jsonb ->> 'relationEmail' AS email, count(*) FROM syncd.unread GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        email, mine = (await it.rows(whose))[0]
        others = await it.value("SELECT count(*) FROM syncd.unread") - mine
        order = Order(email, None, Invoices.REMOVE, "jan", may_drop=True)
        erased = await erase(store, it.clock, order, await look(store, order))
        assert erased.receipt.counts["syncd.unread"] == mine
        assert await it.value("SELECT count(*) FROM syncd.unread") == others
        await _whole(it)
        assert email not in str(await it.rows("SELECT raw, reason FROM syncd.unread"))
        assert await it.value("SELECT count(*) FROM syncd.unread") == others
