"""What an audit says about a row, and how kinds of rows stand: values that ``ops`` publishes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from syncd.domain.ids import RunId


class Verdict(StrEnum):
    """How a row that was asked for again compares with the mirror's.

    EQUAL: the same, value by value. LATE: the CRM had changed it and no pull had seen that. WRONG: the CRM says what it
    said before, and the mirror held something else. WAITING: it differs by a local change that is not delivered, or by
    a conflict that waits: no drift. VANISHED: the CRM does not show it any more. UNREAD: no answer that could be
    written. LATE and WRONG have been mended by the pull that found them.
    """

    EQUAL = "equal"
    LATE = "late"
    WRONG = "wrong"
    WAITING = "waiting"
    VANISHED = "vanished"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class Standing:
    """One kind of row of one account. ``proven`` rows equalled the CRM within the time looked at; ``oldest_s`` is how
    long ago the row that was proven longest ago was (since it is here, if never). Missing rows are not counted."""

    account: str
    kind: str
    rows: int
    proven: int
    oldest_s: float | None

    @property
    def share(self) -> float:
        return self.proven / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class AuditReport:
    """One round: what was asked for again and how it stood, and how all kinds stand since."""

    account: str
    kind: str | None
    run_id: RunId | None
    elapsed_s: float
    requests: int
    verdicts: dict[Verdict, int]
    standings: tuple[Standing, ...]
    reason: str | None = None
