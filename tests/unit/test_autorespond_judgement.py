"""What an answer means: each signal of the fact sheet's table, and that no reason tells a secret."""

from __future__ import annotations

import pytest

from syncd.providers.autorespond.endpoints import ENDPOINTS
from syncd.providers.autorespond.judgement import Judge, Said, retry_after_s
from syncd.providers.contract import (
    MaybeApplied,
    NotSent,
    Rejected,
    Response,
    Retryable,
    Throttled,
    Unauthorised,
    Unknown,
)
from tests.support.conversing import answer

ROWS = {row.operation: row for row in ENDPOINTS}
READ, WRITE, ONCE = ROWS["relation_by_id"], ROWS["tag_add"], ROWS["list_subscribe"]
JUDGE = Judge(("sleutel klopt niet",))
HTML = "<html><body>Bad gateway</body></html>"


@pytest.mark.parametrize(
    ("status", "read", "write", "once"),
    [
        (401, Unauthorised, Unauthorised, Unauthorised),
        (403, Unauthorised, Unauthorised, Unauthorised),
        (410, Unauthorised, Unauthorised, Unauthorised),
        (429, Throttled, Throttled, Throttled),
        (408, Retryable, Retryable, Retryable),
        (425, Retryable, Retryable, Retryable),
        (400, Rejected, Rejected, Rejected),
        (404, Rejected, Rejected, Rejected),
        (405, Rejected, Retryable, Retryable),
        (422, Rejected, Rejected, Rejected),
        (302, Retryable, Retryable, Unknown),
        (500, Retryable, Retryable, Unknown),
        (502, Retryable, Retryable, Unknown),
        (504, Retryable, Retryable, Unknown),
    ],
)
def test_a_status_stands_for_an_outcome(status, read, write, once):
    """A gateway error after a call that mails people says nothing about the mail."""
    outcomes = [JUDGE.reply(answer('{"error":"no"}', status), row) for row in (READ, WRITE, ONCE)]
    assert [type(outcome) for outcome in outcomes] == [read, write, once]


@pytest.mark.parametrize("status", [200, 400, 404, 500, 502])
def test_html_is_a_passing_fault(status):
    """A page for people comes from a proxy; calling it the CRM's no would bury good entries."""
    given = answer(HTML, status, content_type="text/html")
    assert isinstance(JUDGE.reply(given, READ), Retryable)
    assert isinstance(JUDGE.reply(given, WRITE), Retryable)
    assert isinstance(JUDGE.reply(answer(HTML), WRITE), Retryable)
    assert isinstance(JUDGE.reply(answer(HTML, 200), ONCE), Unknown)


def test_silence_after_a_write_is_unknown_whatever_the_call():
    """Whether to send again is the outbox's decision; a conversation that retried would send twice."""
    lost, unsent = MaybeApplied("timed out"), NotSent("connection refused")
    assert [type(JUDGE.reply(lost, row)) for row in (READ, WRITE, ONCE)] == [Retryable, Unknown, Unknown]
    assert [type(JUDGE.reply(unsent, row)) for row in (READ, WRITE, ONCE)] == [Retryable] * 3


@pytest.mark.parametrize("body", ['{"x":1}', "perhaps", "[1]", "{", '{"data":"perhaps"}', '{"result":true', "12"])
def test_a_success_that_nobody_understands_is_unknown(body):
    """Neither a yes nor a no may be read into it."""
    assert isinstance(JUDGE.reply(answer(body), WRITE), Unknown)


@pytest.mark.parametrize(
    "error", ["Invalid API key", "Not authorized", "authentication failed", "Uw sleutel klopt niet", "Access denied"]
)
@pytest.mark.parametrize("status", [200, 400])
def test_refused_credentials_are_known_by_their_text_too(error, status):
    """Taken for a refusal of the one change, a wrong key would bury the whole outbox entry by entry."""
    assert isinstance(JUDGE.reply(answer(f'{{"error":"{error}"}}', status), WRITE), Unauthorised)


@pytest.mark.parametrize(
    ("error", "status", "is_absent"),
    [("Relation not found", 400, True), ("unknown relation", 200, True), ("onbekende relatie", 400, True),
     ("x", 404, True), ("unknown error", 400, False), ("gender is wrong", 400, False)],
)  # fmt: skip
def test_absence_is_told_from_refusal(error, status, is_absent):
    """A general failure taken for "does not exist" would mark rows missing."""
    outcome = JUDGE.reply(answer(f'{{"error":"{error}"}}', status), READ)
    assert isinstance(outcome, Rejected)
    assert outcome.is_absent is is_absent


def test_a_wrong_verb_says_what_to_set():
    """405 is the one signal that the guessed verb is wrong, so it must lead to the setting that mends it; and it is no
    entry's fault, so that none must die of it."""
    outcome = JUDGE.reply(answer("", 405, allow="GET, PUT"), WRITE)
    assert isinstance(outcome, Retryable)
    assert outcome.is_misconfigured
    assert "GET, PUT" in outcome.reason
    assert "SYNCD_AUTORESPOND_VERBS=tag_add=" in outcome.reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 -0000", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_measured_by_the_answers_own_clock(headers, seconds):
    """Ours may be minutes off, and a provider has none."""
    assert retry_after_s(Response(429, headers)) == seconds


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_pause_is_asked_for_with_any_failure(status):
    """503 with Retry-After is how a server in maintenance says when to come again."""
    given = answer('{"error":"no"}', status, retry_after="120")
    outcomes = [JUDGE.reply(given, row) for row in (READ, WRITE, ONCE)]
    assert [outcome.retry_after_s for outcome in outcomes] == [120.0] * 3


def test_no_reason_tells_an_address_a_key_or_a_url():
    """Reasons end up in the database, in logs and on pages."""
    text = (
        "relation jan+x@example.org jan%40example.org at https://api.e-act.nl/api/1.0/relation?key=abc123 key=abc123 "
    )
    for status in (200, 400, 401, 404):
        reason = JUDGE.reply(answer(f'{{"error":"{text * 9}"}}', status), WRITE).reason
        assert not any(secret in reason for secret in ("example.org", "abc123", "e-act", "jan"))
        assert len(reason) < 280


def test_a_page_in_a_file_download_is_no_file():
    assert JUDGE.refusal(Response(200, {"content-type": "application/pdf"}, b"%PDF-1.4"), ROWS["invoice_file"]) is None
    wrong = Response(200, {"content-type": "application/json"}, b'{"error":"no such invoice"}')
    assert isinstance(JUDGE.refusal(wrong, ROWS["invoice_file"]), Rejected)


def test_a_good_answer_is_said():
    assert JUDGE.reply(answer('{"data":true}'), WRITE) == Said(b"true")
    assert JUDGE.reply(answer('{"relation":{"id":1}}'), READ) == Said(b'{"id":1}')
    assert JUDGE.refusal(Response(200, body=b"[]"), ROWS["tags"]) is None


@pytest.mark.parametrize("operation", ["relation_upsert", "tag_add"])
def test_a_plain_no_is_no_wherever_it_comes(operation):
    """The upsert answers with the relation; a bare false is not one that was left out, it was not done."""
    assert isinstance(JUDGE.reply(answer('{"data":false}'), ROWS[operation]), Rejected)
