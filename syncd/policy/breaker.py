"""Breaker: when many different entries fail in a row, the trouble is the host's, not theirs.

                   enough different entries in a row                pause over           a safe read is answered
      closed ────────────────────────────────────────▶ open ──────────────────▶ half_open ───────────────────────┐
         ▲                                              ▲ ▲                        │                             │
         │                                              │ └─────it is not──────────┘                             ▼
         │                                              └──────────the next one fails as well────────── closed, on trial
         └───────────────────────────────────────────────────────────a delivery succeeds───────────────────┘

Two kinds of trouble open it:

* **failures** (no answer, server errors, a refusal that a safe read shares), of different entries in a row;
* **refusals that are alike** (``policy.alike``) although reads work: the host may be ill for writes alone, or the
  entries may really be wrong, each for itself. So those entries are not left dead, and the account waits. When it was
  opened for one kind as often as ``rounds`` says, with growing pauses, refusals of that kind are believed: dead.

While it is not closed no delivery is sent and no retry budget is spent; what is sent is a safe read at growing pauses.
A read does not prove that writes work: therefore the trial, in which one more failure opens it again for twice as long.
A pure value: every event returns the next breaker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

# Kinds of refusal that are counted side by side; the oldest is forgotten first.
_MOST_KINDS = 16


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why it opened: an example, how many different entries, and the kind if it was for refusals that are alike."""

    reason: str
    count: int
    entry_id: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """``failing`` are the different entries that failed since the last delivery, ``refusing`` those by kind of refusal.

    ``openings`` counts since the last delivery and sets the pause; ``suspicions`` counts the openings for each kind.
    """

    threshold: int
    pause_s: float
    pause_cap_s: float
    rounds: int = 6
    state: BreakerState = BreakerState.CLOSED
    is_on_trial: bool = False
    openings: int = 0
    failing: frozenset[int] = frozenset()
    refusing: Mapping[str, frozenset[int]] = field(default_factory=dict)
    suspicions: Mapping[str, int] = field(default_factory=dict)
    cause: Cause | None = None

    @property
    def is_closed(self) -> bool:
        """Whether deliveries may be sent."""
        return self.state is BreakerState.CLOSED

    @property
    def opening_pause_s(self) -> float:
        """How long to leave the host alone after this opening."""
        return min(self.pause_cap_s, self.pause_s * 2.0 ** min(max(0, self.openings - 1), 62))

    def is_believed(self, kind: str) -> bool:
        """Tell whether refusals of a kind are the entries' own by now."""
        return self.suspicions.get(kind, 0) >= self.rounds

    def delivered(self) -> Breaker:
        """The CRM took a change: whatever was counted is over. An answer that comes late changes nothing."""
        if not self.is_closed or not (self.failing or self.refusing or self.is_on_trial or self.openings):
            return self
        return replace(self, is_on_trial=False, openings=0, failing=frozenset(), refusing={}, cause=None)

    def failed(self, entry_id: int, reason: str) -> Breaker:
        """A delivery failed in a way that may be the host's; the same entry again says nothing new."""
        if not self.is_closed:
            return self
        failing = self.failing | {entry_id}
        if self.is_on_trial or len(failing) >= self.threshold:
            return self._open(Cause(reason, len(failing), entry_id))
        return replace(self, failing=failing)

    def refused(self, entry_id: int, kind: str, reason: str) -> Breaker:
        """A delivery was refused although reads work. Of a kind that is believed, that is the entry's own trouble."""
        if not self.is_closed or self.is_believed(kind):
            return self
        alike = self.refusing.get(kind, frozenset()) | {entry_id}
        if len(alike) >= self.threshold or (self.is_on_trial and kind in self.suspicions):
            return self._open(Cause(reason, len(alike), entry_id, kind))
        kept = list(self.refusing.items())[-_MOST_KINDS + 1 :]
        return replace(self, refusing={**dict(kept), kind: alike})

    def unanswered(self, reason: str) -> Breaker:
        """A safe read was not answered either: the host is ill, however few entries there are to notice."""
        return self._open(Cause(reason, max(1, len(self.failing)))) if self.is_closed else self

    def probing(self) -> Breaker:
        """The pause is over and a probe is on its way."""
        return replace(self, state=BreakerState.HALF_OPEN)

    def probed(self, *, is_well: bool) -> Breaker:
        """The probe came back."""
        if not is_well:
            return replace(self, state=BreakerState.OPEN, openings=self.openings + 1)
        return replace(self, state=BreakerState.CLOSED, is_on_trial=True, failing=frozenset(), refusing={})

    def following(self, *, is_broken: bool, is_on_trial: bool, openings: int, cause: Cause | None = None) -> Breaker:
        """Another replica moved it."""
        state = BreakerState.OPEN if is_broken else BreakerState.CLOSED
        return replace(
            self,
            state=state,
            is_on_trial=is_on_trial and not is_broken,
            openings=openings,
            failing=frozenset(),
            refusing={},
            cause=cause,
        )

    def remembering(self, refusing: Mapping[str, frozenset[int]]) -> Breaker:
        """Go on with the streaks that an earlier process left; the next one of a kind may then fill it."""
        kept = {kind: frozenset(sorted(entries)[-(self.threshold - 1) :]) for kind, entries in refusing.items()}
        if self.threshold == 1 or not self.is_closed:
            return self
        return replace(self, refusing={**dict(list(kept.items())[-_MOST_KINDS:]), **self.refusing})

    def suspecting(self, suspicions: Mapping[str, int]) -> Breaker:
        """Take over what all replicas together have looked into."""
        return self if suspicions == self.suspicions else replace(self, suspicions=suspicions)

    def _open(self, cause: Cause) -> Breaker:
        suspicions, openings = dict(self.suspicions), self.openings + 1
        if cause.kind is not None:
            suspicions[cause.kind] = suspicions.get(cause.kind, 0) + 1
            openings = max(openings, suspicions[cause.kind])
        return replace(
            self,
            state=BreakerState.OPEN,
            is_on_trial=False,
            openings=openings,
            failing=frozenset(),
            refusing={},
            suspicions=suspicions,
            cause=cause,
        )
