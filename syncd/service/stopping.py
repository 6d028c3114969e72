"""The wish to stop: SIGTERM and SIGINT set an event; a second one ends the process there and then.

The second needs no courtesy: everything syncd does survives being killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from types import TracebackType


class StopSignal:
    """An ``async with`` block in which both signals are ours. ``number`` says which one came first."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.number: int | None = None

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which is how services are stopped; 130 after Ctrl-C."""
        return 130 if self.number == signal.SIGINT else 0

    async def __aenter__(self) -> StopSignal:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _received(self, number: int) -> None:
        if self.event.is_set():
            os._exit(128 + number)
        self.number = number
        self.event.set()
