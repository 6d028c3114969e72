"""The simulator as a server on the loopback: a request is read, struck by a fault or not, applied, answered.

Handlers are synchronous between "read" and "answered", so that the state changes in the order of the journal and a test
needs no lock. It never speaks to anything but its socket, and binds 127.0.0.1 unless told otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from syncd.sandbox import wire
from syncd.sandbox.autorespond import BASE, OPERATIONS, Autorespond, Request, Visit
from syncd.sandbox.clock import MovableClock, http_date
from syncd.sandbox.control import PREFIX, Control
from syncd.sandbox.faults import Fault, Faults, Kind
from syncd.sandbox.journal import Journal, RequestLine, RequestLog
from syncd.sandbox.reply import Reply, spoiled
from syncd.sandbox.switches import Switches
from syncd.sandbox.throttle import TOO_MANY, Throttle, told_to_wait
from syncd.sandbox.waiting import WaitingRoom
from syncd.sandbox.world import World

GRACE_S = 1.0
UNANSWERED = frozenset({Kind.RESET, Kind.LOST_RESET, Kind.LATE, Kind.LOST_ANSWER})


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What ``syncd sandbox`` was asked for."""

    relations: int = 50
    orders: int = 80
    invoices: int = 40
    seed: int = 1
    host: str = "127.0.0.1"
    port: int = 8011
    faults: tuple[Fault, ...] = ()
    switches: Switches = field(default_factory=Switches)


async def serve(options: SandboxOptions, on_ready: Callable[[Sandbox], None]) -> None:
    """Run a seeded simulator until cancelled; ``on_ready`` is told once it listens."""
    world = World.seeded(options.relations, options.orders, options.invoices, options.seed)
    sandbox = Sandbox(world, options.switches, host=options.host, port=options.port, seed=options.seed)
    for fault in options.faults:
        sandbox.faults.add(fault)
    async with sandbox:
        on_ready(sandbox)
        await asyncio.Event().wait()


class Sandbox:
    """A running simulator: its address, its state, its journal, its faults and its clock."""

    def __init__(
        self,
        world: World,
        switches: Switches | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 1,
    ) -> None:
        self.world = world
        self.clock: MovableClock = world.clock
        self.journal: Journal = world.journal
        self.requests = RequestLog(world.clock)
        self.faults = Faults(seed, OPERATIONS)
        self.admin = str(world.administration.id)
        self.key = world.administration.key
        self.host = host
        self.port = port
        self._runner: web.ServerRunner | None = None
        self._control = Control(self)
        self._waiting = WaitingRoom()
        self._throttle = Throttle()
        self._dated = (0, "")
        self.switches = Switches()
        self._api = Autorespond(world, self.switches)
        self.turn(switches or Switches())

    @property
    def base_url(self) -> str:
        """Where the API is, as a client is configured with it."""
        return f"http://{self.host}:{self.port}{BASE}"

    @property
    def control_url(self) -> str:
        """Where the control endpoint is."""
        return f"http://{self.host}:{self.port}{PREFIX}"

    def turn(self, switches: Switches) -> None:
        """Answer under other switches from now on."""
        self.switches = switches
        self._api = Autorespond(self.world, switches)
        if switches.duplicate_tags and self.world.tags:
            names = [tag.name for tag in self.world.tags.values()]
            if len(names) == len(set(names)):
                self.world.add_tag(names[0])

    # Held and late requests, and waiting for requests without sleeping

    @property
    def held(self) -> int:
        """How many requests are held now."""
        return self._waiting.held

    @property
    def late(self) -> int:
        """How many requests have yet to land."""
        return self._waiting.late

    def release(self) -> int:
        """Let go of every held request; return how many there were."""
        return self._waiting.release()

    def land(self) -> int:
        """Apply the requests that come late, in the order in which they were sent; return how many."""
        return self._waiting.land()

    async def until_held(self, count: int = 1, *, timeout_s: float = 10.0) -> None:
        """Wait until that many requests are held."""
        await self._waiting.until(lambda: self.held >= count, timeout_s)

    async def until_requests(self, operation: str, count: int = 1, *, timeout_s: float = 10.0) -> None:
        """Wait until an operation (``*``: any) has been asked for that often, answered or not."""
        counts = self.requests
        await self._waiting.until(
            lambda: (counts.total if operation == "*" else counts.by_operation[operation]) >= count, timeout_s
        )

    # The way of a request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        body = await request.read() if request.can_read_body else b""
        if path.startswith(PREFIX):
            return self._control.answer(request.method, path, query, body)
        if not path.startswith(BASE):
            return web.Response(status=404, text="not here: the API is at " + BASE)
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        visit = self._api.read(Request(request.method, path, query, content_type, body))
        line = self.requests.open(visit.operation, request.method, path, visit.given)
        self._waiting.stir()
        try:
            return await self._meet(request, visit, line)
        finally:
            self._waiting.passed()

    async def _meet(self, request: web.BaseRequest, visit: Visit, line: RequestLine) -> web.StreamResponse:
        """Let a recognised request meet its fault, if it has one."""
        if self.switches.latency_s:
            await asyncio.sleep(self.switches.latency_s)
        if self._throttle.is_over(self.switches.rate_per_s):
            reply = told_to_wait(TOO_MANY, 1, self.switches, self.clock)
            return await self._send(request, reply, None, line, "throttled")
        fault = self.faults.take(visit.operation, visit.request.verb, visit.request.path)
        if fault is None:
            return await self._send(request, self._apply(visit, line), None, line, "answered")
        return await self._strike(request, visit, line, fault)

    async def _strike(
        self, request: web.BaseRequest, visit: Visit, line: RequestLine, fault: Fault
    ) -> web.StreamResponse:
        match fault.kind:
            case Kind.DELAY:
                await asyncio.sleep(fault.delay_s)
            case Kind.HOLD:
                await self._waiting.hold()
            case Kind.LATE:
                self._waiting.postpone(lambda: self._apply(visit, line), fault.delay_s, fault.after)
            case Kind.TWICE:
                self._apply(visit, line)
            case _:
                pass
        reply = self._apply(visit, line) if fault.applies() else Reply()
        if fault.kind is Kind.HOLD_ANSWER:
            await self._waiting.hold()
        if fault.kind in UNANSWERED:
            self.requests.close(line, 0, fault.kind.value)
            return wire.close(request, by_reset=fault.kind in (Kind.RESET, Kind.LOST_RESET))
        reply = spoiled(reply, fault)
        if fault.retry_after_s is not None:
            reply = told_to_wait(reply, fault.retry_after_s, self.switches, self.clock)
        return await self._send(request, reply, fault, line, fault.kind.value)

    def _apply(self, visit: Visit, line: RequestLine) -> Reply:
        self.journal.request = line.seq
        try:
            return self._api.apply(visit)
        finally:
            self.journal.request = 0

    async def _send(
        self, request: web.BaseRequest, reply: Reply, fault: Fault | None, line: RequestLine, fate: str
    ) -> web.StreamResponse:
        self.requests.close(line, reply.status, fate)
        return await wire.send(request, reply, fault, self._date(), is_chunked=self.switches.chunked)

    def _date(self) -> str:
        now = int(self.clock.now().timestamp())
        if now != self._dated[0]:
            self._dated = now, http_date(self.clock.now())
        return self._dated[1]

    # Life

    async def __aenter__(self) -> Self:
        self._api.warm()
        server = web.Server(self._answer, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=GRACE_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
