"""What redaction hides, and what it leaves: a leak is worst, an unreadable log comes second."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.log import redact, redact_record
from tests.support.logs import registered_secrets

SECRET = 'p@ss w/rd+"quote\\d&é='

SPELLINGS = {
    "raw": SECRET,
    "percent": quote(SECRET, safe=""),
    "percent, lower case": quote(SECRET, safe="").replace("%2F", "%2f").replace("%2B", "%2b").lower(),
    "percent, slash kept": quote(SECRET),
    "form": quote_plus(SECRET),
    "percent twice": quote(quote(SECRET, safe=""), safe=""),
    "json": json.dumps(SECRET),
    "json, unicode kept": json.dumps(SECRET, ensure_ascii=False),
    "json in json": json.dumps(json.dumps(SECRET)),
    "repr": repr(SECRET),
    "bytes repr": repr(SECRET.encode()),
    "html": html.escape(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of user:secret": base64.b64encode(f"1001:{SECRET}".encode()).decode(),
    "base64 of longer user:secret": base64.b64encode(f"admin7:{SECRET}".encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_registered_secret_is_hidden_however_it_is_written(spelling: str) -> None:
    """Each layer between us and the log writes it its own way: URLs, forms, JSON, tracebacks, Basic credentials."""
    text = SPELLINGS[spelling]
    with registered_secrets(SECRET):
        shown = redact(f"the server said {text} and closed")
    assert "<redacted>" in shown
    assert not any(piece in shown for piece in ("p@ss", "w/rd", "%2Brd", "quote", text[8:14]))


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=8, max_size=40), st.text(max_size=10))
def test_no_registered_secret_survives_in_any_plain_spelling(secret: str, before: str) -> None:
    """Keys are made by others; no character may open a hole."""
    with registered_secrets(secret):
        for text in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret), repr(secret)):
            shown = redact(f"{before} {text}").replace("<redacted>", "").replace("<email>", "")
            assert secret not in shown.removeprefix(f"{before} ")


def test_short_secrets_are_hidden_only_where_they_stand_alone() -> None:
    """An administration number of four digits must not eat every number that contains it."""
    with registered_secrets("1234", "1"):
        assert redact("admin 1234 saw 12345 of 1 row") == "admin <redacted> saw 12345 of 1 row"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /x?admin=12&key=abc&hours=2", "GET /x?admin=<redacted>&key=<redacted>&hours=2"),
        ("email=a%2Bb%40example.org&x=1", "email=<redacted>&x=1"),
        ("newemail=a&fieldValue=Jan+de+Boer&fieldCode=FF1", "newemail=<redacted>&fieldValue=<redacted>&fieldCode=FF1"),
        ("apiKey=1 API_KEY=2 token=3", "apiKey=<redacted> API_KEY=<redacted> token=<redacted>"),
        ("host=db password='a b' user=u", "host=db password=<redacted> user=u"),
        ("{'key': 'abc', 'hours': '2'}", "{'key': '<redacted>', 'hours': '2'}"),
        ('{"password":"abc","n":1}', '{"password":"<redacted>","n":1}'),
        (r"{\"token\": \"abc\"}", r"{\"token\": \"<redacted>\"}"),
        ("(b'Authorization', b'Bearer abc')", "(b'Authorization', b'<redacted>')"),
        ("X-Auth-Token: api-key abc\r\nAccept: x", "X-Auth-Token: <redacted>\r\nAccept: x"),
        ("postgresql://app:p@ss:w@db.example:5432/crm", "postgresql://app:<redacted>@db.example:5432/crm"),
        ("'postgres://app:pw@/crm?host=/run'", "'postgres://app:<redacted>@/crm?host=/run'"),
        ("to jan.de-boer+x@mail.example.org, now", "to <email>, now"),
        ("to jan%2Bx%40mail.example.org now", "to <email> now"),
        ("<o.brien@example.org>", "<<email>>"),
    ],
)
def test_what_a_name_or_a_shape_gives_away_is_hidden(text: str, shown: str) -> None:
    """Not every secret is registered: a customer's address and a value we were told to write are nobody's to read."""
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "pulled 1200 orders from 2024-05-01T10:00:00+02:00 in 3.2 s",
        "https://api.e-act.nl/api/1.0/orders?hours=2&paid=-",
        "monkey=1 sort_key=2 tokens=5 fieldCode=FF1 keyboard=3",
        "relation 5: tag 7 added (attempt 2 of 5)",
        "syncd@.service",
        "name: value, other: value",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """A log that hides what happened is turned off by whoever needs it."""
    assert redact(text) == text


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab@.:/='\"\\%&40{}, keyadmin"), max_size=200))
def test_redaction_never_raises_and_is_stable(text: str) -> None:
    """It runs inside error paths; and a line is looked at more than once."""
    once = redact(text)
    assert isinstance(redact(once), str)


def test_redaction_of_hostile_text_takes_no_time() -> None:
    """An answer quoted in an error is the server's text: it must not be able to stop us."""
    started = time.perf_counter()
    for text in ("a" * 50_000 + "@", "://:@" * 10_000, "'key':'" * 10_000, "key=" * 10_000, "a.@" * 10_000):
        redact(text)
    assert time.perf_counter() - started < 5


def test_a_record_keeps_its_addresses_and_loses_its_secrets() -> None:
    """It is shown to whoever asked for this address; a secret by name or by value is shown to nobody."""
    with registered_secrets("s3cr3t-k3y", "12345678"):
        told = redact_record(
            '{"email": "jan@x.example", "apiKey": "abc", "deep": [{"access-token": {"a": 1}, "n": 12345678}],'
            ' "note": "use s3cr3t-k3y", "n": 1, "none": null}'
        )
    assert json.loads(told) == {
        "email": "jan@x.example",
        "apiKey": "<redacted>",
        "deep": [{"access-token": "<redacted>", "n": "<redacted>"}],
        "note": "use <redacted>",
        "n": 1,
        "none": None,
    }


def test_a_record_that_cannot_be_read_is_withheld() -> None:
    """Text that is no JSON may be anything."""
    assert "secret" not in redact_record('{"a": secret')
    assert isinstance(json.loads(redact_record('{"a": secret')), str)


def test_a_number_that_is_too_large_leaves_the_record_json() -> None:
    """Who shows a piece of it reads it again, and JSON has no infinity."""
    vast = "1" + "0" * 400 + ".5"
    assert msgspec.json.decode(redact_record(f'{{"a": {vast}, "b": 1.5}}')) == {"a": vast, "b": 1.5}
