"""The wish to stop: SIGTERM, SIGINT or the closing of the terminal sets an event; a second one ends the process there
and then.

The second needs no courtesy: everything syncd does survives being killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from types import TracebackType


def stop_numbers() -> tuple[signal.Signals, ...]:
    """Return the signals that ask for a stop; the closing of the terminal is none of them under nohup."""
    asks = (signal.SIGINT, signal.SIGTERM)
    return asks if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*asks, signal.SIGHUP)


class StopSignal:
    """An ``async with`` block in which these signals are ours. ``number`` says which one came first."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.number: int | None = None
        self._ours = stop_numbers()

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 0: SIGTERM is how services are stopped."""
        return 130 if self.number == signal.SIGINT else 0

    async def __aenter__(self) -> StopSignal:
        loop = asyncio.get_running_loop()
        for number in self._ours:
            loop.add_signal_handler(number, self._received, number)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in self._ours:
            loop.remove_signal_handler(number)

    def _received(self, number: int) -> None:
        if self.event.is_set():
            os._exit(128 + number)
        self.number = number
        self.event.set()
