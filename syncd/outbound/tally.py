"""Tally: what one drain did, counted from settled results, and the one report per delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from syncd.domain.account import Account
from syncd.domain.changes import operation_of
from syncd.domain.reports import DeliveryReport, DrainReport
from syncd.outbound.lane import Delivery, LaneResult
from syncd.store.outbox import Backlog

_DELIVERED = frozenset({"verified", "accepted", "diverged"})


@dataclass(slots=True)
class Tally:
    """Mutable counts of one drain. ``width`` tells how many conversations are allowed at once now."""

    account: Account
    report: Callable[[DeliveryReport], None]
    staged: int = 0
    delivered: int = 0
    retried: int = 0
    dead: int = 0
    parked: int = 0
    fenced: int = 0
    requests: int = 0
    verified: int = 0
    diverged: int = 0
    width: Callable[[], int] = lambda: 1

    def count(self, result: LaneResult, is_fenced: bool) -> None:
        """Count one settled lane and report each of its deliveries."""
        if is_fenced:
            self.fenced += 1
        if not is_fenced:
            self.dead += len(result.lane.plan.broken)
        for delivery in result.deliveries:
            self.requests += delivery.talk.requests
            if not is_fenced:
                self._count_status(delivery.status)
            self.report(_told(self, result, delivery, is_fenced))

    def _count_status(self, status: str) -> None:
        if status in _DELIVERED:
            self.delivered += 1
        elif status == "pending":
            self.retried += 1
        elif status == "dead":
            self.dead += 1
        elif status == "parked":
            self.parked += 1

    def total(self, elapsed_s: float, backlog: Backlog, paused: str | None) -> DrainReport:
        return DrainReport(
            account=self.account.name,
            elapsed_s=elapsed_s,
            staged=self.staged,
            delivered=self.delivered,
            retried=self.retried,
            dead=self.dead,
            parked=self.parked,
            fenced=self.fenced,
            requests=self.requests,
            pending=backlog.pending,
            blocked=backlog.blocked,
            paused=paused,
            reasserting=backlog.reasserting,
            verified=self.verified,
            diverged=self.diverged,
        )


def _told(tally: Tally, result: LaneResult, delivery: Delivery, is_fenced: bool) -> DeliveryReport:
    carrier, talk = delivery.step.carrier, delivery.talk
    return DeliveryReport(
        account=tally.account.name,
        lane_id=result.lane.lane_id,
        entry_ids=(*(entry.id for entry in delivery.step.superseded), carrier.id),
        operation=operation_of(delivery.step.change),
        facet=carrier.facet,
        outcome=delivery.outcome,
        detail=delivery.detail,
        attempt=carrier.attempts + 1,
        requests=talk.requests,
        elapsed_s=talk.elapsed_s,
        age_s=(talk.started_at - carrier.captured_at).total_seconds() + talk.elapsed_s,
        is_fenced=is_fenced,
        width=tally.width(),
    )
