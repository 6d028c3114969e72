"""One broken record costs that record at most: the others of its answer are read, and the break is told of."""

from __future__ import annotations

import json

import pytest

from syncd.domain.errors import MalformedAnswer
from syncd.providers import autorespond
from syncd.providers.autorespond.judgement import Judge, Said
from syncd.providers.autorespond.mending import mended
from syncd.providers.contract import Answered, Rejected, Response, Throttled, Unknown

CRM = autorespond.provider()
JUDGE = Judge()
SUBSCRIBE = CRM.endpoints["list_subscribe"]
SIGN = "\ufffd"


def read(stream: str, body: bytes):
    batches = list(CRM.streams[stream].decode(Response(200, body=body)))
    return [row for batch in batches for row in batch.rows], [word for batch in batches for word in batch.warnings]


def members(text: bytes) -> bytes:
    return b'{"data":[{"id":1,"lastName":"A"},{"id":2,"lastName":%s},{"id":3,"lastName":"C"}]}' % text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (rb'"a\u0000b"', f"a{SIGN}b"),
        (rb'"a\ud83d"', f"a{SIGN}"),
        (rb'"\uDE00b"', f"{SIGN}b"),
        (rb'"\ud83d\ud83d\ude00"', f"{SIGN}\U0001f600"),
        (rb'"\\ud83d \ud83d"', f"\\ud83d {SIGN}"),
        (b'"Ren\xe9"', f"Ren{SIGN}"),
        (b'"a\xed\xa0\xbd"', f"a{SIGN * 3}"),
        (b'"a\nb\tc"', "a\nb\tc"),
    ],
)
def test_a_text_that_is_no_text_costs_its_own_characters(text, meant):
    """Half an emoji in one name, and no relation of that group would ever be read again."""
    rows, _ = read("group_members", members(text))
    assert [row.record.last_name for row in rows] == ["A", meant, "C"]
    assert all(SIGN.encode() not in row.raw and json.loads(row.raw) for row in rows)
    assert [bool(row.warnings) for row in rows] == [False, SIGN in meant, False]


@pytest.mark.parametrize(("number", "meant"), [(b"1e309", "1E+309"), (b"-1e999", "-1E+999"), (b"1e-999", "1E-999")])
def test_a_number_that_no_float_holds_is_read(number, meant):
    """It stands where a text should be and is no reason to refuse a whole answer."""
    rows, _ = read("group_members", members(number))
    assert [row.record.last_name for row in rows] == ["A", meant, "C"]


def test_a_single_object_is_mended_too():
    (row,), _ = read("relation_details", b'{"data":{"id":7,"lastName":"x\\ud83d\n","email":"a@b.example"}}')
    assert row.record.last_name == f"x{SIGN}\n"
    assert row.warnings


def test_a_broken_text_does_not_hide_an_error():
    """A person reads it in the outbox, and half an emoji must not make it 'no reason given'."""
    outcome = CRM.judge(Response(400, body=b'{"error":"bad name \\ud83d\\u0000"}'), "relation_upsert")
    assert isinstance(outcome, Rejected)
    assert f"bad name {SIGN}" in outcome.reason


@pytest.mark.parametrize("given", ["60000", "9" * 400, "Sat, 21 Nov 2099 12:00:00 GMT"])
def test_nobody_is_asked_to_wait_for_years(given):
    """A delay in milliseconds, or a date of another century, would stop the account until somebody looked."""
    headers = {"retry-after": given, "date": "Sat, 21 Nov 2026 12:00:00 GMT"}
    outcome = CRM.judge(Response(429, headers=headers), "tags")
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_s == 3600


def test_the_body_says_whether_it_is_a_page():
    """A servlet that sets no type says text/html, and TRUE all the same: a mail that went out is not to be parked."""
    page = {"content-type": "text/html;charset=ISO-8859-1"}
    assert JUDGE.reply(Answered(Response(200, headers=page, body=b"TRUE")), SUBSCRIBE) == Said(b"true")
    assert isinstance(JUDGE.reply(Answered(Response(200, headers=page, body=b" <p>oops")), SUBSCRIBE), Unknown)


def test_a_number_too_long_for_a_number_costs_its_own_value():
    """It is kept as a text in ``raw``; Python refuses to read it and Postgres to hold it."""
    rows, _ = read("orders", b'[{"orderId":1,"paid":"Y","orderlines":[{"quantity":%s}]}]' % (b"9" * 5000))
    assert rows[0].record.lines[0].quantity is None
    assert "not an amount" in rows[0].warnings[0]


@pytest.mark.parametrize(
    "odd", ['{"orderId":2,"paid":"Y"}', '{"paid":"Y","orderlines":[]}', '{"orderId":2,"orderlines":{}}', "7", "null"]
)
def test_one_record_of_another_shape_is_left_out(odd):
    """A serialiser that drops empty keys may not stop all orders for ever."""
    good = '{"orderId":%d,"paid":"Y","orderlines":[]}'
    rows, warnings = read("orders", f"[{good % 1},{odd},{good % 3}]".encode())
    assert [row.record.remote_id for row in rows] == ["1", "3"]
    assert len(warnings) == 1
    assert "left out" in warnings[0]


@pytest.mark.parametrize("odd", ['{"orderId":2,"paid":"Y"}', '{"id":2,"orderlines":[]}'])
def test_when_most_records_have_another_shape_nothing_is_believed(odd):
    """Then it is the API that changed, and every row would seem gone."""
    good = '{"orderId":1,"paid":"Y","orderlines":[]}'
    for body in (f"[{odd}]", f"[{odd},{good},{odd}]"):
        with pytest.raises(MalformedAnswer):
            read("orders", body.encode())


def test_options_of_a_field_may_come_as_one_text():
    """They are sent that way, so they may come that way."""
    rows, _ = read("fields", b'[{"code":"x_1","name":"X","type":"list","options":"red,blue"}]')
    assert rows[0].record.options == ("red", "blue")


@pytest.mark.parametrize("body", [b"", b"[", b'["a', b'["a\\', b'["a"', b'{"a":[1,}', b"TRUE", b"[NaN]"])
def test_what_is_broken_elsewhere_stays_broken(body):
    """A cut-off answer may not be made whole: what was cut would seem gone."""
    assert mended(body) == body
