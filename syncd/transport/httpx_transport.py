"""The wire under the httpx API: ``httpx.AsyncClient(transport=AiohttpTransport(wire))``.

Answers are streamed raw; httpx decodes them. Faults become httpx's exceptions such that ``ConnectError`` and
``ConnectTimeout`` mean "certainly not sent" and all others "may have arrived". Their texts are our
own clauses, and nothing is chained to them: httpx's and aiohttp's own texts name hosts, URLs and bytes of answers.

Two request extensions: ``target`` (bytes) replaces the URL's path and query on the wire, so that credentials need not
be in a URL that httpx logs; ``exchange`` is set by us to the ``Exchange``, so that a caller whose own deadline fires
can tell whether anything was sent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
from yarl import URL

from syncd.transport.faults import FAULTS, reason
from syncd.transport.wire import Exchange, Wire

_UNSAFE = re.compile(rb"[\r\n\x00]")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_METHOD = re.compile(r"[A-Za-z]+")
_REPLACED = frozenset({b"transfer-encoding", b"content-length", b"connection"})


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An httpx transport whose cost does not grow with concurrency. Closing it closes the wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        message = await _message(request)
        timeout = request.extensions.get("timeout", {}).get("read") or self._wire.limits.read_timeout_s
        exchange = self._wire.exchange(_origin(request), message, read_timeout_s=timeout, is_decoded=False)
        request.extensions["exchange"] = exchange
        error: httpx.TransportError | None = None
        try:
            await exchange.start()
        except FAULTS as fault:
            error = _translated(fault, exchange)
        finally:
            if exchange.status is None:
                exchange.close()
        if error is not None:
            raise error
        assert exchange.status is not None
        return httpx.Response(exchange.status, headers=list(exchange.raw_headers), stream=self._body(exchange))

    def _body(self, exchange: Exchange) -> _Body:
        return _Body(exchange, self._wire.limits.download_bytes)

    async def aclose(self) -> None:
        await self._wire.close()


class _Body(httpx.AsyncByteStream):
    """The raw body of one answer; leaving it early drops the connection."""

    def __init__(self, exchange: Exchange, limit_bytes: int) -> None:
        self._exchange = exchange
        self._limit_bytes = limit_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = b""
        error: httpx.TransportError | None = None
        try:
            piece = await self._exchange.piece(self._limit_bytes)
        except FAULTS as fault:
            error = _translated(fault, self._exchange)
        if error is not None:
            raise error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._exchange.close()


def _origin(request: httpx.Request) -> URL:
    url = request.url
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.UnsupportedProtocol("only http and https are spoken")
    return URL.build(scheme=url.scheme, host=url.host, port=url.port)


async def _message(request: httpx.Request) -> bytes:
    """Render the request. Its body is read whole first: what we send is small, and its length is then known."""
    body = await request.aread()
    target = request.extensions.get("target", request.url.raw_path)
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _REPLACED]
    if body or request.method not in ("GET", "HEAD", "OPTIONS"):
        headers.append((b"Content-Length", str(len(body)).encode()))
    is_unsafe = any(_UNSAFE.search(name) or _UNSAFE.search(value) for name, value in headers)
    if is_unsafe or not _METHOD.fullmatch(request.method) or not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("the request holds characters that HTTP cannot carry")
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (request.method.encode(), target, lines, body)


def _translated(fault: BaseException, exchange: Exchange) -> httpx.TransportError:
    clause = reason(fault, is_sent=exchange.is_sent, has_status=exchange.status is not None)
    is_late = isinstance(fault, TimeoutError)
    if not exchange.is_sent:
        return httpx.ConnectTimeout(clause) if is_late else httpx.ConnectError(clause)
    return httpx.ReadTimeout(clause) if is_late else httpx.ReadError(clause)
