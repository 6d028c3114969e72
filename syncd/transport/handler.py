"""aiohttp's side of a connection, which first looks whether an answer is a plain one.

Decides nothing: a plain answer (``plain``) is handed over at once, everything else goes through aiohttp's parser as if
nobody had looked. The classes are subclasses because aiohttp's connector makes its protocols itself.

The time for an answer is one timer that faults the connection (``expire_in``), which wakes whoever waits on it:
``asyncio.timeout`` around an exchange costs a quarter of the exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection

from syncd.transport.plain import Plain, PlainReader


class Handler(ResponseHandler):
    """One connection. ``is_kept`` tells whether it has carried an answer before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.is_kept = False
        self._reader: PlainReader | None = None
        self._sought: asyncio.Future[Plain | None] | None = None

    def look(self, reader: PlainReader, read_timeout_s: float | None) -> asyncio.Future[Plain | None]:
        """Expect an answer. The future holds it if it is plain; None means: ``read`` has it, or the fault."""
        self._reader, self._sought = reader, self._loop.create_future()
        self.read_timeout = read_timeout_s
        return self._sought

    def expire_in(self, seconds: float) -> asyncio.TimerHandle:
        """Let whatever is awaited of this connection fail with TimeoutError then; cancel the handle to prevent it."""
        return self._loop.call_later(seconds, self._on_read_timeout)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            super().data_received(data)
            return
        plain, self._reader = self._reader.read(data), None
        if plain is None:
            self.set_response_params(read_until_eof=True, read_timeout=self.read_timeout)
            super().data_received(data)
        else:
            self._drop_timeout()
        self._found(plain)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        super().set_exception(exc, *cause)
        self._found(None)

    def _found(self, plain: Plain | None) -> None:
        sought, self._sought, self._reader = self._sought, None, None
        if sought is not None and not sought.done():
            sought.set_result(plain)


class Connector(TCPConnector):
    """aiohttp's pool of connections, each with our ``Handler``. Made in the running loop."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        make: Callable[[], ResponseHandler] = partial(Handler, loop=asyncio.get_running_loop())
        self._factory = make  # type: ignore[assignment]

    async def kept(self, key: ConnectionKey) -> Connection | None:
        """Take a kept connection, without ever waiting; None if there is none."""
        return await self._get(key, [])
