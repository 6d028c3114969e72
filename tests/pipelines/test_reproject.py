"""Reading again: a syncd that reads more, or otherwise, mends the mirror from what is kept, and passes for no answer.

The syncd of later is a provider with other options (another time zone), or one whose decoder unwraps what the simulator
had wrapped: both are the real decoder, so what is compared is what it makes of the same texts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from syncd.cli.reproject import exit_code
from syncd.domain.records import Refused, Row
from syncd.inbound import Progress
from syncd.inbound.reproject import Reprojected, Reprojector
from syncd.providers.autorespond import provider
from syncd.providers.contract import ProviderOptions, Stream
from syncd.sandbox import World
from syncd.store import Store
from tests.support.both_sides import both_sides
from tests.support.pulling import NOON, Circle, circle

ALL = 3650 * 86400.0
ORDERS = "SELECT remote_id, purchased_at, is_paid, last_seen_at, missing_since FROM crm.orders ORDER BY 1"
HISTORY = "SELECT count(*) FROM syncd.changes"
STREAMS = (
    "administration", "fields", "tags", "groups", "lists", "orders", "invoices", "invoice_details", "relation_details",
)  # fmt: skip


def _stream(it: Circle, name: str, *, zone: str = "Europe/Amsterdam") -> Stream:
    return provider(ProviderOptions(administration=it.box.admin, time_zone=zone)).streams[name]


def _unwrapping(stream: Stream) -> Stream:
    """Return the stream as a later syncd reads it, which knows that a value may be wrapped in an object."""
    return _reading(stream, lambda told: {key: _bare(value) for key, value in told.items()})


def _reading(stream: Stream, mend: Callable[[dict[str, Any]], dict[str, Any]]) -> Stream:
    now = stream.reread
    assert now is not None

    def reread(raws: Sequence[bytes]) -> Sequence[Row[Any] | Refused]:
        assert now is not None
        mended = now([json.dumps(mend(json.loads(raw))).encode() for raw in raws])
        return [
            Row(row.record, raw, row.warnings) if isinstance(row, Row) else Refused(raw, row.reason, row.key)
            for row, raw in zip(mended, raws, strict=True)
        ]

    return replace(stream, reread=reread)


def _bare(value: Any) -> Any:
    return value["value"] if isinstance(value, dict) and set(value) == {"value"} else value


async def _reproject(it: Circle, *streams: Stream) -> list[Reprojected]:
    reprojector = Reprojector(it.store, provider(ProviderOptions()), it.account, batch_rows=7)
    return [await reprojector.reproject(stream) for stream in streams]


async def test_the_same_decoder_changes_nothing_anywhere(store: Store) -> None:
    """The database spells JSON its own way; whoever runs the command twice, or for nothing, must find all as it was."""
    async with circle(store) as it:
        await it.puller.pull_all()
        await it.pull("relation_details", "invoice_details")
        tables = ("accounts", "fields", "tags", "groups", "lists", "relations", "orders", "order_lines", "invoices")
        before = [await it.rows(f"SELECT t::text, xmin::text FROM crm.{table} t ORDER BY 1") for table in tables]
        history = await it.value(HISTORY)
        found = await _reproject(it, *(_stream(it, name) for name in STREAMS))
        assert all(one.looked > 0 for one in found)
        assert [(one.changed, one.read, one.unread, one.deferred) for one in found] == [(0, 0, 0, 0)] * len(STREAMS)
        assert await it.value(HISTORY) == history
        assert [
            await it.rows(f"SELECT t::text, xmin::text FROM crm.{table} t ORDER BY 1") for table in tables
        ] == before


async def test_what_is_read_otherwise_is_written_once_and_told_as_such(store: Store) -> None:
    """The typed columns follow, the history says why, and the row counts as seen by nobody."""
    async with circle(store) as it:
        await it.puller.pull("orders", reach_s=ALL)
        before = {row[0]: row for row in await it.rows(ORDERS)}
        utc = _stream(it, "orders", zone="UTC")
        first, second = await _reproject(it, utc, utc)
        assert (first.looked, first.changed, second.changed) == (30, 30, 0)
        for remote_id, purchased_at, is_paid, seen_at, missing in await it.rows(ORDERS):
            old = before[remote_id]
            assert purchased_at != old[1]
            assert (is_paid, seen_at, missing) == old[2:]
        told = (
            "SELECT DISTINCT kind, origin, run_id, before ? 'purchased_at' FROM syncd.changes WHERE origin <> 'remote'"
        )
        assert await it.rows(told) == [("update", "reproject", None, True)]
        assert await it.value("SELECT count(*) FROM syncd.captures") == 0
        then = "(SELECT max(changed_at) FROM syncd.changes WHERE origin = 'remote')"
        asof = f"SELECT count(*) FROM crm.orders_as_of({then}) a"
        assert await it.value(f"{asof} JOIN crm.orders o USING (id) WHERE a.purchased_at <> o.purchased_at") == 30


async def test_stopped_in_the_middle_it_goes_on_where_it_was(store: Store) -> None:
    """Each batch is done or not begun; what is done is not written again."""
    async with circle(store) as it:
        await it.puller.pull("orders", reach_s=ALL)

        def stop(progress: Progress) -> None:
            if progress.rows > 14:
                raise asyncio.CancelledError

        utc = _stream(it, "orders", zone="UTC")
        stopped = Reprojector(store, provider(ProviderOptions()), it.account, batch_rows=7, on_progress=stop)
        with pytest.raises(asyncio.CancelledError):
            await stopped.reproject(utc)
        (rest,) = await _reproject(it, utc)
        assert (rest.looked, rest.changed) == (30, 9)


async def test_a_pull_that_knows_the_text_still_knows_it_afterwards(store: Store) -> None:
    """The next pull of a million orders must not find them all strange."""
    async with circle(store) as it:
        await it.puller.pull("orders", reach_s=ALL)
        await _reproject(it, _stream(it, "orders", zone="UTC"))
        xmin = "SELECT id, xmin::text FROM crm.orders ORDER BY 1"
        before = await it.rows(xmin)
        report = await it.puller.pull("orders", reach_s=ALL)
        assert (report.unchanged, report.updated) == (30, 0)
        assert await it.rows(xmin) == before


async def test_an_answer_on_its_way_still_counts_after_reading_again(store: Store) -> None:
    """Rows are not seen by it: else the pull beside it would take its newer answer for a stale one, and drop it."""
    async with circle(store) as it:
        await it.puller.pull("orders", reach_s=ALL)
        numbers = sorted(it.world.orders)
        order = it.world.orders[numbers[0]]
        it.world.orders[numbers[0]] = msgspec.structs.replace(order, invoice_number="changed meanwhile")
        it.box.faults.add("hold_answer", operation="orders")
        pull = asyncio.create_task(it.puller.pull("orders", reach_s=ALL))
        await it.box.until_held()
        await _reproject(it, _stream(it, "orders", zone="UTC"))
        it.box.release()
        assert (await pull).updated >= 1
        key = f"SELECT invoice_number FROM crm.orders WHERE remote_id = '{numbers[0]}'"
        assert await it.value(key) == "changed meanwhile"


@pytest.mark.parametrize(("stream", "key", "column"), [("invoices", "amountIncl", "amount_incl")])
async def test_values_that_could_not_be_read_are_read_after_the_fix(
    store: Store, stream: str, key: str, column: str
) -> None:
    """That is what the incident promised; no detail is asked for again because of it."""
    async with circle(store) as it:
        await it.pull("tags")
        it.box.faults.add("retyped_key", operation=stream, key=key, times=0)
        await it.puller.pull(stream, reach_s=ALL)
        assert await it.value(f"SELECT count({column}) FROM crm.{stream}") == 0
        status = "SELECT id, detail_status, detail_attempts, detail_next_at FROM crm.invoices ORDER BY 1"
        before = await it.rows(status)
        now, later = await _reproject(it, _stream(it, stream), _unwrapping(_stream(it, stream)))
        assert (now.changed, now.doubtful, later.changed, later.doubtful) == (0, 20, 20, 0)
        assert await it.value(f"SELECT count({column}) FROM crm.{stream}") == 20
        assert await it.rows(status) == before
        (again,) = await _reproject(it, _unwrapping(_stream(it, stream)))
        assert again.changed == 0


async def test_unread_records_are_read_after_the_fix(store: Store) -> None:
    """Nothing was lost but time: they are mirrored as of when the CRM showed them."""
    async with circle(store) as it:
        fault = it.box.faults.add("retyped_key", operation="orders", key="orderlines", times=0, every=10)
        await it.puller.pull("orders", reach_s=ALL)
        shown = await it.value("SELECT max(last_seen_at) FROM syncd.unread")
        now, later = await _reproject(it, _stream(it, "orders"), _unwrapping(_stream(it, "orders")))
        assert (now.read, now.unread, exit_code([now])) == (0, 3, 1)
        assert "orderlines" in now.reasons[0]
        assert (later.read, later.unread, exit_code([later])) == (3, 0, 0)
        assert await it.rows("SELECT * FROM syncd.unread") == []
        assert await it.value("SELECT count(*) FROM crm.orders") == 30
        new = "SELECT max(o.last_seen_at) FROM crm.orders o JOIN syncd.changes c ON c.row_id = o.id"
        assert await it.value(f"{new} AND c.table_name = 'orders' AND c.origin = 'reproject'") == shown
        it.box.faults.clear(fault)
        report = await it.puller.pull("orders", reach_s=ALL)
        assert (report.status, report.inserted) == ("succeeded", 0)


async def test_an_unread_record_never_overwrites_what_was_said_later(store: Store) -> None:
    """It speaks for the time at which it came."""
    async with circle(store) as it:
        await it.puller.pull("orders", reach_s=ALL)
        number = min(it.world.orders)
        raw = {"orderId": number, "orderlines": {"value": []}, "paid": "N", "invoiceNumber": "long ago"}
        async with store.begin_remote() as connection:
            await connection.exec_driver_sql(
                "INSERT INTO syncd.unread (account_id, stream, remote_id, raw, digest, reason, last_seen_at) "
                f"SELECT id, 'orders', '{number}', '{json.dumps(raw)}', 'x', 'odd', now() - interval '1 day' "
                "FROM crm.accounts"
            )
        (found,) = await _reproject(it, _unwrapping(_stream(it, "orders")))
        assert (found.read, found.unread) == (1, 0)
        assert await it.value("SELECT count(*) FROM crm.orders WHERE invoice_number = 'long ago'") == 0


@pytest.mark.parametrize("state", ["undelivered", "delivered", "shown"])
async def test_an_edit_outlives_what_was_kept_from_before_it(store: Store, state: str) -> None:
    """What the CRM said before an edit says nothing against it, whether or not the edit has arrived there by now."""
    async with both_sides(store, World.seeded(8, 10, 4, seed=7, now=NOON)) as it:
        await it.pull()
        count = await it.value("SELECT count(*) FROM crm.relations WHERE raw IS NOT NULL")
        await it.edit("UPDATE crm.relations SET last_name = 'Nieuw' WHERE id = 1")
        if state != "undelivered":
            assert (await it.drain()).delivered == 1
        if state == "shown":
            await it.advance(86400 * 2)
            await it.pull()
        later = _reading(it.crm.streams["relation_details"], _shouting)
        found = await Reprojector(store, it.crm, it.account).reproject(later)
        assert found.changed == count > 3
        row = "SELECT last_name, first_name = upper(first_name) FROM crm.relations WHERE id = 1"
        assert await it.rows(row) == [("Nieuw", True)]
        assert await it.rows("SELECT * FROM syncd.conflicts") == []
        assert await it.value("SELECT count(*) FROM syncd.changes WHERE origin = 'reproject'") == count


def _shouting(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "firstName": told["firstName"].upper()}


async def test_rows_in_an_applications_hands_are_left_for_the_next_time(store: Store) -> None:
    """Nobody waits for an application, and nothing is called done that is not."""
    async with circle(store) as it:
        await it.pull("groups", "group_members")
        later = _reading(_stream(it, "relation_details"), _shouting)
        async with store.begin() as connection:
            await connection.exec_driver_sql("UPDATE crm.relations SET gender = 'F' WHERE id = 2")
            (found,) = await _reproject(it, later)
        assert (found.changed, found.deferred, exit_code([found])) == (found.looked - 1, 1, 75)
        (again,) = await _reproject(it, later)
        assert (again.changed, again.deferred, exit_code([again])) == (1, 0, 0)


async def test_a_row_that_the_crm_shows_no_more_is_left_as_it_was(store: Store) -> None:
    """To read it again would be to find it again."""
    async with circle(store) as it:
        await it.puller.pull("orders", reach_s=ALL)
        async with store.begin_remote() as connection:
            await connection.exec_driver_sql("UPDATE crm.orders SET missing_since = now() WHERE id = 1")
        (found,) = await _reproject(it, _stream(it, "orders", zone="UTC"))
        assert (found.looked, found.changed) == (29, 29)
        assert await it.value("SELECT missing_since IS NOT NULL FROM crm.orders WHERE id = 1")
