"""One pool of connections, and one request with its answer on one of them.

Decides when a request counts as sent: at the line that hands its bytes to the socket, not before. Never sends twice,
never follows a redirect, never keeps a cookie, never turns TLS verification off.

Built on aiohttp's connector and response parser rather than on its session. The session's work per request is most
of its cost, and it repeats GET, PUT and DELETE by itself when a kept connection breaks. The parts used here
(``TCPConnector.connect``, ``Connection``, ``ResponseHandler``) are aiohttp's own inner interface: the pinned
requirements and ``tests/transport`` guard it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakSet

from aiohttp import ClientTimeout, StreamReader, TCPConnector, ThreadedResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from yarl import URL

from syncd.domain.errors import ConfigurationError
from syncd.transport.faults import TooLarge, TransportClosed, Truncated
from syncd.transport.limits import TransportLimits

_BODILESS = frozenset({204, 304})
_DISTRUST_S = 300.0


class Wire:
    """A pool of connections. Opens itself on first use, in the running loop; close it with ``close``.

    ``ca_file`` adds a certificate authority to the system's; it never removes one.
    """

    def __init__(self, limits: TransportLimits, *, ca_file: Path | None = None) -> None:
        self.limits = limits
        self._tls = _tls(ca_file)
        self._connector: TCPConnector | None = None
        self._routes: dict[URL, ClientRequest] = {}
        self._is_closed = False
        self._kept: WeakSet[ResponseHandler] = WeakSet()
        self._distrust_until = 0.0
        self._timeout = ClientTimeout(
            total=None,
            connect=limits.pool_timeout_s + limits.connect_timeout_s,
            sock_connect=limits.connect_timeout_s,
        )

    def exchange(
        self, origin: URL, message: bytes, *, read_timeout_s: float, is_decoded: bool = True, is_fresh: bool = False
    ) -> Exchange:
        """Prepare to send ``message`` to ``origin``; nothing happens before ``Exchange.start``.

        ``is_fresh`` asks for a connection that carried nothing before.
        """
        return Exchange(self, origin, message, read_timeout_s, is_decoded, is_fresh)

    async def connect(self, origin: URL, *, is_fresh: bool = False) -> Connection:
        """Take a connection on which nothing is under way, made new if none is kept (or none may be used)."""
        if self._is_closed:
            raise TransportClosed
        connector = self._opened()
        route = self._routes.get(origin) or self._route(origin)
        is_fresh = is_fresh or asyncio.get_running_loop().time() < self._distrust_until
        while True:
            connection = await connector.connect(route, traces=[], timeout=self._timeout)
            protocol = connection.protocol
            is_usable = protocol is not None and protocol.is_connected() and not protocol.should_close
            if is_usable and not (is_fresh and protocol in self._kept):
                return connection
            # Kept, but not wanted, or dead, or holding bytes that nobody asked for: those would pass for our answer.
            connection.close()

    def keep(self, protocol: ResponseHandler) -> None:
        """Note that a connection was given back, so that it is known when it is taken again."""
        self._kept.add(protocol)

    def broke(self, protocol: ResponseHandler) -> None:
        """Note a request without an answer: if its connection was a kept one, none is used for some minutes.

        A server that closes after each answer without saying so would else lose every second request, for ever.
        """
        if protocol in self._kept:
            self._distrust_until = asyncio.get_running_loop().time() + _DISTRUST_S

    async def close(self) -> None:
        self._is_closed = True
        if self._connector is not None:
            await self._connector.close()

    def _opened(self) -> TCPConnector:
        if self._connector is None:
            self._connector = TCPConnector(
                limit=self.limits.connections,
                keepalive_timeout=self.limits.keepalive_s,
                resolver=ThreadedResolver(),
                ssl=self._tls,
            )
        return self._connector

    def _route(self, origin: URL) -> ClientRequest:
        """aiohttp's connector wants a request to know where to connect; one serves for all."""
        route = ClientRequest("GET", origin, loop=asyncio.get_running_loop(), ssl=self._tls)
        self._routes[origin] = route
        return route


class Exchange:
    """One request and its answer. ``is_sent`` and ``status`` tell, at any time and after any fault, how far it came."""

    __slots__ = (
        "_connection",
        "_is_decoded",
        "_is_fresh",
        "_is_unframed",
        "_message",
        "_origin",
        "_payload",
        "_protocol",
        "_read_timeout_s",
        "_wire",
        "headers",
        "is_sent",
        "message_bytes",
        "raw_headers",
        "received_bytes",
        "status",
    )

    def __init__(
        self, wire: Wire, origin: URL, message: bytes, read_timeout_s: float, is_decoded: bool, is_fresh: bool
    ) -> None:
        self._wire = wire
        self._origin = origin
        self._message = message
        self.message_bytes = len(message)
        self._read_timeout_s = read_timeout_s
        self._is_decoded = is_decoded
        self._is_fresh = is_fresh
        self._connection: Connection | None = None
        self._protocol: ResponseHandler | None = None
        self._payload: StreamReader | None = None
        self._is_unframed = False
        self.is_sent = False
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = ()
        self.received_bytes = 0

    async def start(self) -> None:
        """Connect, send, and wait for the status line and the headers. Raises one of ``faults.FAULTS``."""
        self._connection = connection = await self._wire.connect(self._origin, is_fresh=self._is_fresh)
        protocol, transport = connection.protocol, connection.transport
        assert protocol is not None
        assert transport is not None
        protocol.set_response_params(
            skip_payload=self._message.startswith(b"HEAD "),
            read_until_eof=True,
            auto_decompress=self._is_decoded,
            read_timeout=self._read_timeout_s,
        )
        self._protocol = protocol
        self.is_sent = True
        transport.write(self._message)
        protocol.start_timeout()
        await self._read_head(protocol)

    async def _read_head(self, protocol: ResponseHandler) -> None:
        while True:
            head, payload = await protocol.read()
            if head.code >= 200:
                break
            if head.code == 101:
                raise Truncated
        self.status = head.code
        self.headers = head.headers
        self.raw_headers = head.raw_headers
        self._payload = payload
        self._is_unframed = not head.chunked and "Content-Length" not in head.headers and head.code not in _BODILESS

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body and give the connection back. Raises one of ``faults.FAULTS``."""
        pieces = []
        while piece := await self.piece(limit_bytes):
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
        self._wire.keep(protocol)
        connection.release()
        self._connection = None

    def close(self) -> None:
        """Drop the connection unless the answer was read to its end. Safe to call at any time, any number of times."""
        if self._connection is not None:
            if self._protocol is not None and self.status is None:
                self._wire.broke(self._protocol)
            self._connection.close()
            self._connection = None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigurationError(f"the certificate file {ca_file} cannot be read as PEM") from None
    return context
