"""Pace: how fast, how wide, and whether at all an account is talked to now.

Holds the current values of the pure policies (bucket, concurrency, breaker) for one drainer and tells what every
outcome means for them. ``is_open`` is asked before every step; when it turns false, whatever is claimed goes back.
Whenever it turns true again, after an outage, a pause or a throttle, the drainer begins again with one conversation at
a time: the backlog must not come back as a storm.

Where an answer says that an operation is misconfigured, that operation alone is suspended, and tried again by whichever
of its entries comes first after a growing wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from syncd.clock import Clock
from syncd.outbound.limits import DrainLimits
from syncd.policy.alike import kind_of
from syncd.policy.breaker import Breaker
from syncd.policy.limiter import Concurrency, TokenBucket


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why an operation is not sent, until when (monotonic seconds), and how long the wait was."""

    reason: str
    until: float
    pause_s: float


class Pace:
    """Mutable, shared by the workers of one drainer."""

    def __init__(self, limits: DrainLimits, clock: Clock, on_share: Callable[[int], None] = lambda _: None) -> None:
        """``on_share`` is told of how many replicas share the account's rate, whenever that changes."""
        self._limits = limits
        self._clock = clock
        now = clock.monotonic()
        self._bucket = None if limits.rate_per_s is None else TokenBucket.full(limits.rate_per_s, now)
        self._concurrency = Concurrency.widest(limits.concurrency)
        self._on_share = on_share
        self.breaker = Breaker(
            limits.breaker_failures, limits.breaker_pause_s, limits.breaker_pause_max_s, limits.breaker_rounds
        )
        self.on_widened: Callable[[], None] = lambda: None
        self.refused: str | None = None
        self.suspended: dict[str, Suspension] = {}
        self.is_doubtful = False
        self.is_stopping = False
        self.shared_by = 1
        self.turns = 0
        self._is_held = False
        self._throttled_until = now
        self.is_open = True

    @property
    def allowed(self) -> int:
        """How many conversations may run at once."""
        return self._concurrency.allowed

    def has_place(self, place: int) -> bool:
        """Tell whether the worker at ``place`` may hold a conversation now."""
        return place < self._concurrency.allowed

    @property
    def is_paused(self) -> bool:
        return self._is_held or self.refused is not None

    @property
    def is_broken(self) -> bool:
        return not self.breaker.is_closed

    @property
    def throttled_s(self) -> float:
        """How long the account still has to be left alone."""
        return max(0.0, self._throttled_until - self._clock.monotonic())

    def turn_s(self, most_s: float) -> float | None:
        """Take a place in the queue of requests and return how long to wait for it; None if that is longer than asked.

        A place that nobody will use is not taken: such places add up until no wait is ever short enough.
        """
        self.turns += 1
        if self._bucket is None:
            return 0.0
        bucket, wait_s = self._bucket.take(self._clock.monotonic())
        if wait_s > most_s:
            return None
        self._bucket = bucket
        return wait_s

    def share(self, replicas: int) -> None:
        """Take an equal share of the account's rate: so many replicas are sending now."""
        if replicas == self.shared_by:
            return
        self.shared_by = replicas
        if self._bucket is not None and self._limits.rate_per_s is not None:
            self._bucket = self._bucket.at_rate(self._limits.rate_per_s / replicas, self._clock.monotonic())
        self._on_share(replicas)

    # What an outcome means

    def delivered(self, operation: str) -> None:
        """The CRM took a change."""
        before = self.allowed
        self._concurrency = self._concurrency.succeeded()
        self.breaker = self.breaker.delivered()
        self.is_doubtful = False
        if self.suspended:
            self.suspended.pop(operation, None)
        if self.allowed > before:
            self.on_widened()

    def failed(self, entry_id: int, reason: str, *, is_again: bool = False) -> None:
        """A delivery failed in a way that may be the host's. One that failed before as well asks for a probe."""
        self._concurrency = self._concurrency.strained()
        self.breaker = self.breaker.failed(entry_id, reason)
        self.is_doubtful = self.is_doubtful or is_again
        self._judge()

    def declined(self, entry_id: int, status: int | None, reason: str) -> None:
        """A delivery was refused by an account that answers reads."""
        self.breaker = self.breaker.refused(entry_id, kind_of(reason, status), reason)
        self._judge()

    def throttled(self, for_s: float) -> None:
        """The CRM asked to slow down: nothing is sent for so long, and less at once after."""
        self._concurrency = self._concurrency.strained()
        self._throttled_until = max(self._throttled_until, self._clock.monotonic() + for_s)
        self._judge()

    def unauthorised(self, reason: str) -> None:
        self.refused = reason
        self._judge()

    # Operations that a setting is wrong for

    def suspend(self, operation: str, reason: str) -> None:
        """Send nothing of one operation for a while, longer each time."""
        now, known = self._clock.monotonic(), self.suspended.get(operation)
        if known is not None and known.until > now:
            return
        pause_s = self._limits.probe_s if known is None else min(self._limits.probe_max_s, 2 * known.pause_s)
        self.suspended[operation] = Suspension(reason, now + pause_s, pause_s)

    def remember(self, operation: str) -> None:
        """An earlier process suspended it; whether it still has to be is found out by its next delivery."""
        self.suspended.setdefault(operation, Suspension("", self._clock.monotonic(), self._limits.probe_s / 2))

    def suspended_s(self, operation: str) -> float:
        """How long an operation still has to be left alone."""
        known = self.suspended.get(operation) if self.suspended else None
        return 0.0 if known is None else max(0.0, known.until - self._clock.monotonic())

    # Shut and open

    def stop(self) -> None:
        self.is_stopping = True
        self._judge()

    def move(self, breaker: Breaker) -> None:
        """The breaker moved by a probe, or by what another replica knows."""
        self.breaker = breaker
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
        is_open = not (is_kept or self.is_broken or self.throttled_s > 0)
        if is_open and not self.is_open:
            self._concurrency = self._concurrency.restarted()
        self.is_open = is_open
