"""Puts an answer on the socket: whole, cut short, drop by drop, or not at all.

A closed connection (FIN) is what a client sees when a server dies politely, a reset (RST) when it does not; both are
told apart here because clients tell them apart.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from aiohttp import web

from syncd.sandbox.faults import Fault, Kind
from syncd.sandbox.reply import Reply

_LINGER_NOT = struct.pack("ii", 1, 0)
WHOLE_BYTES = 256 * 1024


def close(request: web.BaseRequest, *, by_reset: bool) -> web.StreamResponse:
    """End the connection without an answer."""
    transport = request.transport
    if transport is not None:
        if by_reset:
            stream = transport.get_extra_info("socket")
            if stream is not None:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    return web.Response()


async def send(
    request: web.BaseRequest, reply: Reply, fault: Fault | None, date: str, *, is_chunked: bool = False
) -> web.StreamResponse:
    """Answer, in the manner that a fault of the wire demands."""
    if fault is not None and fault.kind is Kind.TRUNCATED:
        return await _send_cut(request, reply, fault, date, is_chunked)
    if fault is not None and fault.kind is Kind.DRIP:
        return await _stream(request, reply, date, _drops(reply, fault.size), fault.delay_s, is_chunked)
    if is_chunked or reply.length() > WHOLE_BYTES:
        return await _stream(request, reply, date, reply.pieces(), 0.0, is_chunked)
    headers = {"Date": date, "Content-Type": reply.content_type, **reply.headers}
    return web.Response(status=reply.status, body=b"".join(reply.pieces()), headers=headers)


async def _stream(
    request: web.BaseRequest,
    reply: Reply,
    date: str,
    pieces: Iterable[bytes],
    pause_s: float,
    is_chunked: bool,
) -> web.StreamResponse:
    response = await _begin(request, reply, date, is_chunked)
    with suppress(ConnectionError):  # a client that has waited long enough hangs up
        for piece in pieces:
            await response.write(piece)
            if pause_s:
                await asyncio.sleep(pause_s)
        await response.write_eof()
    return response


async def _send_cut(
    request: web.BaseRequest, reply: Reply, fault: Fault, date: str, is_chunked: bool
) -> web.StreamResponse:
    response = await _begin(request, reply, date, is_chunked)
    left = int(reply.length() * fault.share)
    for piece in reply.pieces():
        await response.write(piece[:left])
        left -= len(piece)
        if left <= 0:
            break
    if request.transport is not None:
        request.transport.close()
    return response


async def _begin(request: web.BaseRequest, reply: Reply, date: str, is_chunked: bool) -> web.StreamResponse:
    headers = {"Date": date, "Content-Type": reply.content_type, **reply.headers}
    response = web.StreamResponse(status=reply.status, headers=headers)
    if is_chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = reply.length()
    await response.prepare(request)
    return response


def _drops(reply: Reply, size: int) -> Iterator[bytes]:
    for piece in reply.pieces():
        for start in range(0, len(piece), max(1, size)):
            yield piece[start : start + max(1, size)]
