"""The transport as the pipelines see it: a request value in, an answer value out.

Decides what every exchange came to: ``NotSent``, ``Answered`` or ``MaybeApplied``. Never retries, never interprets a
status, never raises for what a network or a server does; only a disk without room and a bug raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from syncd.clock import Clock
from syncd.providers.contract import Answer, Answered, Auth, MaybeApplied, NotSent, Request, Response
from syncd.transport.faults import FAULTS, TooLarge, reason
from syncd.transport.httpx_transport import AiohttpTransport
from syncd.transport.limits import TransportLimits
from syncd.transport.message import Signer, body_bytes, parse_base
from syncd.transport.skew import SkewGauge
from syncd.transport.spool import Spool
from syncd.transport.wire import Exchange, Wire

_DEFAULT_LIMITS = TransportLimits()


@dataclass(slots=True)
class TransportCounters:
    """Sums since the transport was opened; ``ops`` reads them. Bytes received are counted after decompression."""

    requests: int = 0
    not_sent: int = 0
    maybe_applied: int = 0
    answered: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    answered_by_status: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """How much of one download is taken, and who hears of it."""

    most_bytes: int | None
    on_bytes: Callable[[int], None] | None


class Transport:
    """One account's way to its CRM. Open with ``Transport.open``, share between tasks, close with ``close``."""

    def __init__(self, signer: Signer, wire: Wire, clock: Clock) -> None:
        self._signer = signer
        self._wire = wire
        self._clock = clock
        self._limits = wire.limits
        self._skew = SkewGauge()
        self._httpx = AiohttpTransport(wire)
        self.counters = TransportCounters()

    @classmethod
    def open(
        cls,
        base_url: str,
        auth: Auth,
        *,
        limits: TransportLimits = _DEFAULT_LIMITS,
        clock: Clock,
        ca_file: Path | None = None,
    ) -> Self:
        """Check the base URL and the credentials' form; no connection is made yet.

        ``ca_file`` names a PEM file with one more trusted authority. Raises ConfigurationError without secrets.
        """
        return cls(Signer(parse_base(base_url), auth), Wire(limits, ca_file=ca_file), clock)

    @property
    def clock_skew_s(self) -> float | None:
        """Seconds by which the CRM's clock is ahead of ours; None until an answer told its time."""
        return self._skew.skew_s

    @property
    def latest_skew_s(self) -> float | None:
        """The same from the last answer alone: less exact, and the only one to notice at once that a clock jumped."""
        return self._skew.latest_s

    async def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        """Send a request whose answer is small; ``timeout_s`` bounds everything, the wait for a connection included."""
        limits, started = self._limits, self._clock.monotonic()
        exchange = self._wire.exchange(
            self._signer.base.origin,
            self._signer.render(request),
            read_timeout_s=limits.read_timeout_s,
            total_timeout_s=limits.total_timeout_s if timeout_s is None else timeout_s,
            is_fresh=request.needs_own_connection,
        )
        try:
            await exchange.start()
            headers = self._noted(exchange.headers)
            body = await exchange.read(limits.body_bytes)
        except FAULTS as fault:
            return self._failed(exchange, fault)
        finally:
            exchange.close()
            self._count(exchange)
        return self._answered(Response(exchange.status or 0, headers, body, None, self._clock.monotonic() - started))

    @asynccontextmanager
    async def download(
        self,
        request: Request,
        *,
        timeout_s: float | None = None,
        most_bytes: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> AsyncIterator[Answer]:
        """Send a request whose answer may be large: a body above ``spool_above_bytes`` is in ``Response.spool``.

        One above ``most_bytes`` is given up, as is any above the limit for all; ``on_bytes`` hears how many have come.
        The file is closed when the block ends. Raises InfrastructureError when the disk has no room for it.
        """
        spool = Spool(self._limits.spool_above_bytes, self._limits.spool_dir)
        try:
            yield await self._spooled(request, spool, timeout_s, _Bounds(most_bytes, on_bytes))
        finally:
            spool.close()

    async def close(self) -> None:
        """Close every connection; what is under way ends as a broken connection, what comes later is not sent."""
        await self._wire.close()

    async def _spooled(self, request: Request, spool: Spool, timeout_s: float | None, bounds: _Bounds) -> Answer:
        outgoing = self._outgoing(request)
        try:
            async with asyncio.timeout(self._limits.download_timeout_s if timeout_s is None else timeout_s):
                return await self._fetched(outgoing, spool, bounds)
        except (httpx.HTTPError, *FAULTS) as fault:
            return self._failed(_exchange(outgoing), fault)
        finally:
            self._count(_exchange(outgoing))

    async def _fetched(self, outgoing: httpx.Request, spool: Spool, bounds: _Bounds) -> Answer:
        started = self._clock.monotonic()
        response = await self._httpx.handle_async_request(outgoing)
        try:
            headers = self._noted(dict(response.headers.items()))
            await self._fill(spool, response, bounds)
            body = await spool.finish()
        finally:
            await response.aclose()
        elapsed_s = self._clock.monotonic() - started
        return self._answered(Response(response.status_code, headers, body, spool.file, elapsed_s))

    async def _fill(self, spool: Spool, response: httpx.Response, bounds: _Bounds) -> None:
        received, limit = 0, self._limits.download_bytes
        limit = limit if bounds.most_bytes is None else min(limit, bounds.most_bytes)
        async for piece in response.aiter_bytes():
            received += len(piece)
            if received > limit:
                raise TooLarge(limit)
            await spool.add(piece)
            if bounds.on_bytes is not None:
                bounds.on_bytes(received)

    def _outgoing(self, request: Request) -> httpx.Request:
        """Build httpx's request. Its URL is the bare origin: path, query and credentials travel in the target."""
        body = body_bytes(request)
        target = self._signer.target(request).encode()
        headers = (line.partition(": ") for line in self._signer.headers(request, body).splitlines())
        return httpx.Request(
            request.verb,
            str(self._signer.base.origin),
            headers=[(name, value) for name, _, value in headers],
            content=body,
            extensions={"target": target, "timeout": {"read": self._limits.download_read_timeout_s}},
        )

    def _noted(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Learn the server's time from an answer's headers."""
        received_at = self._clock.now()
        if self._skew.is_news(headers.get("date"), received_at):
            self._skew.observe(headers, received_at)
        return headers

    def _failed(self, exchange: Exchange | None, fault: BaseException) -> Answer:
        if exchange is None or not exchange.is_sent:
            self.counters.not_sent += 1
            return NotSent(_clause(fault, is_sent=False, has_status=False))
        self.counters.maybe_applied += 1
        return MaybeApplied(_clause(fault, is_sent=True, has_status=exchange.status is not None), exchange.status)

    def _answered(self, response: Response) -> Answered:
        self.counters.answered += 1
        by_status = self.counters.answered_by_status
        by_status[response.status] = by_status.get(response.status, 0) + 1
        return Answered(response)

    def _count(self, exchange: Exchange | None) -> None:
        self.counters.requests += 1
        if exchange is not None and exchange.is_sent:
            self.counters.sent_bytes += exchange.message_bytes
            self.counters.received_bytes += exchange.received_bytes


def _exchange(outgoing: httpx.Request) -> Exchange | None:
    found = outgoing.extensions.get("exchange")
    return found if isinstance(found, Exchange) else None


def _clause(fault: BaseException, *, is_sent: bool, has_status: bool) -> str:
    match fault:
        case httpx.TransportError():
            return str(fault)  # raised by our own httpx transport, with a clause of faults.reason
        case httpx.HTTPError():
            return "the answer was cut off or cannot be unpacked"
    return reason(fault, is_sent=is_sent, has_status=has_status)
