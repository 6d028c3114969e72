"""Pace: how fast, how wide, and whether at all an account is talked to now.

Holds the current values of the pure policies (bucket, concurrency, breaker) for one drainer and tells what every
outcome means for them. ``is_open`` is asked before every step; when it turns false, whatever is claimed goes back.
"""

from __future__ import annotations

from syncd.clock import Clock
from syncd.outbound.limits import DrainLimits
from syncd.policy.breaker import Breaker, BreakerState
from syncd.policy.limiter import Concurrency, TokenBucket


class Pace:
    """Mutable, shared by the workers of one drainer."""

    def __init__(self, limits: DrainLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        now = clock.monotonic()
        self._bucket = None if limits.rate_per_s is None else TokenBucket.full(limits.rate_per_s, now)
        self._concurrency = Concurrency.widest(limits.concurrency)
        self.breaker = Breaker(limits.breaker_failures, limits.breaker_pause_s, limits.breaker_pause_max_s)
        self.refused: str | None = None
        self.is_stopping = False
        self._is_held = False
        self._throttled_until = now
        self.is_open = True

    @property
    def allowed(self) -> int:
        """How many conversations may run at once."""
        return self._concurrency.allowed

    @property
    def is_paused(self) -> bool:
        return self._is_held or self.refused is not None

    @property
    def is_broken(self) -> bool:
        return self.breaker.state is not BreakerState.CLOSED

    @property
    def throttled_s(self) -> float:
        """How long the account still has to be left alone."""
        return max(0.0, self._throttled_until - self._clock.monotonic())

    def turn_s(self, most_s: float) -> float | None:
        """Take a place in the queue of requests and return how long to wait for it; None if that is longer than asked.

        A place that nobody will use is not taken: such places add up until no wait is ever short enough.
        """
        if self._bucket is None:
            return 0.0
        bucket, wait_s = self._bucket.take(self._clock.monotonic())
        if wait_s > most_s:
            return None
        self._bucket = bucket
        return wait_s

    def succeeded(self) -> None:
        self._concurrency = self._concurrency.succeeded()
        self.breaker = self.breaker.succeeded() if not self.is_broken else self.breaker

    def failed(self, entry_id: int) -> None:
        """A delivery failed in a way that may be the host's."""
        self._concurrency = self._concurrency.strained()
        self.breaker = self.breaker.failed(entry_id, self._clock.monotonic())
        self._judge()

    def throttled(self, for_s: float) -> None:
        """The CRM asked to slow down: nothing is sent for so long, and less at once after."""
        self._concurrency = self._concurrency.strained()
        self._throttled_until = max(self._throttled_until, self._clock.monotonic() + for_s)
        self._judge()

    def unauthorised(self, reason: str) -> None:
        self.refused = reason
        self._judge()

    def stop(self) -> None:
        self.is_stopping = True
        self._judge()

    def probed(self, is_well: bool) -> None:
        """A probe of the broken account came back."""
        self.breaker = self.breaker.succeeded() if is_well else self.breaker.probe_failed(self._clock.monotonic())
        self._judge()

    def hold(self) -> None:
        """The account is paused, by whomever: what is claimed goes back."""
        self._is_held = True
        self._judge()

    def reopen(self, *, is_lifted: bool = False) -> None:
        """Look again: a throttle may be over, or a pause is lifted."""
        if is_lifted:
            self._is_held, self.refused = False, None
        self._judge()

    def _judge(self) -> None:
        is_kept = self.is_stopping or self._is_held or self.refused is not None
        self.is_open = not (is_kept or self.is_broken or self.throttled_s > 0)
