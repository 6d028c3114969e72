"""The check-up: is everything that syncd needs there, and if not, what to do next?

It changes nothing anywhere: it reads the database's catalogue, and sends the CRM at most two safe reads per account,
one without credentials and one with them. Each finding stands alone, so that one trouble does not hide the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from syncd.clock import Clock
from syncd.domain.errors import ConfigurationError, MalformedAnswer, SyncdError
from syncd.policy.windows import WindowRule
from syncd.providers.contract import (
    Answer,
    Answered,
    MaybeApplied,
    NotSent,
    Outcome,
    Provider,
    Request,
    Response,
    Throttled,
    Unauthorised,
)
from syncd.service.accounts import open_transport
from syncd.service.database import opened
from syncd.service.providers import build_provider
from syncd.settings import AccountConfig, Settings
from syncd.store import Store
from syncd.store.schema import check, require_current
from syncd.store.status import read_server
from syncd.transport import Transport

SKEW_WARN_S, SKEW_FAIL_S = 60.0, WindowRule().max_skew_s  # further off, no time is ever proven
TRY_LATER, CONFIGURATION = 75, 78


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``advice`` says what to do next; ``exit_code`` is what a failure stands for."""

    subject: str
    verdict: Verdict
    words: str
    advice: str = ""
    exit_code: int = 0


async def check_database(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Look at the database: reachable, current, on time."""
    try:
        async with opened(settings) as database:
            yield await _server(database.store)
            yield await _schema(database.store, is_embedded=database.embedded is not None)
            yield await _clock("database clock", await _database_skew_s(database.store, clock))
    except SyncdError as error:
        advice = "start it, or mend SYNCD_DATABASE_URL" if error.exit_code == TRY_LATER else ""
        yield Finding("database", Verdict.FAIL, str(error), advice, error.exit_code)


async def check_account(config: AccountConfig, clock: Clock) -> AsyncIterator[Finding]:
    """Look at one account: is the API there, are the credentials good, does its clock agree with ours?"""
    try:
        provider = build_provider(config)
        transport = open_transport(config, provider, clock)
    except ConfigurationError as error:
        yield Finding(f"{config.name}: settings", Verdict.FAIL, str(error), "", error.exit_code)
        return
    try:
        liveness = provider.liveness()
        if liveness is not None:
            finding = await _ask(f"{config.name}: API", provider, transport, liveness)
            yield finding
            if finding.exit_code == TRY_LATER:
                return
        yield await _ask(f"{config.name}: credentials", provider, transport, provider.probe())
        yield await _clock(f"{config.name}: CRM clock", transport.clock_skew_s)
    finally:
        await transport.close()


def exit_code_of(findings: list[Finding]) -> int:
    """Return the code for all findings together: what a person must change weighs more than what may pass."""
    codes = {finding.exit_code or 1 for finding in findings if finding.verdict is Verdict.FAIL}
    return next((code for code in (CONFIGURATION, TRY_LATER, 1) if code in codes), 0)


async def _server(store: Store) -> Finding:
    async with store.begin() as connection:
        user, version, _ = await read_server(connection)
    return Finding("database", Verdict.OK, f"{' '.join(version.split()[:2])}, as {user}")


async def _schema(store: Store, *, is_embedded: bool) -> Finding:
    state = await check(store)
    if state.is_current:
        return Finding("schema", Verdict.OK, f"current ({state.found})")
    try:
        await require_current(store)
    except ConfigurationError as error:
        if is_embedded and state.age != "newer":
            return Finding("schema", Verdict.WARN, f"{state.age}", "`syncd run` makes it by itself, or: syncd migrate")
        return Finding("schema", Verdict.FAIL, str(error), "", CONFIGURATION)
    raise AssertionError("a schema that is not current passed as current")


async def _database_skew_s(store: Store, clock: Clock) -> float:
    async with store.begin() as connection:
        _, _, database_s = await read_server(connection)
    return database_s - clock.now().timestamp()


async def _clock(subject: str, skew_s: float | None) -> Finding:
    if skew_s is None:
        return Finding(subject, Verdict.WARN, "no answer told the time")
    words = f"{skew_s:+.1f} s from ours".replace("-0.0", "+0.0")
    if abs(skew_s) < SKEW_WARN_S:
        return Finding(subject, Verdict.OK, words)
    verdict = Verdict.WARN if abs(skew_s) < SKEW_FAIL_S else Verdict.FAIL
    return Finding(
        subject, verdict, words, "set this machine's clock (NTP); windows are computed from it", CONFIGURATION
    )


async def _ask(subject: str, provider: Provider, transport: Transport, request: Request) -> Finding:
    """Send one safe read and say what its answer means."""
    answer: Answer = await transport.send(request)
    match answer:
        case Answered(response):
            return _judged(subject, provider, response, request.operation)
        case NotSent(reason):
            return Finding(subject, Verdict.FAIL, reason, "look at SYNCD_BASE_URL and at the network", TRY_LATER)
        case MaybeApplied(reason):
            return Finding(subject, Verdict.FAIL, reason, "the API answers badly; try again later", TRY_LATER)
        case never:
            assert_never(never)


def _judged(subject: str, provider: Provider, response: Response, operation: str) -> Finding:
    try:
        outcome = provider.judge(response, operation)
        if outcome is None:
            _read(provider, response, operation)
    except MalformedAnswer as error:
        return Finding(subject, Verdict.FAIL, str(error), "is SYNCD_BASE_URL the API's address?", CONFIGURATION)
    if outcome is None:
        return Finding(subject, Verdict.OK, f"answered in {response.elapsed_s * 1000:.0f} ms")
    return _refused(subject, response.status, outcome)


def _read(provider: Provider, response: Response, operation: str) -> None:
    """Read what a success brought: a login page comes with 200 too. Raises MalformedAnswer."""
    for stream in provider.streams.values():
        if stream.operation == operation:
            deque(stream.decode(response), maxlen=0)


def _refused(subject: str, status: int, outcome: Outcome) -> Finding:
    words = getattr(outcome, "reason", str(outcome))
    match outcome:
        case Unauthorised():
            advice = "check the administration number and the key"
            return Finding(subject, Verdict.FAIL, words, advice, CONFIGURATION)
        case Throttled():
            return Finding(subject, Verdict.WARN, words, "the CRM asks to slow down; lower SYNCD_RATE_PER_S")
    if status >= 500 or status in (408, 425):
        return Finding(subject, Verdict.FAIL, words, "the API is ill; try again later", TRY_LATER)
    return Finding(subject, Verdict.FAIL, words, "is SYNCD_BASE_URL the API's address?", CONFIGURATION)
