"""The bytes on the wire: encoded once, signed last, nothing smuggled in, nothing there that we did not mean to send."""

from __future__ import annotations

import pytest

from syncd import __version__
from syncd.domain.errors import ConfigurationError
from syncd.providers.contract import Answered, Auth, Effect, Endpoint, Request
from syncd.transport.message import parse_base
from tests.support.rawserver import RawServer, answer, answering, raw_server
from tests.transport.conftest import Opener, call

INVOICE = Endpoint("invoice_get", "GET", "invoice/{number}", Effect.SAFE, "object", "Get invoice", ("email",))
FORM = "application/x-www-form-urlencoded"
SIGNED = "admin=1001&key=s3cret%2Fkey%2Bvalue"


async def sent(server: RawServer, opener: Opener, request: Request, auth: Auth | None = None) -> list[str]:
    """Send one request both ways and return both heads as lines."""
    transport = opener(server.base_url, auth) if auth else opener(server.base_url)
    assert isinstance(await transport.send(request), Answered)
    async with transport.download(request) as got:
        assert isinstance(got, Answered)
    assert server.target(-1) == server.target(-2)
    return server.head(-2).split("\r\n")


async def test_a_slash_in_a_number_and_a_plus_in_an_address_arrive_as_they_are(open_transport: Opener) -> None:
    """``2023/001`` unescaped is another resource; ``+`` unescaped is a space, so another person."""
    async with raw_server(answering(answer())) as server:
        request = INVOICE.request({"number": "2023/001 é%"}, email="jan+test@example.org")
        lines = await sent(server, open_transport, request)
    query = f"email=jan%2Btest%40example.org&{SIGNED}"
    assert lines[0] == f"GET /api/1.0/invoice/2023%2F001%20%C3%A9%25?{query} HTTP/1.1"


async def test_a_request_says_who_asks_and_for_what_and_nothing_else(open_transport: Opener) -> None:
    """Every further header is a chance to leak or to be refused."""
    async with raw_server(answering(answer())) as server:
        lines = await sent(server, open_transport, call("GET", accept="application/pdf"))
    expected = {
        f"Host: 127.0.0.1:{server.port}",
        f"User-Agent: syncd/{__version__}",
        "Accept-Encoding: gzip, deflate",
        "Accept: application/pdf",
    }
    assert set(lines[1:]) == expected
    assert {line.lower() for line in server.head(-1).split("\r\n")[1:]} == {line.lower() for line in expected}


@pytest.mark.parametrize(
    ("request_", "body", "content_types"),
    [
        (call(form=(("fieldValue", "a b+c&d=é"), ("x", ""))), b"fieldValue=a+b%2Bc%26d%3D%C3%A9&x=", [FORM]),
        (call("PUT", json='{"x":"é"}'.encode()), '{"x":"é"}'.encode(), ["application/json"]),
        (call("DELETE"), b"", []),
        (call("POST"), b"", []),
    ],
)
async def test_bodies_arrive_with_their_type_and_length(
    open_transport: Opener, request_: Request, body: bytes, content_types: list[str]
) -> None:
    """A write without a length makes some servers wait and others answer 411."""
    async with raw_server(answering(answer())) as server:
        lines = await sent(server, open_transport, request_)
    assert f"Content-Length: {len(body)}" in lines
    assert [line[14:] for line in lines if line.startswith("Content-Type: ")] == content_types
    assert all(request.partition(b"\r\n\r\n")[2] == body for request in server.requests)


async def test_credentials_in_headers_travel_in_headers(open_transport: Opener) -> None:
    """GetResponse and UseResponse sign by header; the URL must stay clean then."""
    async with raw_server(answering(answer())) as server:
        lines = await sent(server, open_transport, call(), Auth(headers={"X-Auth-Token": "api-key 1234"}))
    assert "X-Auth-Token: api-key 1234" in lines
    assert "?" not in lines[0]
    assert "1234" not in repr(call())


@pytest.mark.parametrize("auth", [Auth(query={"key": "1"}), Auth(headers={"X-Auth-Token": "1"})])
async def test_an_unsigned_request_carries_no_credentials(open_transport: Opener, auth: Auth) -> None:
    """The liveness probe is documented without parameters: a wrong host would otherwise learn the key from it."""
    async with raw_server(answering(answer())) as server:
        lines = await sent(server, open_transport, call("GET", "version", is_signed=False), auth)
    assert lines[0] == "GET /api/1.0/version HTTP/1.1"
    assert not any("x-auth-token" in line.lower() for line in lines)


async def test_cookies_are_never_kept(open_transport: Opener) -> None:
    """A session cookie would tie one account's requests to another's state."""
    async with raw_server(answering(answer(headers="Set-Cookie: session=1; Path=/\r\n"))) as server:
        await sent(server, open_transport, call())
        await sent(server, open_transport, call())
    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_the_environments_proxy_is_not_used(open_transport: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that somebody's shell once needed must not see the key."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with raw_server(answering(answer())) as server:
        await sent(server, open_transport, call())


@pytest.mark.parametrize(
    "request_",
    [
        call(path="/relation"),
        call(path="relation/../admins/1"),
        call(path=".."),
        call(path="a b"),
        call(path="a\r\nX: y"),
        call(path="a?key=1"),
        call(path="a#b"),
        call(path="é"),
        call(path="100%"),
        call("GET /x HTTP/1.1\r\nX:"),
        call(accept="text/plain\r\nX: y"),
    ],
)
async def test_a_request_that_could_become_another_one_is_refused(open_transport: Opener, request_: Request) -> None:
    """Data of the CRM ends up in paths: a line break in it must never start a header, nor two dots another path."""
    async with raw_server(answering(answer())) as server:
        transport = open_transport(server.base_url)
        with pytest.raises(ValueError, match="tag_add: "):
            await transport.send(request_)
        if request_.verb == "POST":
            with pytest.raises(ValueError, match="tag_add: "):
                async with transport.download(request_):
                    pass
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("https://api.e-act.nl/api/1.0/", "api.e-act.nl", "/api/1.0/"),
        ("https://api.e-act.nl/api/1.0", "api.e-act.nl", "/api/1.0/"),
        (" https://API.example:8443 ", "api.example:8443", "/"),
        ("https://api.example:443/v3", "api.example", "/v3/"),
        ("http://127.0.0.1:8000/x", "127.0.0.1:8000", "/x/"),
        ("http://127.9.9.9/", "127.9.9.9", "/"),
        ("http://[::1]:8000/", "[::1]:8000", "/"),
        ("http://localhost:1", "localhost:1", "/"),
    ],
)
def test_base_urls_as_people_write_them(text: str, host: str, path: str) -> None:
    """A missing or doubled slash must not change which resource is asked for."""
    base = parse_base(text)
    assert (base.host, base.path) == (host, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.e-act.nl/api",
        "ftp://api.example/",
        "http://api.example/",
        "http://10.0.0.1/",
        "http://localhost.evil.example/",
        "http://127.0.0.1.nip.io/",
        "https://user:hunter2hunter2@api.example/",
        "https://hunter2hunter2@api.example/",
        "https://api.example/?key=hunter2hunter2",
        "https://api.example/#hunter2hunter2",
        "https://api.example:0/",
        "https://api.example:99999/",
        "https://api.example:hunter2hunter2/",
        "https://api example/",
        "https:///path",
        "https://[::1/",
        "https://api.example/a b",
        f"https://{'a' * 64}.example/",
        "https://a..example/",
    ],
)
def test_a_base_url_that_could_leak_is_refused_without_being_shown(text: str) -> None:
    """The key goes over TLS or stays on this machine; a URL pasted with its credentials is not repeated."""
    with pytest.raises(ConfigurationError, match="base URL of the CRM") as caught:
        parse_base(text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_credential_that_no_header_can_carry_is_refused_without_being_shown(open_transport: Opener) -> None:
    """A key file with a stray line break inside must not become two headers."""
    with pytest.raises(ConfigurationError) as caught:
        open_transport("https://api.example/", Auth(headers={"X-Auth-Token": "hunter2\r\nX: y"}))
    assert "hunter2" not in str(caught.value)
