"""From reports to metrics and to the one canonical log line: ``run.finished`` and ``delivery.settled``.

A run or delivery that is fine is logged at info; one that is not, at warning, with its reason. Nothing else in syncd
logs the same fact again.
"""

from __future__ import annotations

from syncd import log
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.ops.metrics import Metrics

_FINE = frozenset({"verified", "accepted", "superseded"})


class Reporter:
    """Two callables for the pipelines: ``run`` for the puller, ``delivery`` for the drainer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = log.get("syncd.ops")

    def run(self, report: RunReport) -> None:
        """Count and log one pull."""
        self._metrics.count_run(report)
        tell = self._log.info if report.is_success else self._log.warning
        tell(
            "run.finished",
            account=report.account,
            stream=report.stream,
            run_id=report.run_id,
            trigger=report.trigger,
            status=report.status,
            elapsed_s=round(report.elapsed_s, 3),
            requests=report.requests,
            received=report.received,
            inserted=report.inserted,
            updated=report.updated,
            unchanged=report.unchanged,
            missing=report.missing,
            deferred=report.deferred,
            **_given(reason=report.reason, warnings=list(report.warnings) or None),
            **_given(asked_from=report.asked_from, asked_upto=report.asked_upto),
        )

    def delivery(self, report: DeliveryReport) -> None:
        """Count and log one delivery."""
        self._metrics.count_delivery(report)
        tell = self._log.info if report.outcome in _FINE and not report.is_fenced else self._log.warning
        tell(
            "delivery.settled",
            account=report.account,
            lane_id=report.lane_id,
            entry_ids=list(report.entry_ids),
            operation=report.operation,
            facet=report.facet,
            outcome=report.outcome,
            attempt=report.attempt,
            requests=report.requests,
            elapsed_s=round(report.elapsed_s, 3),
            age_s=round(report.age_s, 3),
            **_given(detail=report.detail or None, is_fenced=report.is_fenced or None),
        )


def _given(**fields: object) -> dict[str, object]:
    """Leave out what has nothing to say, so that a line stays readable."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in fields.items()
        if value is not None
    }
