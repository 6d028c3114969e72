"""Limiter: how fast and how wide an account may be talked to.

A token bucket bounds the rate, AIMD bounds the concurrency: one more after each full round of successes, half after
a sign of strain. After an outage it starts again from one and doubles with each round until half of what it was (slow
start): what piled up meanwhile must not come all at once. Both are values: every decision returns the next one, and
time is an argument (monotonic seconds).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """``rate_per_s`` tokens a second, at most ``burst`` saved up. Below zero, ``tokens`` is a place in the queue."""

    rate_per_s: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate_per_s: float, now: float, burst: float | None = None) -> TokenBucket:
        """Start with a full bucket; without ``burst``, what a tenth of a second earns, and at least one token."""
        size = max(1.0, rate_per_s / 10) if burst is None else burst
        return cls(rate_per_s, size, size, now)

    def at_rate(self, rate_per_s: float, now: float, burst: float | None = None) -> TokenBucket:
        """Go on at another rate from now on: what was earned until now was earned at the old one.

        Places that were given away stay given away: the next one comes after the last of them, at whatever rate.
        """
        size = max(1.0, rate_per_s / 10) if burst is None else burst
        tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate_per_s)
        if tokens < 0:
            tokens = min(tokens, tokens * rate_per_s / self.rate_per_s)
        return TokenBucket(rate_per_s, size, min(size, tokens), max(self.at, now))

    def take(self, now: float) -> tuple[TokenBucket, float]:
        """Take one token; return the next bucket and how long to wait before using it, in seconds."""
        tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate_per_s) - 1.0
        return replace(self, tokens=tokens, at=max(self.at, now)), max(0.0, -tokens / self.rate_per_s)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many conversations may run at once: between 1 and ``most``. Below ``slow_until`` it doubles each round."""

    most: int
    width: float
    slow_until: float = 1.0

    @classmethod
    def widest(cls, most: int) -> Concurrency:
        return cls(most, float(most))

    @property
    def allowed(self) -> int:
        return max(1, int(self.width))

    @property
    def is_widest(self) -> bool:
        return self.width >= self.most

    def succeeded(self) -> Concurrency:
        """Grow by one place per round of successes; in slow start by one per success."""
        if self.is_widest:
            return self
        step = 1.0 if self.width < self.slow_until else 1.0 / self.width
        return replace(self, width=min(float(self.most), self.width + step))

    def strained(self) -> Concurrency:
        """Halve."""
        half = max(1.0, self.width / 2.0)
        return replace(self, width=half, slow_until=half)

    def restarted(self) -> Concurrency:
        """Begin again with one, after an outage of whatever cause."""
        return replace(self, width=1.0, slow_until=max(1.0, self.width / 2.0))
