"""What a pipeline hands back: ``ops`` turns these into metrics and into the one canonical log line each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from syncd.domain.ids import RunId


@dataclass(frozen=True, slots=True)
class RunReport:
    """One pull of one stream. ``status`` is a value of ``policy.states.RunStatus``; ``reason`` says why it did not
    succeed, ``news`` what was odd about the answer's shape for the first time. ``deferred`` counts rows left for the
    next run because an application held them. ``is_fault`` is true when the account itself was the trouble
    (credentials, host), so that the caller pauses instead of trying the next stream; ``is_passing`` when the same pull
    may well work later as it is (host away, server error, account held).
    """

    run_id: RunId | None
    account: str
    stream: str
    trigger: str
    status: str
    elapsed_s: float
    requests: int = 0
    received: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    deferred: int = 0
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    news: tuple[str, ...] = ()
    asked_from: datetime | None = None
    asked_upto: datetime | None = None
    is_fault: bool = False
    is_passing: bool = False

    @property
    def is_success(self) -> bool:
        return self.status == "succeeded"


class DeliveryReport(msgspec.Struct, frozen=True):
    """One conversation with the CRM and how it settled. ``outcome`` is the outcome's class name in lower case or, when
    delivered, its proof. ``is_fenced`` is true when another worker had taken the lane and the result was dropped.
    ``width`` is how many conversations with the account were allowed at once when it was settled."""

    account: str
    lane_id: int
    entry_ids: tuple[int, ...]
    operation: str
    facet: str
    outcome: str
    detail: str
    attempt: int
    requests: int
    elapsed_s: float
    age_s: float
    is_fenced: bool = False
    width: int = 1


@dataclass(frozen=True, slots=True)
class DrainReport:
    """One drain: how much was delivered and what is left. ``is_empty`` is true when nothing remains that syncd
    could send by itself; ``blocked`` counts entries that wait for a person, or behind one that does; ``reasserting``
    delivered values that will be said once more when their settle window is over; ``paused`` is the reason if the
    account is paused. ``verified`` and ``diverged`` count what was read back."""

    account: str
    elapsed_s: float
    staged: int = 0
    delivered: int = 0
    retried: int = 0
    dead: int = 0
    parked: int = 0
    fenced: int = 0
    requests: int = 0
    pending: int = 0
    blocked: int = 0
    paused: str | None = None
    reasserting: int = 0
    verified: int = 0
    diverged: int = 0

    @property
    def is_empty(self) -> bool:
        return self.pending == 0
