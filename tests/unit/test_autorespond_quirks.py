"""Each quirk that the package's docstring lists, held under the same name."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec import UNSET

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    RemoveTag,
    SetField,
    Subscribe,
    UpdateProfile,
)
from syncd.domain.errors import ConfigurationError, MalformedAnswer
from syncd.domain.records import TagName
from syncd.providers import autorespond
from syncd.providers.contract import (
    Delivered,
    MaybeApplied,
    Proof,
    ProviderOptions,
    Rejected,
    Response,
    StreamArguments,
    Unknown,
)
from tests.support.conversing import answer, hold
from tests.support.conversing import target as whom

CRM = autorespond.provider()
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def rows(stream: str, body: str):
    batches = list(CRM.streams[stream].decode(Response(200, body=body.encode())))
    return [row for batch in batches for row in batch.rows]


def records(stream: str, body: str):
    return [row.record for row in rows(stream, body)]


def order(**keys: object) -> str:
    return json.dumps([{"orderId": 1, "orderlines": [], "paid": "Y", "purchaseDate": "2026-01-02", **keys}])


def test_every_quirk_of_the_docstring_has_its_test():
    """A quirk without a test is a rumour."""
    listed = re.findall(r"^\* ``(\w+)``", autorespond.__doc__ or "", re.MULTILINE)
    tests = {name for name in dir(sys.modules[__name__]) if name.startswith("test_")}
    assert len(listed) > 20
    assert [name for name in listed if f"test_{name}" not in tests] == []


def test_verbs_are_a_guess():
    held = hold(autorespond.provider(ProviderOptions(verbs={"tag_add": "PUT"})), AddTag(1, "4", "x"), whom(), "true")
    assert held.requests[0].verb == "PUT"


def test_put_parameters_go_in_the_query():
    options = ProviderOptions(verbs={"field_set": "PUT"})
    held = hold(autorespond.provider(options), SetField(1, "9_FF1", None, "v"), whom(), "true")
    assert held.requests[0].query == (("fieldCode", "9_FF1"), ("fieldValue", "v"))
    assert held.requests[0].form == ()


def test_joining_and_leaving_share_a_path():
    with pytest.raises(ConfigurationError, match="both be POST"):
        autorespond.provider(ProviderOptions(verbs={"group_remove": "POST"}))


def test_key_travels_in_the_query():
    auth = CRM.auth({"admin": "12", "key": "s3cret", "other": "x"})
    assert (dict(auth.query), dict(auth.headers)) == ({"admin": "12", "key": "s3cret"}, {})
    assert not CRM.liveness().is_signed
    assert CRM.probe().is_signed
    assert "s3cret" not in repr(auth)


def test_paths_are_irregular():
    rows_ = CRM.endpoints
    assert rows_["invoice_detail"].request({"invoiceNumber": "2026/0 1"}).path == "invoice/2026%2F0%201"
    assert rows_["invoice_file"].request({"invoiceNumber": "2026/0 1"}).path == "invoices/2026%2F0%201"
    assert rows_["fields"].path == "fields"
    assert rows_["field_create"].path == "field"


@pytest.mark.parametrize(
    "envelope", ['{"data":%s}', '{"groups":%s}', '{"Groups":%s}', "%s", ' {"x":1,"data":%s,"y":2}']
)
def test_payload_comes_in_three_envelopes(envelope):
    assert [group.title for group in records("groups", envelope % '[{"id":1,"title":"A"}]')] == ["A"]


@pytest.mark.parametrize("error", ['"no such tag"', '{"message":"no such tag"}', '["no such tag"]'])
def test_errors_come_under_200(error):
    held = hold(CRM, AddTag(1, "4", "x"), whom(), f'{{"error":{error}}}')
    assert isinstance(held.outcome, Rejected)
    assert "no such tag" in held.outcome.reason
    with pytest.raises(MalformedAnswer, match="no such tag"):
        rows("tags", f'{{"error":{error}}}')


def test_missing_list_is_not_an_empty_list():
    """Else a change of shape looks like "everything was deleted"."""
    assert rows("tags", '{"data":null}') == rows("tags", "null") == rows("tags", "[]") == []
    for body in ("{}", '{"rows":[]}', "", '{"data":{}}', "TRUE"):
        with pytest.raises(MalformedAnswer):
            rows("tags", body)


@pytest.mark.parametrize(
    "given", ["null", '{"data":null}', answer('{"error":"Unknown relation"}', 400), answer("", 404)]
)
def test_null_object_is_not_found(given):
    held = hold(CRM, AddTag(1, "4", "x"), whom(remote_id=None), given)
    assert isinstance(held.outcome, Rejected)
    assert "no relation with this e-mail address" in held.outcome.reason


def test_silence_is_a_yes():
    for body in ("", "  "):
        outcome = hold(CRM, AddTag(1, "4", "x"), whom(), body).outcome
        assert outcome == Delivered(Proof.ACCEPTED, None, "the CRM answered without a word")


def test_null_is_a_no():
    """Taken for a yes, a tag that does not exist would count as given."""
    for body in ("null", '{"data":null}', '{"result":null}'):
        outcome = hold(CRM, AddTag(1, "4", "x"), whom(), body).outcome
        assert isinstance(outcome, Rejected)
        assert outcome.is_absent


@pytest.mark.parametrize("body", ["false", "FALSE", '{"result":"N"}', '{"data":false}', "0"])
def test_false_is_a_no(body):
    assert isinstance(hold(CRM, AddTag(1, "4", "x"), whom(), body).outcome, Rejected)


@pytest.mark.parametrize(
    ("given", "paid"), [("Y", True), ("N", False), (True, True), ("TRUE", True), (0, False), ("J", True)]
)
def test_booleans_have_many_spellings(given, paid):
    assert records("orders", order(paid=given))[0].is_paid is paid
    [row] = rows("orders", order(paid="perhaps"))
    assert row.record.is_paid is None
    assert "paid" in row.warnings[0]
    for body in ("TRUE", "true", '{"status":"ok"}', "ok", '"OK"', '{"data":"Y"}', '{"result":1}'):
        assert isinstance(hold(CRM, AddTag(1, "4", "x"), whom(), body).outcome, Delivered), body


def test_times_have_no_zone():
    [summer, winter] = (
        records("orders", order(purchaseDate=text))[0] for text in ("2026-07-01 12:00", "2026-12-01 12:00")
    )
    assert (summer.purchased_at.hour, winter.purchased_at.hour) == (10, 11)
    [twice] = rows("orders", order(purchaseDate="2026-10-25 02:30:00"))
    assert twice.record.purchased_at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert "came twice" in twice.warnings[0]
    london = autorespond.provider(ProviderOptions(time_zone="Europe/London")).streams["orders"]
    [batch] = london.decode(Response(200, body=order(purchaseDate="2026-07-01 12:00").encode()))
    assert batch.rows[0].record.purchased_at.hour == 11


def test_dates_have_many_formats():
    texts = ["2026-07-01 12:00:00", "2026-07-01T12:00:00+02:00", "01-07-2026 12:00", 1782900000000, "2026-07-01T10:00Z"]
    assert {records("orders", order(purchaseDate=text))[0].purchased_at for text in texts} == {
        datetime(2026, 7, 1, 10, 0, tzinfo=UTC)
    }
    [row] = rows("orders", order(purchaseDate="07/01/2026"))
    assert row.record.purchased_at is None
    assert "purchaseDate" in row.warnings[0]
    assert b"07/01/2026" in row.raw


def test_dotted_amounts_are_ambiguous():
    body = '[{"invoiceNumber":"1","isCreditInvoice":"N","amountIncl":"1.234"}]'
    [row] = rows("invoices", body)
    assert row.record.amount_incl is None
    assert "amountIncl" in row.warnings[0]
    assert b'"1.234"' in row.raw
    assert records("invoices", body.replace("1.234", "1.234,50"))[0].amount_incl == Decimal("1234.50")


def test_ids_are_numbers_or_digits():
    both = [records("orders", order(orderId=given, relationId=given))[0] for given in (7, "7")]
    assert both[0] == both[1]
    assert both[0].remote_id == both[0].relation_remote_id == "7"
    assert records("orders", order(relationId=0))[0].relation_remote_id is None


def test_invoice_numbers_are_texts():
    body = '[{"invoiceNumber":"00012","isCreditInvoice":true},{"invoiceNumber":"00012","isCreditInvoice":"N"}]'
    assert [(it.number, it.is_credit) for it in records("invoices", body)] == [("00012", True), ("00012", False)]
    assert records("invoices", '[{"invoiceNumber":12,"isCreditInvoice":0}]')[0].number == "12"
    with pytest.raises(MalformedAnswer, match="credit"):
        rows("invoices", '[{"invoiceNumber":"1"}]')


def test_order_endpoints_disagree():
    """Unlike names would flip the row's hash with every sweep; a missing key must not null the other's value."""
    line = '{"lineType":"A","subscriptionId":5,"%s":"01-02-2027"}'
    wide = '[{"orderId":1,"relationId":3,"relationEmail":"a@b.nl","paid":"Y","orderlines":[%s]}]'
    narrow = '[{"orderId":"1","email":"a@b.nl","paid":"Y","orderlines":[%s]}]'
    wide, narrow = wide % (line % "subscriptionEnds"), narrow % (line % "subscriptionEndsAt")
    [first], [second] = records("orders", wide), records("relation_orders", narrow)
    assert first.lines == second.lines
    assert first.lines[0].subscription_ends_on == date(2027, 2, 1)
    assert first.relation_email == second.relation_email == "a@b.nl"
    assert (first.relation_remote_id, second.relation_remote_id) == ("3", UNSET)


def test_access_code_is_never_kept():
    stream = autorespond.provider(ProviderOptions(administration="12")).streams["administration"]
    assert stream.request(StreamArguments(NOW)).path == "admins/12"
    body = b'{"admin":{"company_id":12,"accessCode":"hush","ACCESSCODE":"hush","adminName":"Shop","new":1}}'
    [batch] = stream.decode(Response(200, body=body))
    assert batch.rows[0].record.title == "Shop"
    assert b"hush" not in batch.rows[0].raw
    assert b'"new":1' in batch.rows[0].raw


def test_fields_do_not_say_whose_they_are():
    body = '[{"code":"12_FF1300000000000","name":"Colour","type":"list","options":["red"]},{"code":"relation_email"}]'
    assert [(field.code, field.is_writable) for field in records("fields", body)] == [
        ("12_FF1300000000000", True), ("relation_email", False)
    ]  # fmt: skip
    held = hold(CRM, SetField(1, "relation_firstName", None, "x"), whom())
    assert isinstance(held.outcome, Rejected)
    assert held.requests == ()


def test_field_values_cannot_be_read():
    held = hold(CRM, SetField(1, "12_FF1", "a", "b"), whom(), "true")
    assert held.outcome == Delivered(Proof.ACCEPTED)
    held = hold(
        autorespond.provider(ProviderOptions(verify_writes=True)), SetField(1, "12_FF1", "a", "b"), whom(), "true"
    )
    assert held.outcome == Delivered(Proof.ACCEPTED)


def test_created_field_has_no_code_yet():
    change = CreateField("colour", "Colour", "list", ("red", "blue"))
    held = hold(CRM, change, whom(), "[]", '{"id":991}')
    assert held.operations == ["fields", "field_create"]
    assert dict(held.requests[1].form)["fieldOptions"] == "red,blue"
    assert held.outcome.proof is Proof.ACCEPTED
    assert held.outcome.remote_id is None
    assert "991" in held.outcome.detail


def test_tags_are_listed_by_name():
    assert records("relation_tags", '{"tags":["A","B "]}') == [TagName("A"), TagName("B ")]
    listed = '[{"id":1,"name":"vip"},{"id":2,"name":" VIP "},{"id":3,"name":"x"},{"id":4,"name":"x"}]'
    assert hold(CRM, AddTag(1, None, "VIP"), whom(), listed, "true").requests[1].path == "relation/7/addtag/2"
    for change, says in ((AddTag(1, None, "new"), "create it in the CRM"), (RemoveTag(1, None, "x"), "2 tags")):
        outcome = hold(CRM, change, whom(), listed).outcome
        assert isinstance(outcome, Rejected)
        assert says in outcome.reason


def test_upsert_finds_by_address():
    """Keyed on our new address before the CRM knows it, the upsert would make a second relation."""
    now = '{"data":{"id":7,"email":"theirs@x.nl","firstName":"A"}}'
    held = hold(CRM, UpdateProfile({}, {"first_name": "B"}), whom(), now, now.replace('"A"', '"B"'))
    assert held.operations == ["relation_by_id", "relation_upsert"]
    assert held.requests[1].form == (("email", "theirs@x.nl"), ("firstName", "B"))
    assert held.outcome == Delivered(Proof.VERIFIED)
    held = hold(CRM, ChangeEmail("ours@x.nl", "new@x.nl"), whom(), "true")
    assert [request.path for request in held.requests] == ["relation/7/email"]


def test_empty_texts_are_untested():
    change = UpdateProfile({"suffix": "van"}, {"suffix": None})
    now = '{"id":7,"email":"a@b.nl","suffix":"van","firstName":"A","lastName":"B","gender":"M"}'
    refused = hold(CRM, change, whom(), now)
    assert isinstance(refused.outcome, Rejected)
    assert "SYNCD_FULL_PAYLOAD" in refused.outcome.reason
    full = autorespond.provider(ProviderOptions(full_payload=True))
    sent = hold(full, change, whom(), now, now.replace('"van"', '""'))
    assert sent.requests[1].form == (
        ("email", "a@b.nl"), ("firstName", "A"), ("suffix", ""), ("lastName", "B"), ("gender", "M")
    )  # fmt: skip
    assert sent.outcome == Delivered(Proof.VERIFIED)
    created = hold(CRM, CreateRelation("a@b.nl", {"suffix": None, "last_name": "B"}), whom(remote_id=None), now)
    assert created.requests[0].form == (("email", "a@b.nl"), ("lastName", "B"))


def test_subscriptions_are_events():
    events = [
        {"campaignId": 5, "subscribedFlag": "S", "eventDate": "2026-01-01"},
        {"campaignId": 5, "subscribedFlag": "U", "eventDate": "2026-03-01"},
        {"campaignId": 5, "subscribedFlag": "S", "eventDate": "2026-02-01"},
        {"campaignId": 6, "subscribedFlag": "X", "eventDate": None},
        {"campaignId": 8, "subscribedFlag": "s", "eventDate": "2026-01-01"},
    ]
    body = json.dumps(events)
    found = {it.list_remote_id: it.status for it in records("relation_subscriptions", body)}
    assert found == {"5": "unsubscribed", "6": "X", "8": "subscribed"}


def test_list_calls_are_never_repeated_blindly():
    open_ = autorespond.provider(ProviderOptions(allowed_operations=frozenset({"subscribe"})))
    change = Subscribe(1, "5", True)
    assert isinstance(hold(open_, change, whom(), MaybeApplied("timed out")).outcome, Unknown)
    event = '[{"campaignId":"5","relationId":7,"subscribedFlag":"S","eventDate":"2026-01-01"}]'
    shown = hold(open_, change, whom(is_repeat=True), event)
    assert (shown.operations, shown.outcome.proof) == (["relation_subscriptions"], Proof.VERIFIED)
    hidden = hold(open_, change, whom(is_repeat=True), "[]")
    assert (hidden.operations, type(hidden.outcome)) == (["relation_subscriptions"], Unknown)


@pytest.mark.parametrize("minutes", [1, 54, 55, 56, 60, 120, 121, 60 * 24 * 90])
def test_hours_count_back_from_their_now(minutes):
    """The CRM starts to count when it gets to the request: what is claimed must hold even if that is minutes later."""
    stream, arguments = CRM.streams["orders"], StreamArguments(NOW, NOW - timedelta(minutes=minutes))
    request = stream.request(arguments)
    assert dict(request.query)["paid"] == "-"
    hours = int(dict(request.query)["hours"])
    assert hours >= 1
    assert stream.covers_from(arguments) <= arguments.asked_from
    late = NOW + timedelta(minutes=4)
    assert late - timedelta(hours=hours) <= stream.covers_from(arguments)


def test_date_from_may_exclude_its_day():
    """Midnight in Amsterdam is the evening before in UTC: the day asked for must be the CRM's, and two before it."""
    stream = CRM.streams["invoices"]
    arguments = StreamArguments(NOW, datetime(2026, 6, 30, 22, 30, tzinfo=UTC))
    assert dict(stream.request(arguments).query) == {"dateFrom": "2026-06-29"}
    assert stream.covers_from(arguments) == datetime(2026, 6, 29, 22, 0, tzinfo=UTC)
    assert stream.covers_from(arguments) <= arguments.asked_from
