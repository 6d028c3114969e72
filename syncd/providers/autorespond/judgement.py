"""What an answer means: which of the contract's outcomes it is, or the payload to go on with.

Never decides whether to send again: a write whose fate is unknown is ``Unknown`` here, repeat-safe or not. The one
distinction made is whether a failed call may have had its effect all the same: for a call that is not repeat-safe, a
server error or a page of HTML after it is as good as silence. Reasons quote the CRM through ``wording`` only.

A 405 on a write is never the entry's fault: it is the table of verbs that is wrong, for every entry of that operation.
``Retry-After`` is read in both forms, on 429 and on every other failure: the CRM says it to all of us.

Source: the fact sheet's table of error classes; the reference says no more than that an ``error`` exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TypeAlias, assert_never

import msgspec

from syncd.domain.errors import MalformedAnswer
from syncd.providers.autorespond import envelope, formats
from syncd.providers.autorespond.wording import quoted
from syncd.providers.contract import (
    Answer,
    Answered,
    Effect,
    Endpoint,
    MaybeApplied,
    NotSent,
    Outcome,
    Rejected,
    Response,
    Retryable,
    Throttled,
    Unauthorised,
    Unknown,
)

_AUTH_TEXTS = (
    "api key", "access key", "invalid key", "invalid admin", "admin or key", "wrong key", "key is not", "unauthori",
    "not authori", "authenticat", "access denied", "permission denied", "geen toegang", "niet geautoriseerd",
    "ongeldige sleutel",
)  # fmt: skip
_ABSENT = re.compile(
    r"not found|does not exist|doesn't exist|no such|niet gevonden|bestaat niet"
    r"|\b(unknown|onbekende?)\s+(relation|relatie|contact|id|e-?mail|tag|group|groep|list|invoice|factuur|order)",
    re.IGNORECASE,
)
_LATER = frozenset({408, 425})
_LONGEST_WAIT_S = 3600.0
_SHORT = 64


@dataclass(frozen=True, slots=True)
class Said:
    """A believed answer: the JSON text of its payload, empty when the CRM said yes without a word."""

    payload: bytes = b""


Reply: TypeAlias = Said | Outcome


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges answers; ``auth_error_texts`` are further texts by which an error means refused credentials."""

    auth_error_texts: tuple[str, ...] = ()

    def reply(self, answer: Answer, row: Endpoint) -> Reply:
        """Return the payload of an answer, or the outcome that it stands for."""
        match answer:
            case NotSent():
                return Retryable(f"{row.operation}: not sent, {quoted(answer.reason)}")
            case MaybeApplied():
                reason = f"{row.operation}: no complete answer, {quoted(answer.reason)}"
                return Retryable(reason) if row.effect is Effect.SAFE else Unknown(reason)
            case Answered():
                response = answer.response
                if response.status == 200 and 0 < len(response.body) <= _SHORT:
                    return _judged(self, response.body, row)
                return self._judge(response, row)
            case _:
                assert_never(answer)

    def _judge(self, response: Response, row: Endpoint) -> Reply:
        refusal = self.refusal(response, row)
        return refusal if refusal is not None else _payload(response, row)

    def refusal(self, response: Response, row: Endpoint) -> Outcome | None:
        """Return the outcome of an answer that is no success; None when its payload is worth reading."""
        status = response.status
        error = envelope.error_of(response, row)
        if status in (401, 403, 410):
            return Unauthorised(_unauthorised(row, status, error))
        if status == 429:
            return Throttled(f"{row.operation}: 429, asked to slow down", retry_after_s(response))
        if status in _LATER:
            return Retryable(f"{row.operation}: {status}, asked to try again", retry_after_s(response))
        if 200 <= status < 300:
            return None if error is None else self._said_no(row, status, error)
        if not 400 <= status < 500:
            return _fault(response, row)
        if status == 405:
            told = _wrong_verb(response, row)
            return Rejected(told) if row.effect is Effect.SAFE else Retryable(told, is_misconfigured=True)
        if envelope.is_html(response):
            reason = f"{row.operation}: {status} with HTML; if it stays, check the base URL"
            return Retryable(reason, retry_after_s(response))
        return self._said_no(row, status, error)

    def _said_no(self, row: Endpoint, status: int, error: str | None) -> Outcome:
        told = f"{row.operation}: {status}, {'no reason given' if error is None else f'the CRM says: {error}'}"
        texts = (*_AUTH_TEXTS, *self.auth_error_texts)
        if error is not None and any(text.lower() in error.lower() for text in texts):
            return Unauthorised(told)
        is_absent = status == 404 or (error is not None and _ABSENT.search(error) is not None)
        return Rejected(told, is_absent=is_absent)


@lru_cache(maxsize=64)
def _judged(judge: Judge, body: bytes, row: Endpoint) -> Reply:
    """Judge a short body of a 200, which means what it says: no header counts then, and most writes say the same."""
    return judge._judge(Response(200, body=body), row)


def retry_after_s(response: Response) -> float | None:
    """Return how long the CRM asks to wait: seconds, or a date measured by the answer's own clock; an hour at most.

    Milliseconds taken for seconds, or a wrong date, would else stop an account for years; asking hourly hurts nobody.
    """
    given = response.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return min(float(given), _LONGEST_WAIT_S)
    try:
        then = parsedate_to_datetime(given)
        now = parsedate_to_datetime(response.headers.get("date", ""))
        return min(max(0.0, (then - now).total_seconds()), _LONGEST_WAIT_S)
    except (ValueError, TypeError):
        return None


def _unauthorised(row: Endpoint, status: int, error: str | None) -> str:
    if status == 410:
        return f"{row.operation}: 410, the API says that it is gone for good"
    return f"{row.operation}: {status}, credentials refused" + ("" if error is None else f"; the CRM says: {error}")


def _wrong_verb(response: Response, row: Endpoint) -> str:
    allowed = quoted(response.headers.get("allow", ""), 60) or "nothing"
    return (
        f"{row.operation}: 405, the CRM does not take {row.verb} here (Allow names {allowed}); "
        f"set SYNCD_AUTORESPOND_VERBS={row.operation}=VERB and start syncd again"
    )


def _fault(response: Response, row: Endpoint) -> Outcome:
    """A server error or a redirect: harmless to repeat unless the call may have had its one effect."""
    hint = " (a redirect is never followed: check the base URL)" if 300 <= response.status < 400 else ""
    reason = f"{row.operation}: {response.status}{hint}"
    if row.effect in (Effect.ONCE, Effect.CONSENT):
        return Unknown(reason, retry_after_s(response))
    return Retryable(reason, retry_after_s(response))


def _payload(response: Response, row: Endpoint) -> Reply:
    body = b"".join(response.chunks())
    is_write = row.effect is not Effect.SAFE
    if is_write and not body.strip():
        return Said()
    if envelope.is_html(response):
        return _fault_of_html(row)
    try:
        said = envelope.payload(body, row)
    except MalformedAnswer as malformed:
        return _not_understood(row, str(malformed))
    if is_write and said == b"false":  # no object, no id and no list either: the CRM did not do it
        return _yes_or_no(said, row)
    if row.shape != "boolean":
        return Said(said)
    return _nothing_there(row) if said == b"null" else _yes_or_no(said, row)


def _fault_of_html(row: Endpoint) -> Outcome:
    reason = f"{row.operation}: 200 with HTML; something between syncd and the API answered"
    return Unknown(reason) if row.effect in (Effect.ONCE, Effect.CONSENT) else Retryable(reason)


def _not_understood(row: Endpoint, reason: str) -> Outcome:
    told = f"{row.operation}: {quoted(reason)}"
    return Retryable(told) if row.effect is Effect.SAFE else Unknown(told)


def _nothing_there(row: Endpoint) -> Outcome:
    """Null is how a missing object looks on a read; on a write it can be no yes, for that is TRUE."""
    return Rejected(f"{row.operation}: the CRM answered null; what it was about does not exist there", is_absent=True)


def _yes_or_no(said: bytes, row: Endpoint) -> Reply:
    match formats.truth(msgspec.json.decode(said)):
        case True:
            return Said(b"true")
        case False:
            return Rejected(f"{row.operation}: the CRM answered false, without a reason")
        case None:
            return _not_understood(row, "the answer is neither yes nor no")
