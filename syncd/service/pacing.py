"""One account's rate, shared by both directions: pulls and deliveries take places in one queue.

The drainer says how many replicas are sending at the moment, and the rate here is divided by it.

Only the rate is shared. How many requests may be under way is the drainer's to adapt, and a pull that takes half an
hour to download years of orders must not keep a delivery waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from syncd.clock import Clock
from syncd.policy.limiter import TokenBucket
from syncd.providers.contract import Answer, NotSent, Request
from syncd.transport import Transport


class Pacer:
    """Hands out turns at ``rate_per_s``, in the order in which they are asked for."""

    def __init__(self, rate_per_s: float, clock: Clock) -> None:
        self._clock = clock
        self._rate_per_s = rate_per_s
        self._bucket = TokenBucket.full(rate_per_s, clock.monotonic())
        self.taken = 0

    @property
    def is_free(self) -> bool:
        """Whether nobody waits for a turn: taken now, one would be next."""
        return self._bucket.take(self._clock.monotonic())[0].tokens > -1.0

    def share(self, replicas: int) -> None:
        """Keep to an equal share of the rate from now on: so many replicas are sending to the account."""
        self._bucket = self._bucket.at_rate(self._rate_per_s / replicas, self._clock.monotonic())

    async def turn(self, most_s: float | None = None) -> float | None:
        """Wait for the next turn and return how long it took; None, at once and without one, if beyond ``most_s``."""
        bucket, wait_s = self._bucket.take(self._clock.monotonic())
        if most_s is not None and wait_s >= most_s:
            return None
        self._bucket, self.taken = bucket, self.taken + 1
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        return wait_s


class PacedTransport(Transport):
    """A transport that waits for its turn before each request; until ``pace`` is set it does not wait."""

    pacer: Pacer | None = None

    async def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        """Send in turn. The wait counts against the time allowed: a delivery's lease does not stop for it."""
        if self.pacer is None or timeout_s is None:
            await self._turn()
            return await super().send(request, timeout_s=timeout_s)
        waited_s = await self.pacer.turn(timeout_s)
        if waited_s is None:
            return NotSent("its turn would have come too late")
        return await super().send(request, timeout_s=timeout_s - waited_s)

    @asynccontextmanager
    async def download(
        self,
        request: Request,
        *,
        timeout_s: float | None = None,
        most_bytes: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> AsyncIterator[Answer]:
        await self._turn()
        async with super().download(request, timeout_s=timeout_s, most_bytes=most_bytes, on_bytes=on_bytes) as answer:
            yield answer

    async def _turn(self) -> None:
        if self.pacer is not None:
            await self.pacer.turn()
