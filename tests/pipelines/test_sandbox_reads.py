"""The simulator's reads say what the reference says, key for key: a provider tested on it meets the documented API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote

import pytest

from syncd.sandbox import OrderLine
from syncd.sandbox.autorespond.routes import ROUTES
from tests.support.crm import ANNA, NOW, Caller, crm

RELATION = {"id", "firstName", "suffix", "lastName", "email", "funnelState", "gender"}
LINE = {"lineType", "productId", "productName", "quantity", "subscriptionId", "subscriptionBilledUntil"}


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with crm() as opened:
        yield opened


def test_all_29_endpoints_are_there() -> None:
    """One endpoint left out is one that a provider can never be tried on."""
    assert len(ROUTES) == 29
    assert len({(route.verb, route.path) for route in ROUTES}) == 29


async def test_version_wants_no_key(caller: Caller) -> None:
    """The liveness probe must not carry a secret."""
    async with caller.session.get(caller.sandbox.base_url + "version") as response:
        assert (response.status, await response.json()) == (200, {"data": "1.0"})


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("fields", {"code", "name", "type", "options"}),
        ("tags", {"id", "name"}),
        ("groups", {"id", "title"}),
        ("listmanagers", {"id", "name", "category", "code", "groupId"}),
        ("groups/20101/relations", RELATION),
    ],
)
async def test_collections_have_the_documented_keys(caller: Caller, path: str, keys: set[str]) -> None:
    """The keys are all that the reference states about bodies."""
    rows = (await caller.get(path)).payload
    assert rows
    assert all(set(row) == keys for row in rows)


async def test_the_administration_gives_its_access_code_away(caller: Caller) -> None:
    """A secret in an answer: whoever mirrors it blindly leaks it."""
    row = (await caller.get(f"admins/{caller.sandbox.admin}")).payload
    assert set(row) == {"company_id", "accessCode", "serviceLevel", "locked", "adminName", "adminEmail"}
    assert row["accessCode"]


async def test_relation_by_id_and_by_email_are_one(caller: Caller) -> None:
    """Both reads show the same record, an address with a plus included."""
    plus = next(each for each in caller.sandbox.world.relations.values() if "+" in each.email)
    by_id = (await caller.get(f"relation/{plus.id}")).payload
    by_email = (await caller.get("relation", email=plus.email)).payload
    assert by_id == by_email
    assert set(by_id) == RELATION


async def test_tags_of_a_relation_are_names(caller: Caller) -> None:
    """Tags go in by id and come out by name."""
    await caller.post(f"relation/{ANNA}/addtag/304")
    assert "vip" in (await caller.get(f"relation/{ANNA}/tags")).payload


async def test_the_two_order_endpoints_differ_as_documented(caller: Caller) -> None:
    """Normalising them is the mirror's work, so the difference must be there."""
    wide = (await caller.get("orders", hours="999999", paid="-")).payload
    assert len(wide) == 60
    order = next(row for row in wide if any(line["subscriptionId"] for line in row["orderlines"]))
    narrow = (await caller.get(f"orders/relation/{order['relationId']}")).payload
    same = next(row for row in narrow if row["orderId"] == order["orderId"])
    assert set(order) - set(same) == {"relationId", "relationName", "relationEmail"}
    assert set(same) - set(order) == {"email"}
    assert set(order["orderlines"][0]) == LINE | {"subscriptionEnds"}
    assert set(same["orderlines"][0]) == LINE | {"subscriptionEndsAt"}


async def test_hours_count_back_from_server_time_and_the_clock_moves(caller: Caller) -> None:
    """An order leaves the window as time goes by; one of the future is not there yet."""
    world = caller.sandbox.world
    line = (OrderLine("product", 7001, "Desembrood", 1),)
    inside = world.add_order(ANNA, line, at=NOW - timedelta(hours=2)).id
    future = world.add_order(ANNA, line, at=NOW + timedelta(hours=1)).id

    async def seen(hours: int) -> set[int]:
        return {row["orderId"] for row in (await caller.get("orders", hours=str(hours))).payload}

    assert inside in await seen(2)
    assert inside not in await seen(1)
    assert future not in await seen(2)
    world.clock.advance(3600)
    assert inside not in await seen(2)
    assert future in await seen(2)


async def test_paid_filters_and_a_late_payment_shows_nowhere_else(caller: Caller) -> None:
    """An unpaid order that is paid later changes without a timestamp."""
    unpaid = [row["orderId"] for row in (await caller.get("orders", hours="99999", paid="N")).payload]
    paid = [row["orderId"] for row in (await caller.get("orders", hours="99999", paid="Y")).payload]
    assert unpaid
    assert len(paid) + len(unpaid) == 60
    caller.sandbox.world.pay_order(unpaid[0])
    after = (await caller.get("orders", hours="99999", paid="N")).payload
    now_paid = (await caller.get("orders", hours="99999", paid="Y")).payload
    assert unpaid[0] not in [row["orderId"] for row in after]
    assert next(row for row in now_paid if row["orderId"] == unpaid[0])["paid"] == "Y"


async def test_an_order_shows_the_address_its_relation_has_now(caller: Caller) -> None:
    """Encoded orders are kept; a kept row that outlives a change would be a lie of the simulator's."""
    row = (await caller.get("orders", hours="99999")).payload[0]
    await caller.post(f"relation/{row['relationId']}/email", newemail="nieuw@voorbeeld.example")
    again = (await caller.get("orders", hours="99999")).payload[0]
    assert again["relationEmail"] == "nieuw@voorbeeld.example"


async def test_invoices_come_after_a_day_without_ids(caller: Caller) -> None:
    """dateFrom means AFTER, so the day itself is left out."""
    invoice = max(caller.sandbox.world.invoices.values(), key=lambda each: each.created_at)
    day = invoice.invoiced_on
    on_the_day = (await caller.get("invoices", dateFrom=day.isoformat())).payload
    day_before = (await caller.get("invoices", dateFrom=(day - timedelta(days=1)).isoformat())).payload
    keys = {"relationEmail", "invoiceNumber", "description", "invoiceDate", "isCreditInvoice", "amountIncl"}
    assert invoice.number not in [row["invoiceNumber"] for row in on_the_day]
    assert set(next(row for row in day_before if row["invoiceNumber"] == invoice.number)) == keys


async def test_invoice_detail_of_a_number_with_a_slash(caller: Caller) -> None:
    """The number is one path segment only if its slash is encoded."""
    world = caller.sandbox.world
    number = next(number for number, is_credit in world.invoices if "/" in number and not is_credit)
    row = (await caller.get(f"invoice/{quote(number, safe='')}")).payload
    assert row["invoiceNumber"] == number
    assert row["relationId"] == world.invoices[number, False].relation_id
    assert set(row["lines"][0]) == {
        "discount",
        "sku",
        "description",
        "quantity",
        "amount",
        "vatamount",
        "vatpercentage",
        "ledger",
    }
    assert round(row["amountExcl"] + row["amountVat"], 2) == row["amountIncl"]
    assert (await caller.get(f"invoice/{number}")).status == 404


async def test_plural_invoice_is_a_pdf(caller: Caller) -> None:
    """One letter makes the difference between JSON and a document."""
    number = next(iter(caller.sandbox.world.invoices))[0]
    got = await caller.get(f"invoices/{quote(number, safe='')}")
    assert got.headers["Content-Type"] == "application/pdf"
    assert got.body.startswith(b"%PDF-")
    assert got.body.endswith(b"%%EOF\n")


async def test_subscriptions_are_events(caller: Caller) -> None:
    """A list of what happened; the state is the reader's to work out."""
    await caller.post("listmanagers/401/subscribe", relId=str(ANNA), skipOptin="Y")
    await caller.post("listmanagers/401/unsubscribe", relId=str(ANNA), reason="verhuisd")
    rows = (await caller.get(f"relation/{ANNA}/subscriptions")).payload
    assert [row["subscribedFlag"] for row in rows[-2:]] == ["S", "U"]
    assert set(rows[-1]) == {"campaignId", "relationId", "subscribedFlag", "eventDate"}


async def test_the_date_header_is_server_time(caller: Caller) -> None:
    """Clock skew is read from it, so it must be the simulator's own clock."""
    assert (await caller.get("tags")).headers["Date"] == "Sat, 01 Mar 2025 12:00:00 GMT"
    caller.sandbox.clock.advance(90)
    assert (await caller.get("tags")).headers["Date"] == "Sat, 01 Mar 2025 12:01:30 GMT"
