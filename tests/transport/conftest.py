"""Opening transports that close with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from syncd.clock import SystemClock
from syncd.providers.contract import Auth, Request
from syncd.transport import Transport, TransportLimits

AUTH = Auth(query={"admin": "1001", "key": "s3cret/key+value"})
CERTIFICATES = Path(__file__).parent / "certificates"

Opener = Callable[..., Transport]


@pytest.fixture
async def open_transport() -> AsyncIterator[Opener]:
    """Return a function like ``Transport.open`` with test credentials, the real clock and short limits."""
    opened: list[Transport] = []

    def opener(base_url: str, auth: Auth = AUTH, *, ca_file: Path | None = None, **limits: object) -> Transport:
        chosen = TransportLimits(**{"total_timeout_s": 5.0, "download_timeout_s": 5.0} | limits)  # type: ignore[arg-type]
        opened.append(Transport.open(base_url, auth, limits=chosen, clock=SystemClock(), ca_file=ca_file))
        return opened[-1]

    yield opener
    for transport in opened:
        await transport.close()


def call(verb: str = "POST", path: str = "relation/5/addtag/7", **more: object) -> Request:
    return Request("tag_add", verb, path, **more)  # type: ignore[arg-type]
