"""From reports to metrics and to one canonical log line: ``run.finished``, ``delivery.settled``, ``audit.finished``;
what a run noticed of the answer's shape for the first time is a line of its own, ``shape.noticed``.

A run, delivery or audit that is fine is logged at info; one that is not, at warning, with its reason. Nothing else in
syncd logs the same fact again.
"""

from __future__ import annotations

from syncd import log
from syncd.domain.audits import AuditReport, Verdict
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
        for sentence in report.news:
            self._log.warning("shape.noticed", account=report.account, run_id=report.run_id, what=sentence)

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

    def audit(self, report: AuditReport) -> None:
        """Count one round of the auditor and log it, unless nothing was due."""
        self._metrics.count_audit(report)
        if report.kind is None:
            return
        is_drifting = any(report.verdicts.get(one) for one in (Verdict.LATE, Verdict.WRONG, Verdict.VANISHED))
        standing = next((one for one in report.standings if one.kind == report.kind), None)
        tell = self._log.warning if is_drifting or report.reason else self._log.info
        tell(
            "audit.finished",
            account=report.account,
            kind=report.kind,
            run_id=report.run_id,
            elapsed_s=round(report.elapsed_s, 3),
            requests=report.requests,
            **{verdict.value: report.verdicts.get(verdict, 0) for verdict in Verdict},
            **_given(
                rows=standing.rows if standing else None,
                proven=standing.proven if standing else None,
                oldest_s=round(standing.oldest_s) if standing and standing.oldest_s is not None else None,
                reason=report.reason,
            ),
        )


def _given(**fields: object) -> dict[str, object]:
    """Leave out what has nothing to say, so that a line stays readable."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in fields.items()
        if value is not None
    }
