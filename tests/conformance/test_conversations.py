"""Every conversation of every provider ends in an outcome, whatever it is told, and tells no secret on the way."""

from __future__ import annotations

import random

import pytest

from syncd.domain.changes import LocalChange, operation_of
from syncd.policy.proof import UNTOLD, Showing
from syncd.providers.contract import (
    Answer,
    Answered,
    Delivered,
    Effect,
    MaybeApplied,
    NotSent,
    Outcome,
    ProviderOptions,
    Readable,
    Rejected,
    Request,
    Response,
    Retryable,
    Target,
    Throttled,
    Unauthorised,
    Unknown,
)
from tests.support.changes import EMAIL, NEW_EMAIL, SAMPLES

SECRETS = (EMAIL, NEW_EMAIL, "example.org", "k3y-secret-99", "api.e-act.nl")
LEAKY = f"no relation {EMAIL} at https://api.e-act.nl/api/1.0/relation?key=k3y-secret-99&email={EMAIL}".encode()
BODIES = (
    b"", b"true", b"TRUE", b"false", b"null", b"[]", b"{}", b"12", b'{"data":true}', b'{"data":[]}', b'{"id":7}', b"{",
    b'{"id":7,"email":"jan+list@example.org","firstName":"Jan"}', b'{"relation":{"id":"7","email":"piet@example.org"}}',
    b'[{"id":11,"name":"vip"},{"id":21,"title":"Customers"}]', b'[{"id":21,"title":"Customers","name":"x"}]',
    b'[{"campaignId":31,"subscribedFlag":"S","eventDate":"2026-01-01"}]', b'{"error":"' + LEAKY + b'"}',
    b"<html>" + LEAKY + b"</html>", b"\xff\xfe", b'["a"]', b'{"success":{"id":7}}', LEAKY,
)  # fmt: skip
STATUSES = (200, 200, 200, 200, 201, 202, 204, 301, 400, 401, 404, 405, 409, 429, 500, 503)
TARGETS = [
    Target(who, email, is_repeat=again) for who in ("7", None) for email in (EMAIL, None) for again in (False, True)
]
LONGEST = 8
ALL = frozenset(operation_of(change) for change in SAMPLES)


@pytest.fixture(params=SAMPLES, ids=operation_of)
def change(request: pytest.FixtureRequest) -> LocalChange:
    return request.param


def converse(provider, change: LocalChange, target: Target, dice: random.Random) -> tuple[Outcome, list[Request]]:
    """Hold one conversation with answers by chance."""
    conversation, requests = provider.converse(change, target), []
    given: Answer | None = None
    while True:
        try:
            request = next(conversation) if given is None else conversation.send(given)
        except StopIteration as end:
            with pytest.raises(StopIteration):
                next(conversation)
            return end.value, requests
        requests.append(request)
        assert len(requests) <= LONGEST, "the conversation does not end"
        given = answer(dice)


def answer(dice: random.Random) -> Answer:
    headers = {"allow": f"PUT {EMAIL}", "retry-after": "3"}
    match dice.randrange(12):
        case 0:
            return NotSent(f"connection refused by https://api.e-act.nl/?key=k3y-secret-99 for {EMAIL}")
        case 1:
            return MaybeApplied(f"timed out at https://api.e-act.nl/?key=k3y-secret-99 for {EMAIL}")
        case _:
            return Answered(Response(dice.choice(STATUSES), headers, dice.choice(BODIES)))


@pytest.mark.parametrize("options", [ProviderOptions(allowed_operations=ALL), ProviderOptions(
    allowed_operations=ALL, verify_writes=True, full_payload=True)], ids=["plain", "careful"])  # fmt: skip
def test_whatever_is_answered_a_conversation_ends_without_telling(build, change, options) -> None:
    """Answers by chance, many of them: no exception, no endless loop, no address in any reason."""
    provider, dice = build(options), random.Random(7)
    for target in TARGETS:
        for _ in range(25):
            outcome, requests = converse(provider, change, target, dice)
            text = getattr(outcome, "reason", "") + getattr(outcome, "detail", "")
            assert isinstance(outcome, (Delivered, Retryable, Throttled, Unauthorised, Rejected, Unknown))
            assert not any(secret in text for secret in SECRETS), text
            assert len(text) < 500
            assert isinstance(outcome, Delivered) or text
            if isinstance(outcome, Delivered):
                assert requests, "delivered without asking anything"


def test_a_call_that_is_not_repeat_safe_is_sent_at_most_once(build, change) -> None:
    """Within one conversation, and never when it is a repeat of a try that may have arrived."""
    provider, dice = build(ProviderOptions(allowed_operations=ALL, verify_writes=True)), random.Random(11)
    if provider.effect(change) not in (Effect.ONCE, Effect.CONSENT):
        return
    for target in TARGETS:
        for _ in range(25):
            outcome, requests = converse(provider, change, target, dice)
            writes = [it for it in requests if provider.endpoints[it.operation].effect is not Effect.SAFE]
            assert len(writes) <= 1
            if target.is_repeat:
                assert not requests or provider.endpoints[requests[0].operation].effect is Effect.SAFE
            assert not (writes and isinstance(outcome, Retryable) and _may_have_arrived(outcome))


def _may_have_arrived(outcome: Retryable) -> bool:
    return "no complete answer" in outcome.reason


def test_what_mails_people_is_refused_until_allowed(build, change) -> None:
    """Loudly: with a sentence that names the operation, and without one request."""
    closed = build(ProviderOptions())
    outcome, requests = converse(build(ProviderOptions(allowed_operations=ALL)), change, TARGETS[0], random.Random(3))
    mails = any(closed.endpoints[request.operation].mails for request in requests)
    if mails:
        outcome, requests = converse(closed, change, TARGETS[0], random.Random(3))
        assert requests == []
        assert isinstance(outcome, Rejected)
        assert operation_of(change) in outcome.reason


def test_nothing_is_asked_for_nobody(build, change) -> None:
    """Without id and address the CRM cannot be told whom; whatever is sent then would hit someone else."""
    outcome, requests = converse(
        build(ProviderOptions(allowed_operations=ALL)), change, Target(None, None), random.Random(5)
    )
    written = [it.path for it in requests if "None" in it.path or "None" in str(it.form + it.query)]
    assert written == []
    assert outcome is not None


def test_reading_back_never_writes_and_always_ends(build, change) -> None:
    """Whatever is answered: it is done beside the deliveries, by the thousand, and nobody watches it."""
    provider, dice = build(ProviderOptions(allowed_operations=ALL)), random.Random(13)
    for target in TARGETS:
        for _ in range(25):
            came_of_it, requests = read_back(provider, change, target, dice)
            assert {provider.endpoints[request.operation].effect for request in requests} <= {Effect.SAFE}
            assert isinstance(came_of_it, (Showing, Retryable, Throttled, Unauthorised, Rejected))
            if provider.readable(change) is not Readable.BY_CALL:
                assert (came_of_it, requests) == (UNTOLD, [])


def read_back(
    provider, change: LocalChange, target: Target, dice: random.Random
) -> tuple[Showing | Outcome, list[Request]]:
    """Read one change back with answers by chance."""
    reading, requests = provider.read_back(change, target), []
    given: Answer | None = None
    while True:
        try:
            request = next(reading) if given is None else reading.send(given)
        except StopIteration as end:
            return end.value, requests
        requests.append(request)
        assert len(requests) <= LONGEST, "the conversation does not end"
        given = answer(dice)
