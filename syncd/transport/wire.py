"""One pool of connections, and one request with its answer on one of them.

Decides when a request counts as sent: at the line that hands its bytes to the socket, not before. Never sends twice,
never follows a redirect, never keeps a cookie, never turns TLS verification off.

Built on aiohttp's connector and response parser rather than on its session. The session's work per request is most
of its cost, and it repeats GET, PUT and DELETE by itself when a kept connection breaks. The parts used here and in
``handler`` (``TCPConnector.connect``, ``Connection``, ``ResponseHandler``) are aiohttp's own inner interface: the
pinned requirements and ``tests/transport`` guard it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aiohttp import ClientTimeout, StreamReader, ThreadedResolver
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from syncd.domain.errors import ConfigurationError
from syncd.transport.faults import TooLarge, TransportClosed, Truncated
from syncd.transport.handler import Connector, Handler
from syncd.transport.limits import TransportLimits
from syncd.transport.plain import Plain, PlainReader

_BODILESS = frozenset({204, 304})
_DISTRUST_S = 300.0


class Route(NamedTuple):
    """Where to connect, in the two forms that the connector wants."""

    request: ClientRequest
    key: ConnectionKey


class Patience(NamedTuple):
    """Seconds. A silence as long as the whole needs no timer of its own."""

    read_s: float
    total_s: float | None

    @property
    def silence_s(self) -> float | None:
        return self.read_s if self.total_s is None or self.read_s < self.total_s else None


class Wire:
    """A pool of connections. Opens itself on first use, in the running loop; close it with ``close``.

    ``ca_file`` adds a certificate authority to the system's; it never removes one.
    """

    def __init__(self, limits: TransportLimits, *, ca_file: Path | None = None) -> None:
        self.limits = limits
        self._tls = _tls(ca_file)
        self._connector: Connector | None = None
        self._routes: dict[URL, Route] = {}
        self._is_closed = False
        self._distrust_until = 0.0
        self.plain = PlainReader()
        self._timeout = ClientTimeout(
            total=None,
            connect=limits.pool_timeout_s + limits.connect_timeout_s,
            sock_connect=limits.connect_timeout_s,
        )

    def exchange(
        self,
        origin: URL,
        message: bytes,
        *,
        read_timeout_s: float,
        total_timeout_s: float | None = None,
        is_decoded: bool = True,
        is_fresh: bool = False,
    ) -> Exchange:
        """Prepare to send ``message`` to ``origin``; nothing happens before ``Exchange.start``.

        ``read_timeout_s`` bounds each silence of the server, ``total_timeout_s`` everything (None: the caller does).
        ``is_fresh`` asks for a connection that carried nothing before.
        """
        return Exchange(self, origin, message, Patience(read_timeout_s, total_timeout_s), is_decoded, is_fresh)

    async def connect(
        self, origin: URL, *, is_fresh: bool = False, timeout_s: float | None = None
    ) -> tuple[Connection, Handler]:
        """Take a connection on which nothing is under way, made new if none is kept (or none may be used)."""
        if self._is_closed:
            raise TransportClosed
        connector, route = self._opened(), self._routes.get(origin) or self._route(origin)
        is_fresh = is_fresh or asyncio.get_running_loop().time() < self._distrust_until
        while (connection := await connector.kept(route.key)) is not None:
            if (protocol := _usable(connection, is_fresh)) is not None:
                return connection, protocol
        async with asyncio.timeout(timeout_s):
            while True:
                connection = await connector.connect(route.request, traces=[], timeout=self._timeout)
                if (protocol := _usable(connection, is_fresh)) is not None:
                    return connection, protocol

    def broke(self, protocol: Handler) -> None:
        """Note a request without an answer: if its connection was a kept one, none is used for some minutes.

        A server that closes after each answer without saying so would else lose every second request, for ever.
        """
        if protocol.is_kept:
            self._distrust_until = asyncio.get_running_loop().time() + _DISTRUST_S

    async def close(self) -> None:
        self._is_closed = True
        if self._connector is not None:
            await self._connector.close()

    def _opened(self) -> Connector:
        if self._connector is None:
            self._connector = Connector(
                limit=self.limits.connections,
                keepalive_timeout=self.limits.keepalive_s,
                resolver=ThreadedResolver(),
                ssl=self._tls,
            )
        return self._connector

    def _route(self, origin: URL) -> Route:
        """aiohttp's connector wants a request to know where to connect; one serves for all."""
        request = ClientRequest("GET", origin, loop=asyncio.get_running_loop(), ssl=self._tls)
        self._routes[origin] = route = Route(request, request.connection_key)
        return route


def _usable(connection: Connection, is_fresh: bool) -> Handler | None:
    """Return the connection's protocol; close it when it is kept, but not wanted, or dead, or holds bytes that nobody
    asked for: those would pass for our answer."""
    protocol = connection.protocol
    assert isinstance(protocol, Handler)
    if protocol.is_connected() and not protocol.should_close and not (is_fresh and protocol.is_kept):
        return protocol
    connection.close()
    return None


class Exchange:
    """One request and its answer. ``is_sent`` and ``status`` tell, at any time and after any fault, how far it came.

    The names of ``headers`` are in lower case.
    """

    __slots__ = (
        "_connection",
        "_is_decoded",
        "_is_fresh",
        "_is_unframed",
        "_message",
        "_origin",
        "_patience",
        "_payload",
        "_plain",
        "_protocol",
        "_timer",
        "_wire",
        "headers",
        "is_sent",
        "message_bytes",
        "raw_headers",
        "received_bytes",
        "status",
    )

    def __init__(
        self, wire: Wire, origin: URL, message: bytes, patience: Patience, is_decoded: bool, is_fresh: bool
    ) -> None:
        self._wire = wire
        self._origin = origin
        self._message = message
        self.message_bytes = len(message)
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._is_decoded = is_decoded
        self._is_fresh = is_fresh
        self._connection: Connection | None = None
        self._protocol: Handler | None = None
        self._payload: StreamReader | None = None
        self._plain: Plain | None = None
        self._is_unframed = False
        self.is_sent = False
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = ()
        self.received_bytes = 0

    async def start(self) -> None:
        """Connect, send, and wait for the status line and the headers. Raises one of ``faults.FAULTS``."""
        self._protocol = protocol = await self._connect()
        transport = protocol.transport
        assert transport is not None
        looked = self._expect(protocol)
        self.is_sent = True
        transport.write(self._message)
        protocol.start_timeout()
        self._plain = plain = None if looked is None else await looked
        if plain is None:
            await self._read_head(protocol)
        else:
            self.status, self.headers = plain.status, plain.headers

    async def _connect(self) -> Handler:
        """Take a connection; what is left of the time for everything is the time for the answer."""
        loop, total_s = asyncio.get_running_loop(), self._patience.total_s
        if total_s is not None and total_s <= 0:
            raise TimeoutError
        started = loop.time()
        self._connection, protocol = await self._wire.connect(self._origin, is_fresh=self._is_fresh, timeout_s=total_s)
        if total_s is not None:
            self._timer = protocol.expire_in(started + total_s - loop.time())
        return protocol

    def _expect(self, protocol: Handler) -> asyncio.Future[Plain | None] | None:
        """Ready the connection for the answer: to be looked at as a whole, or to be streamed."""
        is_bodiless = self._message.startswith(b"HEAD ")
        if self._is_decoded and not is_bodiless:
            return protocol.look(self._wire.plain, self._patience.silence_s)
        protocol.set_response_params(
            skip_payload=is_bodiless,
            read_until_eof=True,
            auto_decompress=self._is_decoded,
            read_timeout=self._patience.silence_s,
        )
        return None

    async def _read_head(self, protocol: Handler) -> None:
        while True:
            head, payload = await protocol.read()
            if head.code >= 200:
                break
            if head.code == 101:
                raise Truncated
        self.status = head.code
        self.headers = _lower(head.headers)
        self.raw_headers = head.raw_headers
        self._payload = payload
        self._is_unframed = not head.chunked and "content-length" not in self.headers and head.code not in _BODILESS

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body and give the connection back. Raises one of ``faults.FAULTS``."""
        if self._plain is not None:
            return self._whole(self._plain.body, limit_bytes)
        pieces = []
        while piece := await self.piece(limit_bytes):
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _whole(self, body: bytes, limit_bytes: int) -> bytes:
        self.received_bytes = len(body)
        if self.received_bytes > limit_bytes:
            raise TooLarge(limit_bytes)
        self._finish()
        return body

    async def piece(self, limit_bytes: int) -> bytes:
        """Return what has come of the body; at its end nothing, and the connection is given back.

        Raises one of ``faults.FAULTS``, ``TooLarge`` if all pieces together exceed the limit.
        """
        payload = self._payload
        assert payload is not None
        piece = await payload.readany()
        self.received_bytes += len(piece)
        if self.received_bytes > limit_bytes:
            raise TooLarge(limit_bytes)
        if not piece:
            self._finish()
        return piece

    def _finish(self) -> None:
        """Give the connection back; a body that only the end of the connection delimits must have ended cleanly."""
        protocol, connection = self._protocol, self._connection
        assert protocol is not None
        assert connection is not None
        if self._is_unframed and isinstance(protocol.exception(), OSError):
            raise Truncated
        protocol.is_kept = True
        self._cancel_timer()
        connection.release()
        self._connection = None

    def close(self) -> None:
        """Drop the connection unless the answer was read to its end. Safe to call at any time, any number of times."""
        self._cancel_timer()
        if self._connection is not None:
            if self._protocol is not None and self.status is None:
                self._wire.broke(self._protocol)
            self._connection.close()
            self._connection = None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with their names in lower case, repeated ones joined."""
    lowered: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        lowered[key] = f"{lowered[key]}, {value}" if key in lowered else value
    return lowered


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return _system_tls()
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"the certificate file {ca_file} cannot be read as PEM") from None
    return context


@cache
def _system_tls() -> ssl.SSLContext:
    """Trust the system's authorities. Reading them takes as long as many requests: once for all pools of the process.

    Nobody may change what it returns: an authority of a pool's own goes into a context of its own.
    """
    return ssl.create_default_context()
