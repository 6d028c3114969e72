"""The canary: known secrets go through everything that can go right or wrong, with every library at its most talkative,
and must turn up nowhere but on the wire.

The list of spellings searched for is written here by hand: the witness does not share code with the accused.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus, urlencode

import httpx
import pytest

from syncd import log
from syncd.clock import SystemClock
from syncd.domain.errors import SyncdError
from syncd.log import redaction
from syncd.providers.contract import Answered, Auth, Request
from syncd.store import Store
from syncd.transport import AiohttpTransport, Transport, TransportLimits, Wire
from tests.support.logs import Captured, captured_logs, registered_secrets
from tests.support.rawserver import Connection, Script, answer, answering, never, raw_server

KEY = "K3y/canary+odd=chars&more"
ADMIN = "admin-7431-canary"
HEADER = "api-key H3ader-canary-value"
PASSWORD = "Db/p%40ss-canary:w0rd"
EMAIL = "jan+canary@mail.example.org"
AUTH = Auth(query={"admin": ADMIN, "key": KEY}, headers={"X-Auth-Token": HEADER})
REQUEST = Request("relation_upsert", "POST", "relation", query=(("email", EMAIL),), form=(("newemail", EMAIL),))
TALKATIVE = ("httpx", "httpcore", "aiohttp", "aiohttp.client", "asyncio", "sqlalchemy", "sqlalchemy.pool", "asyncpg")
LIMITS = TransportLimits(total_timeout_s=0.3, download_timeout_s=0.3, connect_timeout_s=0.2, body_bytes=1000)


def spelled(secret: str) -> set[str]:
    """Every way in which a layer between us and a log might have written it."""
    once = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote(quote(secret, safe=""), safe="")}
    escaped = {json.dumps(text)[1:-1] for text in once} | {repr(text)[1:-1] for text in once}
    return once | escaped | {text.lower() for text in once} | {base64.b64encode(secret.encode()).decode().rstrip("=")}


SPELLED = {form for secret in (KEY, ADMIN, HEADER, PASSWORD, EMAIL) for form in spelled(secret)}


def assert_silent(text: str, where: str) -> None:
    leaked = sorted(form for form in SPELLED if form in text or form in text.lower())
    assert not leaked, f"{where} holds {leaked[0]}"


async def reset(connection: Connection) -> None:
    connection.reset()


async def echo_the_request_as_garbage(connection: Connection) -> None:
    """A broken proxy sends our own bytes back: the parser's error quotes them."""
    await connection.say(connection.request)


async def cut_off(connection: Connection) -> None:
    await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", KEY.encode(), EMAIL.encode())
    connection.writer.close()


SCRIPTS: dict[str, Script] = {
    "answered": answering(answer(f'{{"email": "{EMAIL}"}}'.encode())),
    "redirected to a page with our secrets": answering(
        answer(status="302 Found", headers=f"Location: https://elsewhere.example/?key={quote(KEY)}&email={EMAIL}\r\n")
    ),
    "refused by status": answering(answer(json.dumps({"key": KEY}).encode(), status="401 Unauthorized")),
    "silent": never,
    "reset": reset,
    "garbage": echo_the_request_as_garbage,
    "cut off": cut_off,
    "too large": answering(answer((KEY + EMAIL).encode() * 100)),
    "not gzip": answering(answer(KEY.encode(), headers="Content-Encoding: gzip\r\n")),
}


@contextmanager
def talking(json_: bool) -> Iterator[Captured]:
    """Capture logs with every library at DEBUG and the loop reporting each of its steps."""
    loop = asyncio.get_running_loop()
    with captured_logs(json=json_, talkative=TALKATIVE) as stream:
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0
        try:
            yield stream
        finally:
            loop.set_debug(False)


@pytest.fixture(params=[True, False], ids=["registered", "by name and shape alone"])
def known(request: pytest.FixtureRequest) -> Iterator[None]:
    """Redaction must hold with the secrets registered, and as far as possible before anybody registered them."""
    with registered_secrets(*(AUTH.secrets() | {PASSWORD} if request.param else ())):
        yield


@pytest.mark.parametrize("json_", [True, False], ids=["json", "pretty"])
@pytest.mark.parametrize("name", SCRIPTS)
async def test_no_exchange_shows_a_secret(name: str, json_: bool, known: None) -> None:
    """Whatever the CRM answers, and however it fails, over our way and over httpx's own client."""
    with talking(json_) as stream:
        async with raw_server(SCRIPTS[name]) as server:
            reasons = await exchange(server.base_url)
            await provoke_httpx(server.base_url)
        assert len(stream.getvalue()) > 1000, "nothing was said: the canary would prove nothing"
    for reason in reasons:
        assert_silent(reason, "a reason")
    assert_silent(stream.getvalue(), "the log")


async def exchange(base_url: str) -> list[str]:
    """Send one request both ways, log what came of it as the pipelines would, and return every text about it."""
    transport = Transport.open(base_url, AUTH, limits=LIMITS, clock=SystemClock())
    texts = [repr(transport), repr(REQUEST.operation), repr(AUTH)]
    try:
        got = [await transport.send(REQUEST)]
        async with transport.download(REQUEST) as downloaded:
            got.append(downloaded)
        for came in got:
            reason = f"status {came.response.status}" if isinstance(came, Answered) else came.reason
            log.get("outbound").info("delivery.settled", reason=reason, request=REQUEST, auth=AUTH, answer=came)
            texts.append(reason)
    finally:
        await transport.close()
    return texts


async def provoke_httpx(base_url: str) -> None:
    """Use httpx as somebody who knows no better would: secrets in the URL, its own exceptions logged with traceback."""
    url = f"{base_url}relation?{urlencode([*AUTH.query.items(), ('email', EMAIL)])}"
    async with httpx.AsyncClient(transport=AiohttpTransport(Wire(LIMITS)), timeout=0.2) as client:
        try:
            response = await client.post(url, data={"newemail": EMAIL}, headers={"X-Auth-Token": HEADER})
            logging.getLogger("somebody").warning("asked %s: %s", response.request.url, response.request.headers.raw)
            response.raise_for_status()
            raise RuntimeError(f"could not believe {url!r} with {dict(AUTH.query)} and {dict(AUTH.headers)}")
        except (httpx.HTTPError, RuntimeError):
            log.get("inbound").exception("run.failed", url=url)
            logging.getLogger("somebody").exception("failed at %s", url)


@pytest.mark.parametrize("json_", [True, False], ids=["json", "pretty"])
async def test_no_failure_before_sending_shows_a_secret(json_: bool, known: None) -> None:
    """Refused, unknown, certificate, closed: reasons are fixed words."""
    with socket.socket() as bound, talking(json_) as stream:
        bound.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        reasons = await exchange(base_url)
        await provoke_httpx(base_url)
    for reason in reasons:
        assert_silent(reason, "a reason")
    assert_silent(stream.getvalue(), "the log")


def exceptions(tmp_path: Path) -> Iterator[BaseException]:
    """Every exception that the transport raises on purpose, provoked with secrets within its reach."""
    attempts = (
        lambda: Transport.open(f"https://{quote(KEY)}@api.example/", AUTH, clock=SystemClock()),
        lambda: Transport.open(f"https://api.example/?key={quote(KEY)}", AUTH, clock=SystemClock()),
        lambda: Transport.open(f"https://api.example:{KEY}/", AUTH, clock=SystemClock()),
        lambda: Transport.open("https://a.example/", Auth(headers={"X": f"{KEY}\n"}), clock=SystemClock()),
        lambda: Transport.open("https://a.example/", AUTH, clock=SystemClock(), ca_file=tmp_path),
        lambda: Store.open(f"nosuch://app:{quote(PASSWORD)}@db.example/crm"),
    )
    for attempt in attempts:
        with pytest.raises(SyncdError) as caught:
            attempt()
        yield caught.value


@pytest.mark.parametrize("json_", [True, False], ids=["json", "pretty"])
async def test_no_exception_of_ours_shows_a_secret(json_: bool, known: None, tmp_path: Path) -> None:
    """Its text, its repr and its whole traceback with causes, before any log has redacted it."""
    with captured_logs(json=json_) as stream:
        for error in exceptions(tmp_path):
            shown = "".join(traceback.format_exception(error))
            for form in (str(error), repr(error), shown):
                assert_silent(form, "an exception")
            log.get("cli").error("command.failed", exc_info=error)
    assert_silent(stream.getvalue(), "the log")


@pytest.mark.parametrize("json_", [True, False], ids=["json", "pretty"])
async def test_a_lost_database_shows_no_password(json_: bool, known: None) -> None:
    """Drivers like to say with what they tried to connect."""
    with socket.socket() as bound, talking(json_) as stream:
        bound.bind(("127.0.0.1", 0))
        url = f"postgresql://app:{quote(PASSWORD, safe='')}@127.0.0.1:{bound.getsockname()[1]}/crm"
        store = Store.open(url)
        with pytest.raises(SyncdError) as caught:
            async with store.begin():
                pass
        await store.close()
        log.get("service").error("database.lost", exc_info=caught.value, url=url)
        logging.getLogger("somebody").error("cannot open %s", url)
    for form in (str(caught.value), repr(caught.value)):
        assert_silent(form, "an exception")
    assert_silent(stream.getvalue(), "the log")


async def test_the_canary_sings_when_redaction_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that cannot fail proves nothing: with the rules removed, the very same run must be caught."""
    monkeypatch.setattr(redaction, "_without_named", lambda text: text)
    monkeypatch.setattr(redaction, "_without_addresses", lambda text: text)
    with talking(True) as stream:
        async with raw_server(SCRIPTS["answered"]) as server:
            await provoke_httpx(server.base_url)
    with pytest.raises(AssertionError, match="the log holds"):
        assert_silent(stream.getvalue(), "the log")
