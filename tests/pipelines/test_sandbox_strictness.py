"""The simulator refuses what the reference does not allow, and a refused call leaves the state as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.crm import ANNA, Caller, crm

GET, POST = "GET", "POST"
CONSENT = {
    "relId": str(ANNA),
    "privacyText": "p",
    "privacyAgreement": "Y",
    "privacyUrl": "u",
    "consentText": "c",
    "consentAgreement": "Y",
    "ip": "192.0.2.1",
}


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with crm() as opened:
        yield opened


@pytest.mark.parametrize(
    ("verb", "path", "given"),
    [
        (GET, "orders", {}),
        (GET, "orders", {"hours": "0"}),
        (GET, "orders", {"hours": "-1"}),
        (GET, "orders", {"hours": "1.5"}),
        (GET, "orders", {"hours": "24", "paid": "y"}),
        (GET, "invoices", {}),
        (GET, "invoices", {"dateFrom": "01-02-2025"}),
        (GET, "invoices", {"dateFrom": "2025-2-1"}),
        (GET, "invoices", {"dateFrom": "2025-02-30"}),
        (GET, "relation", {}),
        (GET, "relation", {"email": "geen adres"}),
        (GET, "relation/abc", {}),
        (POST, "relation", {}),
        (POST, "relation", {"email": "nieuw"}),
        (POST, "relation", {"email": "n@x.example", "gender": "V"}),
        (POST, "relation", {"email": "n@x.example", "gender": ""}),
        (POST, "relation", {"email": "n@x.example", "type": "AB"}),
        (POST, "relation", {"email": "n@x.example", "password": "kort"}),
        (POST, "relation", {"email": "n@x.example", "password": "x" * 21}),
        (POST, "relation", {"email": "n@x.example", "customer": "Y"}),
        (POST, "relation", {"email": "n@x.example", "firstname": "Nora"}),
        (POST, f"relation/{ANNA}/email", {"newemail": ""}),
        (POST, f"relation/{ANNA}/setfield", {"fieldCode": "x"}),
        (POST, f"relation/{ANNA}/setfield", {"fieldCode": "", "fieldValue": "x"}),
        (POST, "field", {"fieldName": "met spatie", "fieldLabel": "x", "fieldType": "string"}),
        (POST, "field", {"fieldName": "cijfer1", "fieldLabel": "x", "fieldType": "string"}),
        (POST, "field", {"fieldName": "a" * 60, "fieldLabel": "x", "fieldType": "string"}),
        (POST, "field", {"fieldName": "a", "fieldLabel": "x", "fieldType": "number"}),
        (POST, "field", {"fieldName": "a", "fieldLabel": "x", "fieldType": "list"}),
        (POST, "field", {"fieldName": "a", "fieldLabel": "x", "fieldType": "list", "fieldOptions": "a," * 1024}),
        (POST, "listmanagers/401/subscribe", {}),
        (POST, "listmanagers/401/subscribe", {"relId": str(ANNA), "skipOptin": "yes"}),
        (POST, "listmanagers/401/unsubscribe", {"relId": str(ANNA)}),
        (POST, "listmanagers/401/gdpr_subscribe", {**CONSENT, "ip": "thuis"}),
        (POST, "listmanagers/401/gdpr_subscribe", {**CONSENT, "consentAgreement": "true"}),
        (POST, "orders/subscriptions/80001/end", {"endDate": "2025-12-31"}),
        (POST, "orders/subscriptions/80001/end", {"endDate": "1-2-2025"}),
    ],
)
async def test_malformed_parameters_are_refused(caller: Caller, verb: str, path: str, given: dict[str, str]) -> None:
    """What passes here and fails at the vendor's is the worst kind of test double."""
    if verb == GET:
        got = await caller.get(path, **given)
    else:
        got = await caller.post(path, **given)
    assert got.status == 400
    assert got.json["error"]
    assert len(caller.sandbox.journal) == 0


@pytest.mark.parametrize(
    ("verb", "path", "form"),
    [
        (GET, "relation/999", {}),
        (GET, "relation/999/tags", {}),
        (GET, "relation/999/subscriptions", {}),
        (GET, "orders/relation/999", {}),
        (GET, "groups/999/relations", {}),
        (GET, "admins/999", {}),
        (GET, "invoice/999", {}),
        (GET, "invoices/999", {}),
        (POST, "relation/999/addtag/301", {}),
        (POST, f"relation/{ANNA}/addtag/999", {}),
        (POST, f"relation/{ANNA}/removetag/999", {}),
        (POST, "relation/addtag/301", {"email": "niemand@x.example"}),
        (POST, f"group/999/member/{ANNA}", {}),
        (POST, "group/20101/member/999", {}),
        ("DELETE", "group/20101/member/999", {}),
        (POST, "listmanagers/999/subscribe", {"relId": str(ANNA)}),
        (POST, "listmanagers/401/subscribe", {"relId": "999"}),
        (POST, f"relation/{ANNA}/setfield", {"fieldCode": "4711_FF0", "fieldValue": "x"}),
        (POST, f"relation/{ANNA}/setfield", {"fieldCode": "relation_firstName", "fieldValue": "x"}),
        (POST, "orders/subscriptions/999/end", {"endDate": "31-12-2025"}),
    ],
)
async def test_what_nobody_has_is_not_found(caller: Caller, verb: str, path: str, form: dict[str, str]) -> None:
    """An unknown id must never be taken for a success."""
    assert (await caller.call(verb, path, form=form)).status == 404
    assert len(caller.sandbox.journal) == 0


@pytest.mark.parametrize("path", ["tags", "orders?hours=1", f"relation/{ANNA}"])
async def test_every_signed_endpoint_wants_admin_and_key(caller: Caller, path: str) -> None:
    """Without credentials, with half of them or with wrong ones: nothing is told."""
    for credentials in ("", "admin=4711", f"key={caller.sandbox.key}", "admin=4711&key=wrong", "admin=1&key=wrong"):
        url = f"{caller.sandbox.base_url}{path}{'&' if '?' in path else '?'}{credentials}"
        async with caller.session.get(url) as response:
            assert response.status == 401


async def test_parameters_in_the_wrong_place_are_not_read(caller: Caller) -> None:
    """A form parameter in the query is what a misread reference leads to."""
    in_query = await caller.call("POST", f"relation/{ANNA}/email", query={"newemail": "a@x.example"})
    in_body = await caller.call("GET", "relation", form={"email": "a@x.example"})
    in_json = await caller.call("POST", f"relation/{ANNA}/email", json={"newemail": "a@x.example"})
    assert [in_query.status, in_body.status, in_json.status] == [400, 400, 400]


async def test_a_parameter_given_twice_is_refused(caller: Caller) -> None:
    """Which of the two would count is anybody's guess."""
    url = f"{caller.sandbox.base_url}orders?hours=1&hours=24&admin=4711&key={caller.sandbox.key}"
    async with caller.session.get(url) as response:
        assert response.status == 400


async def test_a_wrong_verb_gets_405_with_the_right_ones(caller: Caller) -> None:
    """405 is the one safe sign that the verb table is wrong."""
    got = await caller.call("PUT", f"group/20101/member/{ANNA}")
    assert (got.status, got.headers["Allow"]) == (405, "DELETE, OPTIONS, POST")
    options = await caller.call("OPTIONS", f"relation/{ANNA}/setfield")
    assert (options.status, options.headers["Allow"]) == (200, "OPTIONS, POST")
    assert len(caller.sandbox.journal) == 0


async def test_credit_invoice_detail_is_refused(caller: Caller) -> None:
    """The reference says it is not supported; its list row and its PDF are."""
    number = next(number for number, is_credit in caller.sandbox.world.invoices if is_credit)
    assert (await caller.get(f"invoice/{number}")).status == 400
    assert (await caller.get(f"invoices/{number}")).status == 200
