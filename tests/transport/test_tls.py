"""TLS is verified, always: whom the system (or the named authority) does not vouch for gets no request.

The certificates here were made for these tests, are valid until 2126, and are trusted by nobody else.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.providers.contract import Answered, NotSent
from tests.support.rawserver import answer, answering, never, raw_server
from tests.transport.conftest import CERTIFICATES, Opener, call

AUTHORITY = CERTIFICATES / "authority.pem"


def certified(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    return context


async def test_a_certificate_of_a_named_authority_is_accepted(open_transport: Opener) -> None:
    """A CRM behind a company's own authority must be reachable without switching anything off."""
    async with raw_server(answering(answer()), tls=certified("server")) as server:
        transport = open_transport(f"https://127.0.0.1:{server.port}/", ca_file=AUTHORITY)
        assert isinstance(await transport.send(call()), Answered)
        async with transport.download(call()) as got:
            assert isinstance(got, Answered)


@pytest.mark.parametrize(
    ("name", "ca_file", "why"),
    [("server", None, "its authority is unknown"), ("stranger", AUTHORITY, "it is for another address")],
)
async def test_a_certificate_nobody_vouches_for_gets_no_request(
    open_transport: Opener, name: str, ca_file: Path | None, why: str
) -> None:
    """The key is in the request: one sent to an impostor is lost for good."""
    async with raw_server(answering(answer()), tls=certified(name)) as server:
        transport = open_transport(f"https://127.0.0.1:{server.port}/", ca_file=ca_file)
        got = await transport.send(call())
        async with transport.download(call()) as downloaded:
            pass
    assert got == downloaded == NotSent(f"the TLS certificate is not accepted: {why}")
    assert server.requests == []


async def test_a_server_without_tls_gets_no_request(open_transport: Opener) -> None:
    """A port that speaks plain HTTP must not receive the key in plain text."""
    async with raw_server(answering(answer())) as server:
        got = await open_transport(f"https://127.0.0.1:{server.port}/", connect_timeout_s=0.2).send(call())
    assert isinstance(got, NotSent)
    assert not any(b"HTTP" in request for request in server.requests)


async def test_a_handshake_that_hangs_is_not_sent(open_transport: Opener) -> None:
    """Nothing of the request leaves before the handshake is over."""
    async with raw_server(never) as server:
        got = await open_transport(f"https://127.0.0.1:{server.port}/", connect_timeout_s=0.1).send(call())
    assert got == NotSent("no connection in time")


def test_an_unreadable_authority_file_is_said_at_once(open_transport: Opener, tmp_path: Path) -> None:
    """Found when the daemon starts, not when the first delivery fails."""
    (tmp_path / "empty.pem").write_text("nothing here")
    with pytest.raises(ConfigurationError, match=r"empty\.pem"):
        open_transport("https://api.example/", ca_file=tmp_path / "empty.pem")
