"""The rate limit of the simulated server, and how it says when to come again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from syncd.sandbox.clock import MovableClock, http_date, monotonic
from syncd.sandbox.reply import Reply
from syncd.sandbox.switches import Switches

TOO_MANY = Reply(429, b'{"error":"too many requests"}')


class Throttle:
    """Counts requests in each second of real time; the limit is a switch."""

    def __init__(self) -> None:
        self._second = 0
        self._in_second = 0

    def is_over(self, rate_per_s: int) -> bool:
        """Count one request; say whether it is one too many. A rate of 0 is no limit."""
        if not rate_per_s:
            return False
        second = int(monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second > rate_per_s


def told_to_wait(reply: Reply, seconds: int, switches: Switches, clock: MovableClock) -> Reply:
    """Return an answer with ``Retry-After`` as the switch spells it."""
    match switches.retry_after:
        case "seconds":
            shown = str(seconds)
        case "date":
            shown = http_date(clock.now() + timedelta(seconds=seconds))
        case "none":
            return reply
        case _:
            assert_never(switches.retry_after)
    return replace(reply, headers={**reply.headers, "Retry-After": shown})
