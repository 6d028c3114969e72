"""Drift of the API's shape: what is new is told once, what is gone or of another type never costs what is known."""

from __future__ import annotations

import msgspec
import pytest

from syncd.domain.reports import RunReport
from syncd.providers.autorespond import provider
from syncd.providers.contract import ProviderOptions
from syncd.sandbox import Switches
from syncd.store import Store, shapes
from tests.support.pulling import Circle, circle

OPEN = "SELECT kind, subject FROM syncd.incidents WHERE closed_at IS NULL ORDER BY 1, 2"
ODD = "SELECT stream, key, drift FROM syncd.shapes WHERE drift IS NOT NULL ORDER BY 1, 2"
ALL = 3650 * 86400.0


def _operation(stream: str) -> str:
    return provider(ProviderOptions()).streams[stream].operation


async def test_the_documented_shape_is_no_news(store: Store) -> None:
    """Whoever is told of what was always so does not read what is told."""
    async with circle(store) as it:
        reports = await it.puller.pull_all()
        assert [report.news for report in reports if report.news] == []
        assert await it.rows(ODD) == []
        usual = "SELECT count(*) FROM syncd.shapes WHERE stream = 'orders' AND is_usual AND key LIKE 'orderlines[].%'"
        assert await it.value(usual) == 7


@pytest.mark.parametrize(
    ("stream", "key"),
    [("orders", "giftWrap"), ("orders", "orderlines.weight"), ("tags", "hue"), ("invoices", "vatNote")],
)
async def test_an_unknown_key_is_kept_and_told_once(store: Store, stream: str, key: str) -> None:
    """It may be worth a column one day; it is no reason to wake anybody, nor to say it every minute."""
    async with circle(store) as it:
        await it.pull(stream)
        it.box.faults.add("added_key", operation=stream, key=key, times=0)
        await it.advance(3600)
        first, second = await _whole(it, stream), await _whole(it, stream)
        path = key.replace(".", "[].")
        assert [path in sentence for sentence in first.news] == [True]
        assert (first.is_success, second.news) == (True, ())
        assert await it.rows(ODD) == [(stream, path, "unknown")]
        assert await it.rows(OPEN) == []
        assert await it.value(f"SELECT count(*) FROM crm.{stream} WHERE raw::text LIKE '%since%'") > 0
        assert key.split(".")[-1] in str(await it.value("SELECT record FROM syncd.shapes WHERE drift IS NOT NULL"))


async def test_a_rare_unknown_key_is_met_however_long_the_answer(store: Store) -> None:
    """A sample of a batch would miss it: the decoder itself says that there is one."""
    async with circle(store, orders=90) as it:
        it.box.faults.add("added_key", operation="orders", key="orderlines.weight", times=0, every=89)
        assert len((await _whole(it, "orders")).news) == 1


async def test_a_window_read_again_writes_nothing_about_its_shape(store: Store) -> None:
    """Every minute of every day."""
    async with circle(store) as it:
        await it.pull("orders", "invoices", "tags")
        xmin = "SELECT stream, key, xmin::text, ctid::text FROM syncd.shapes ORDER BY 1, 2"
        before = await it.rows(xmin)
        for _ in range(2):
            await it.advance(60)
            await it.pull("orders", "invoices", "tags")
        assert await it.rows(xmin) == before


@pytest.mark.parametrize(
    ("stream", "key", "held"),
    [
        ("orders", "purchaseDate", "SELECT id, purchased_at, last_seen_at FROM crm.orders ORDER BY 1"),
        ("orders", "orderlines.quantity", "SELECT order_id, position, quantity FROM crm.order_lines ORDER BY 1, 2"),
        ("invoices", "amountIncl", "SELECT id, amount_incl, raw::text FROM crm.invoices ORDER BY 1"),
        ("relation_details", "lastName", "SELECT id, last_name, raw::text FROM crm.relations ORDER BY 1"),
    ],
    ids=["orders", "lines", "invoices", "relations"],
)
async def test_a_key_that_vanished_takes_nothing_with_it(store: Store, stream: str, key: str, held: str) -> None:
    """Null in every row would overwrite what is known with nothing, and the history would call it the CRM's word."""
    async with circle(store, relations=14) as it:
        if stream == "relation_details":
            await it.pull("groups", "group_members")
            await _as_syncd(it, "DELETE FROM crm.group_members")
        await _whole(it, stream)
        before = await it.rows(held)
        proven = await it.rows("SELECT proven::text FROM syncd.coverage ORDER BY 1")
        fault = it.box.faults.add("dropped_key", operation=_operation(stream), key=key, times=0)
        await it.advance(3600)
        gone = [await _whole(it, stream) for _ in range(2)]
        path = key.replace(".", "[].")
        assert {report.status for report in gone} <= {"refused", "failed"}
        assert [len(report.news) for report in gone] == [1, 0]
        assert path in (gone[0].reason or "")
        assert await it.rows(held) == before
        assert await it.rows("SELECT proven::text FROM syncd.coverage ORDER BY 1") == proven
        assert await it.rows(ODD) == [(stream, path, "vanished")]
        assert await it.rows(OPEN) == [("shape", f"stream:{stream}:key:{path}")]
        record = msgspec.json.decode(str(await it.value("SELECT record FROM syncd.shapes WHERE drift IS NOT NULL")))
        assert record
        assert key not in record
        it.box.faults.clear(fault)
        assert (await _whole(it, stream)).is_success
        assert (await it.rows(ODD), await it.rows(OPEN)) == ([], [])


async def test_details_stop_when_a_key_has_vanished_and_use_up_no_tries(store: Store) -> None:
    """Each is asked for by itself; ten without a name that every one had are no chance."""
    async with circle(store, invoices=30) as it:
        await it.pull("invoices", "invoice_details")
        it.box.faults.add("dropped_key", operation="invoice_detail", key="fullName", times=0)
        report = await _whole(it, "invoice_details")
        assert (report.status, len(report.news)) == ("refused", 1)
        assert (await _whole(it, "invoice_details")).requests <= 1
        assert await it.value("SELECT max(detail_attempts) FROM crm.invoices") == 0


async def test_a_small_answer_without_a_vanished_key_is_refused_too(store: Store) -> None:
    """Once it is known to be gone, a window of three orders must not slip through."""
    async with circle(store) as it:
        await _whole(it, "orders")
        it.box.faults.add("dropped_key", operation="orders", key="paid", times=0)
        assert (await _whole(it, "orders")).status == "refused"
        fourth = (
            "SELECT extract(epoch FROM '2024-05-01 12:00Z' - purchased_at)::float8 FROM crm.orders ORDER BY 1 LIMIT 4"
        )
        few = await it.puller.pull("orders", reach_s=(await it.rows(fourth))[3][0])
        assert few.status == "refused"
        assert await it.value("SELECT count(*) FROM crm.orders WHERE is_paid IS NULL") == 0


@pytest.mark.parametrize("stream", ["orders", "relation_orders"])
async def test_a_few_records_without_a_usual_key_null_nothing(store: Store, stream: str) -> None:
    """Too few to say that it has vanished: they are written, and what they do not say stays as it was."""
    async with circle(store, orders=8) as it:
        await it.pull("orders", "relation_orders")
        await it.edit("UPDATE syncd.shapes SET is_usual = true WHERE stream IN ('orders', 'relation_orders')")
        held = "SELECT id, purchased_at FROM crm.orders ORDER BY 1"
        lines = "SELECT order_id, position, quantity FROM crm.order_lines ORDER BY 1, 2"
        before = await it.rows(held), await it.rows(lines)
        for number, order in list(it.world.orders.items()):
            it.world.orders[number] = msgspec.structs.replace(order, is_paid=not order.is_paid)
        it.box.faults.add("dropped_key", operation=stream, key="purchaseDate", times=0)
        await it.advance(86400)
        report = await it.puller.pull(stream, reach_s=ALL)
        assert (report.status, report.updated > 0) == ("succeeded", True), report
        assert "purchaseDate: not there" in " ".join(report.warnings)
        assert (await it.rows(held), await it.rows(lines)) == before


async def test_a_key_that_is_gone_for_good_is_accepted_by_a_person(store: Store) -> None:
    """Or one key that the vendor dropped would stop the mirror for ever."""
    async with circle(store) as it:
        await _whole(it, "invoices")
        it.box.faults.add("dropped_key", operation="invoices", key="description", times=0)
        assert (await _whole(it, "invoices")).status == "refused"
        async with it.store.begin() as connection:
            assert await shapes.accept(connection, "invoices", "description", "jan") == ("default",)
            assert await shapes.accept(connection, "invoices", "description", "jan") == ()
        after = await _whole(it, "invoices")
        assert (after.status, after.news) == ("succeeded", ())
        assert await it.rows(OPEN) == []
        assert await it.rows("SELECT verb, actor, reason FROM syncd.decisions") == [
            ("accept", "jan", "the key description of invoices")
        ]


async def test_a_value_of_another_type_is_an_incident_and_costs_nothing_known(store: Store) -> None:
    """The rows are kept raw, the column keeps what it had, and the one who can mend it is told with the record."""
    async with circle(store) as it:
        await _whole(it, "invoices")
        before = await it.rows("SELECT number, amount_incl FROM crm.invoices ORDER BY 1, 2")
        fault = it.box.faults.add("retyped_key", operation="invoices", key="amountIncl", times=0)
        reports = [await _whole(it, "invoices") for _ in range(2)]
        assert [(report.status, len(report.news)) for report in reports] == [("succeeded", 1), ("succeeded", 0)]
        assert "amountIncl came with a value of type object" in reports[0].news[0]
        assert "syncd reproject" in reports[0].news[0]
        assert await it.rows("SELECT number, amount_incl FROM crm.invoices ORDER BY 1, 2") == before
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE raw -> 'amountIncl' ? 'value'") == 20
        assert await it.rows(OPEN) == [("shape", "stream:invoices:key:amountIncl")]
        assert "value" in str(await it.value("SELECT record FROM syncd.shapes WHERE drift = 'retyped'"))
        it.box.faults.clear(fault)
        assert (await _whole(it, "invoices")).is_success
        assert (await it.rows(OPEN), await it.rows(ODD)) == ([], [])


async def test_lines_keep_what_cannot_be_read_of_them(store: Store) -> None:
    """Lines are replaced as a whole: a quantity of another type must not null the one that is known."""
    async with circle(store) as it:
        await _whole(it, "orders")
        before = await it.rows("SELECT order_id, position, quantity FROM crm.order_lines ORDER BY 1, 2")
        it.box.faults.add("retyped_key", operation="orders", key="orderlines.quantity", times=0)
        report = await _whole(it, "orders")
        assert (report.status, len(report.news)) == ("succeeded", 1)
        assert await it.rows("SELECT order_id, position, quantity FROM crm.order_lines ORDER BY 1, 2") == before


async def test_money_as_text_is_no_change_of_type(store: Store) -> None:
    """What is read without a doubt either way is no news (providers/autorespond/keys)."""
    async with circle(store) as it:
        await _whole(it, "invoices")
        it.box.turn(Switches(amounts="point", ids="string", paid="bool", nulls=True))
        report = await _whole(it, "invoices")
        assert (report.status, report.news) == ("succeeded", ())
        assert (await _whole(it, "orders")).news == ()


async def test_another_envelope_keeps_the_answer_until_the_old_one_is_back(store: Store) -> None:
    """Whoever mends it needs to see it; the secret in it is nobody's to keep."""
    async with circle(store) as it:
        await it.pull("administration", "orders")
        it.box.faults.add("missing", operation="orders", times=0)
        assert (await it.pull("orders")).status == "refused"
        assert await it.rows("SELECT drift, record FROM syncd.shapes WHERE key = ''") == [
            ("envelope", '"{\\"took\\":3}"')
        ]
        it.box.faults.clear()
        assert (await it.pull("orders")).is_success
        assert await it.rows("SELECT * FROM syncd.shapes WHERE key = ''") == []


async def test_unknown_keys_everywhere_stop_nothing(store: Store) -> None:
    """A CRM that grows is a CRM in good health."""
    async with circle(store, switches=Switches(unknown_keys=True)) as it:
        reports = await it.puller.pull_all()
        assert {report.status for report in reports} == {"succeeded"}
        assert await it.rows(OPEN) == []
        told = [sentence for report in reports for sentence in report.news]
        assert len(told) == len(await it.rows(ODD)) > 6


async def _whole(it: Circle, stream: str) -> RunReport:
    """Read a stream from its beginning; rows asked for one by one are all due again."""
    if stream == "invoice_details":
        due = "UPDATE crm.invoices SET detail_status = 'pending', detail_next_at = '2020-01-01' WHERE NOT is_credit"
        await _as_syncd(it, due)
    return await it.puller.pull(stream, reach_s=ALL)


async def _as_syncd(it: Circle, statement: str) -> None:
    async with it.store.begin_remote() as connection:
        await connection.exec_driver_sql(statement)
