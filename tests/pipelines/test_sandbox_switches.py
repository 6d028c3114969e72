"""Each switch has its effect on the wire: what is unknown about the real server can be tried both ways."""

from __future__ import annotations

import asyncio
import re
from datetime import date

import msgspec
import pytest

from syncd.domain.errors import UserError
from syncd.sandbox import Sandbox, Switches, World
from tests.support.crm import ANNA, NOW, crm

ALL = {"hours": "999999"}


@pytest.mark.parametrize(
    ("envelope", "tags", "added"),
    [
        ("data", b'{"data":[', b'{"data":true}'),
        ("named", b'{"tags":[', b'{"result":true}'),
        ("bare", b"[", b"true"),
        ("text", b'{"data":[', b"TRUE"),
    ],
)
async def test_envelopes(envelope: str, tags: bytes, added: bytes) -> None:
    """Only ``data`` has been seen; the others may be what other endpoints do."""
    async with crm(envelope=envelope) as caller:
        assert (await caller.get("tags")).body.startswith(tags)
        assert (await caller.post(f"relation/{ANNA}/addtag/301")).body == added


@pytest.mark.parametrize("status", [401, 403, 400, 200])
async def test_wrong_key_statuses(status: int) -> None:
    """An authentication failure may come as almost anything."""
    async with crm(wrong_key=status) as caller:
        got = await caller.call("GET", "tags", key="wrong")
        assert (got.status, "error" in got.json) == (status, True)


@pytest.mark.parametrize("status", [404, 400, 200])
async def test_unknown_id_statuses(status: int) -> None:
    """400 or 404 is not documented; 200 with an error is possible."""
    async with crm(unknown=status) as caller:
        got = await caller.get("relation/999")
        assert (got.status, "error" in got.json) == (status, True)


async def test_unknown_may_be_null_and_errors_objects() -> None:
    """A null where an object is expected means not found."""
    async with crm(unknown=204, error_shape="object", invalid=422) as caller:
        assert (await caller.get("relation/999")).json == {"data": None}
        got = await caller.get("orders")
        assert (got.status, got.json["error"]["message"]) == (422, "missing parameter: hours")


@pytest.mark.parametrize(
    ("dates", "shape"),
    [
        ("iso", r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"'),
        ("offset", r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0[12]:00"'),
        ("space", r'"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"'),
        ("minutes", r'"\d{4}-\d\d-\d\d \d\d:\d\d"'),
        ("dutch", r'"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d"'),
        ("dutch_minutes", r'"\d\d-\d\d-\d{4} \d\d:\d\d"'),
        ("epoch_ms", r"\d{13}"),
    ],
)
async def test_date_spellings(dates: str, shape: str) -> None:
    """The format of every date is unknown."""
    async with crm(dates=dates) as caller:
        body = (await caller.get("orders", **ALL)).body.decode()
        found = re.findall(r'"purchaseDate":("[^"]*"|[^,]*)', body)
        assert len(found) == 60
        assert all(re.fullmatch(shape, each) for each in found)


@pytest.mark.parametrize(
    ("amounts", "shape"),
    [
        ("number", r"-?\d+\.\d{1,2}"),
        ("point", r'"-?\d+\.\d\d"'),
        ("comma", r'"-?\d+,\d\d"'),
        ("grouped", r'"-?(\d{1,3}\.)*\d{1,3},\d\d"'),
        ("euro", r'"€ -?(\d{1,3}\.)*\d{1,3},\d\d"'),
        ("ambiguous", r'"-?\d+\.\d{3}"'),
    ],
)
async def test_amount_spellings(amounts: str, shape: str) -> None:
    """A comma may be a decimal sign; one point and three digits may be anything."""
    async with crm(amounts=amounts) as caller:
        body = (await caller.get("invoices", dateFrom="2020-01-01")).body.decode()
        found = re.findall(r'"amountIncl":("[^"]*"|[^,}]*)', body)
        assert len(found) == 36
        assert all(re.fullmatch(shape, each) for each in found), found


@pytest.mark.parametrize(
    ("paid", "values"),
    [
        ("letters", {"Y", "N"}),
        ("bool", {True, False}),
        ("string", {"true", "false"}),
        ("capitals", {"TRUE", "FALSE"}),
        ("number", {1, 0}),
        ("dutch", {"J", "N"}),
        ("words", {"ja", "nee"}),
    ],
)
async def test_paid_spellings(paid: str, values: set[object]) -> None:
    """Y and N go in; what comes out is unknown."""
    async with crm(paid=paid) as caller:
        assert {row["paid"] for row in (await caller.get("orders", **ALL)).payload} == values


async def test_ids_as_strings_and_nulls_and_unknown_keys() -> None:
    """Ids may be text, blanks may be null, and there may be more keys than the reference names."""
    async with crm(ids="string", nulls=True, unknown_keys=True) as caller:
        row = (await caller.get(f"relation/{ANNA}")).payload
        orders = (await caller.get("orders", **ALL)).payload
        blank = next(each for each in caller.sandbox.world.relations.values() if not each.suffix)
        assert row["id"] == str(ANNA)
        assert "xSandbox" in row
        assert (await caller.get(f"relation/{blank.id}")).payload["suffix"] is None
        assert all("xSandbox" in order and isinstance(order["orderId"], str) for order in orders)
        assert any(order["invoiceNumber"] is None for order in orders)


async def test_dates_that_do_not_parse() -> None:
    """Such a row must be kept, its date left empty."""
    async with crm(bad_dates_every=5) as caller:
        dates = [row["purchaseDate"] for row in (await caller.get("orders", **ALL)).payload]
        assert dates.count("31 februari") == 12


async def test_two_tags_of_one_name() -> None:
    """A name then says nothing about the id."""
    async with crm(duplicate_tags=True) as caller:
        names = [row["name"] for row in (await caller.get("tags")).payload]
        assert len(names) == len(set(names)) + 1


async def test_a_cap_on_hours_is_silent() -> None:
    """A window wider than the cap looks complete and is not."""
    async with crm(hours_cap=24 * 30) as caller:
        assert 0 < len((await caller.get("orders", **ALL)).payload) < 60


async def test_date_from_may_count_its_own_day() -> None:
    """AFTER may mean "from"."""
    async with crm(after="inclusive") as caller:
        invoice = max(caller.sandbox.world.invoices.values(), key=lambda each: each.created_at)
        rows = (await caller.get("invoices", dateFrom=invoice.invoiced_on.isoformat())).payload
        assert invoice.number in [row["invoiceNumber"] for row in rows]


async def test_other_booleans_may_be_spelled_otherwise_and_no_date_in_four_ways() -> None:
    """isCreditInvoice is half of an invoice's key, and a subscription without an end is one that runs."""
    async with crm(flags="dutch", no_date="zeros") as caller:
        invoices = (await caller.get("invoices", dateFrom="2020-01-01")).payload
        assert {row["isCreditInvoice"] for row in invoices} == {"J", "N"}
        lines = [line for row in (await caller.get("orders", **ALL)).payload for line in row["orderlines"]]
        assert "0000-00-00" in {line["subscriptionEnds"] for line in lines}


async def test_a_named_envelope_may_have_a_capital_and_an_empty_list_be_null() -> None:
    """The reference prints "List of orders", and never an answer."""
    async with crm(envelope="titled", empty_lists="null") as caller:
        assert (await caller.get("tags")).body.startswith(b'{"Tags":[')
        caller.sandbox.world.tags.clear()
        assert (await caller.get("tags")).body == b'{"Tags":null}'


async def test_naive_times_may_be_utc_and_date_from_may_look_at_the_invoices_own_date() -> None:
    """Nothing is said about the zone, nor about which date an invoice is created on."""
    async with crm(zone="UTC", created="dated") as caller:
        order = next(iter(caller.sandbox.world.orders.values()))
        rows = {row["orderId"]: row for row in (await caller.get("orders", **ALL)).payload}
        assert rows[order.id]["purchaseDate"] == order.purchased_at.strftime("%Y-%m-%dT%H:%M:%S")
        invoice = next(iter(caller.sandbox.world.invoices.values()))
        backdated = msgspec.structs.replace(invoice, number="B1", invoiced_on=date(2001, 1, 1))
        caller.sandbox.world.add_invoice(backdated)
        rows = (await caller.get("invoices", dateFrom="2002-01-01")).payload
        assert "B1" not in {row["invoiceNumber"] for row in rows}


async def test_paid_left_out_may_mean_paid_only() -> None:
    """The reason to send ``paid=-`` always."""
    async with crm(paid_default="Y") as caller:
        omitted = (await caller.get("orders", **ALL)).payload
        assert {row["paid"] for row in omitted} == {"Y"}
        assert len((await caller.get("orders", **ALL, paid="-")).payload) == 60


async def test_addresses_may_mind_their_case() -> None:
    """Two relations whose addresses differ in capitals alone."""
    async with crm(email_case="sensitive") as caller:
        one = (await caller.post("relation", email="Case@x.example")).payload["id"]
        two = (await caller.post("relation", email="case@x.example")).payload["id"]
        assert one != two
        assert (await caller.get("relation", email="CASE@x.example")).status == 404


async def test_omitted_parameters_may_blank() -> None:
    """The danger of sending only what changed."""
    async with crm(omitted="blanked") as caller:
        await caller.post("relation", email="b@x.example", firstName="Bea", lastName="Smit")
        row = (await caller.post("relation", email="b@x.example", lastName="Visser")).payload
        assert (row["firstName"], row["lastName"]) == ("", "Visser")


async def test_verbs_and_places_can_be_others() -> None:
    """The reference names no verbs, so each may prove to be another."""
    verbs, places = {"tag_add": "PUT", "relation_email": "PUT"}, {"field_set": "json", "relation_upsert": "any"}
    async with crm(verbs=verbs, places=places) as caller:
        assert (await caller.post(f"relation/{ANNA}/addtag/301")).status == 405
        assert (await caller.call("PUT", f"relation/{ANNA}/addtag/301")).status == 200
        moved = await caller.call("PUT", f"relation/{ANNA}/email", query={"newemail": "put@x.example"})
        assert moved.payload is True
        code = next(field.code for field in caller.sandbox.world.fields.values() if field.is_free)
        given = {"fieldCode": code, "fieldValue": "1"}
        assert (await caller.call("POST", f"relation/{ANNA}/setfield", form=given)).status == 400
        assert (await caller.call("POST", f"relation/{ANNA}/setfield", json=given)).payload is True
        assert (await caller.call("POST", "relation", query={"email": "q@x.example"})).status == 200


async def test_allow_and_options_may_be_missing() -> None:
    """Not every server says what it allows."""
    async with crm(allow_header=False, options=False) as caller:
        got = await caller.call("OPTIONS", "tags")
        assert got.status == 405
        assert "Allow" not in got.headers


async def test_unknown_parameters_may_be_ignored() -> None:
    """Most servers never notice a typing error."""
    async with crm(unknown_parameters="ignore") as caller:
        assert (await caller.get("orders", hours="24", payed="Y")).status == 200


@pytest.mark.parametrize("status", [400, 404, 500, 200])
async def test_credit_detail_fails_in_its_own_way(status: int) -> None:
    """ "Not supported" has no documented status."""
    async with crm(credit_detail=status) as caller:
        number = next(number for number, is_credit in caller.sandbox.world.invoices if is_credit)
        got = await caller.get(f"invoice/{number}")
        assert (got.status, "error" in got.json) == (status, True)


@pytest.mark.parametrize(
    ("spelling", "header"), [("seconds", "1"), ("date", "Sat, 01 Mar 2025 12:00:01 GMT"), ("none", None)]
)
async def test_a_rate_limit_says_when_to_come_again(spelling: str, header: str | None) -> None:
    """Over the limit: 429, nothing applied."""
    async with crm(rate_per_s=1, retry_after=spelling) as caller:
        got = [await caller.post(f"relation/{ANNA}/addtag/{tag}") for tag in range(301, 309)]
        refused = [each for each in got if each.status == 429]
        assert refused
        assert refused[0].headers.get("Retry-After") == header
        assert caller.sandbox.requests.by_fate["throttled"] == len(refused)


async def test_answers_may_come_without_a_length() -> None:
    """A chunked answer tells its end in another way."""
    async with crm(chunked=True) as caller:
        got = await caller.get("orders", **ALL)
        assert "Content-Length" not in got.headers
        assert len(got.payload) == 60


async def test_latency_delays_every_answer() -> None:
    """Deadlines are tried with it."""
    async with crm(latency_s=0.05) as caller:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await caller.get("tags")
        assert loop.time() - started >= 0.05


def test_switches_are_read_from_a_command_line() -> None:
    """Text in, checked values out."""
    got = Switches.parse(["paid=bool", "wrong_key=403", "nulls=true", "verbs.tag_add=PUT", "latency_s=0.5"])
    assert (got.paid, got.wrong_key, got.nulls, got.verbs, got.latency_s) == (
        "bool",
        403,
        True,
        {"tag_add": "PUT"},
        0.5,
    )


@pytest.mark.parametrize("text", ["paid", "payed=bool", "paid=maybe", "wrong_key=418", "paid.x=1"])
def test_a_switch_that_does_not_exist_is_refused(text: str) -> None:
    """A switch that silently does nothing makes a test pass for nothing."""
    with pytest.raises(UserError):
        Switches.parse([text])


@pytest.mark.parametrize("switches", [{"verbs": {"tag_ad": "PUT"}}, {"verbs": {"group_add": "DELETE"}}])
def test_a_verb_table_that_cannot_be_is_refused(switches: dict[str, dict[str, str]]) -> None:
    """An operation nobody knows, or two that would answer to one verb and path."""
    with pytest.raises(UserError):
        Sandbox(World.seeded(now=NOW), Switches().turned(**switches))
