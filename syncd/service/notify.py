"""Tell systemd how it goes: one datagram for each word, to the socket it named. Without systemd, nothing happens."""

from __future__ import annotations

import os
import socket

from syncd.clock import Clock


class Notifier:
    """Speaks the sd_notify protocol: ``READY=1``, ``STATUS=...``, ``STOPPING=1``, ``WATCHDOG=1``."""

    def __init__(self, address: str | None = None, watchdog_usec: str | None = None) -> None:
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
        given = watchdog_usec if watchdog_usec is not None else os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(given) / 1_000_000 if given.isdecimal() else 0.0

    def tell(self, *words: str) -> None:
        """Send words such as ``READY=1``; a supervisor that does not listen is no reason to fail."""
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.connect(name)
                channel.send("\n".join(words).encode())
            except OSError:
                return

    async def keep_alive(self, clock: Clock) -> None:
        """Pet the watchdog twice per period for as long as the event loop turns; returns at once if there is none."""
        while self._address and self.watchdog_s:
            self.tell("WATCHDOG=1")
            await clock.sleep(self.watchdog_s / 2)
