"""The limits of draining: everything has one."""

from __future__ import annotations

from dataclasses import dataclass, field

from syncd.policy.guard import Guard
from syncd.policy.merge import Owners
from syncd.policy.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """Times in seconds.

    ``rate_per_s`` bounds requests (None: no bound), ``concurrency`` conversations at once; both hold per account.
    ``timeout_s`` bounds one conversation and is never more than half of ``lease_s``. ``batch`` is the most lanes one
    claim takes, ``window`` the most entries of one lane it reads. ``patience_s`` is the longest wait for a back-off
    that a one-shot drain sits out. ``settle_s`` is how long results may wait for company while others are under way.
    ``settle_window_s`` after a delivery that was in doubt its facet's last value is said once more (0: never).
    ``read_back_share`` of what the CRM said yes to is read once that is over, ``read_back_batch`` of it at a time.
    ``breaker_failures`` different entries failing in a row, or refused alike in a row, stop the account until a probe
    succeeds; after ``breaker_rounds`` stops for one kind of refusal the entries that meet it are dead.
    ``guard`` says what is too much at once to be sent without asking (None: nothing is). ``owners`` say whose value
    counts where both sides moved a field.
    """

    rate_per_s: float | None = None
    concurrency: int = 8
    lease_s: float = 120.0
    timeout_s: float = 60.0
    batch: int = 256
    window: int = 100
    stage_batch: int = 10_000
    poll_interval_s: float = 0.05
    patience_s: float = 30.0
    settle_batch: int = 256
    settle_s: float = 0.05
    settle_window_s: float = 180.0
    read_back_share: float = 0.05
    read_back_batch: int = 16
    backoff_s: float = 2.0
    backoff_max_s: float = 900.0
    max_attempts: int = 12
    max_age_s: float = 7 * 86400.0
    throttle_s: float = 10.0
    breaker_failures: int = 8
    breaker_pause_s: float = 5.0
    breaker_pause_max_s: float = 300.0
    breaker_rounds: int = 6
    probe_s: float = 30.0
    probe_max_s: float = 900.0
    guard: Guard | None = None
    owners: Owners = field(default_factory=Owners)

    @property
    def conversation_s(self) -> float:
        """How long one conversation may take: well inside the lease, so that a settle still finds it ours."""
        return min(self.timeout_s, self.lease_s / 2)

    def rest_s(self, quiet_s: float) -> float:
        """How long to rest between looks into an outbox that was empty for so long: where an edit was, more may come.

        Looks are polls because the bell that Postgres has, NOTIFY, is rung under a lock that all who ring it share
        until they have committed: it would put the applications' transactions in a row.
        """
        return min(self.poll_interval_s, max(self.poll_interval_s / 10, quiet_s / 20))

    @property
    def read_back_after_s(self) -> float:
        """How long after a delivery it is read back: not while a late request may still land."""
        return max(60.0, self.settle_window_s)

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy(self.backoff_s, self.backoff_max_s, self.max_attempts, self.max_age_s)
