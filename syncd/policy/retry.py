"""Retry: when a failed call is tried again, and when to stop trying.

Full jitter with a cap: the pause is anything between nothing and the doubled limit, so that a thousand lanes that
failed together do not come back together. The budget ends by tries or by age, whichever is first; age alone never
ends an entry that was not tried several times: after a week's pause, and after a person's retry of an old entry, one
bad answer must not be the end. It never reads a clock or rolls a die: both are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_TRIES = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``base_s`` doubles with each failed try up to ``cap_s``; ``max_attempts`` and ``max_age_s`` are the budget."""

    base_s: float = 2.0
    cap_s: float = 900.0
    max_attempts: int = 12
    max_age_s: float = 7 * 86400.0

    def delay_s(self, failures: int, jitter: float, asked_s: float | None = None) -> float:
        """Return the pause after the ``failures``-th failure (from 1); ``jitter`` is in [0, 1).

        A pause that the CRM asked for comes first, even beyond the cap, and the jitter after it: as a mere floor it
        would bring all who were told the same back at the same moment.
        """
        limit = min(self.cap_s, self.base_s * 2.0 ** min(max(0, failures - 1), 62))
        return limit * jitter + (asked_s or 0.0)

    def is_spent(self, attempts: int, age_s: float) -> bool:
        """Tell whether an entry that failed ``attempts`` times and is ``age_s`` old is given up."""
        return attempts >= self.max_attempts or (attempts >= _LEAST_TRIES and age_s >= self.max_age_s)
