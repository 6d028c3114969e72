"""The metrics, all of them, in a registry of their own: importing this package changes no global state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from syncd import __version__
from syncd.domain.audits import AuditReport
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.store.incidents import IncidentCount
from syncd.store.status import AccountStatus, OutboxStatus, StreamStatus

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_AGES = (0.05, 0.1, 0.5, 1, 5, 30, 60, 300, 900, 3600, 21600, 86400)


class Metrics:
    """Counters fed by reports, gauges filled from the database when they are asked for.

    ``described`` lists every metric as (name as scraped, labels, meaning), in the order of the README's table.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[tuple[str, tuple[str, ...], str]] = []
        self._make_counters()
        self._make_histograms()
        self._make_gauges()

    def _make_counters(self) -> None:
        self._deliveries = self._counter("deliveries", "Deliveries that ended", "account", "operation", "outcome")
        self._settled = self._counter("settled_entries", "Outbox entries they settled", "account", "outcome")
        self._fenced = self._counter("fenced_deliveries", "Results dropped: another worker had the lane", "account")
        self._runs = self._counter("runs", "Pulls that ended", "account", "stream", "status")
        self._rows = self._counter("rows", "Rows received, and what came of them", "account", "stream", "change")
        self._audited = self._counter("audited_rows", "Rows asked for again by verdict", "account", "kind", "verdict")
        self._requests = self._counter("requests", "Requests sent to the CRM", "account", "direction")

    def _make_histograms(self) -> None:
        self._delivery_s = self._histogram("delivery_seconds", "Length of one delivery", _SECONDS, "account")
        self._delivery_age_s = self._histogram("delivery_age_seconds", "From local commit to settled", _AGES, "account")
        self._run_s = self._histogram("run_seconds", "Length of one pull", _SECONDS, "account", "stream")

    def _make_gauges(self) -> None:
        self._entries = self._gauge("outbox_entries", "Undelivered changes", "account", "status")
        self._incidents = self._gauge("incidents_open", "Things a person should know", "account", "kind")
        self._oldest = self._gauge("outbox_oldest_seconds", "Age of the oldest pending change", "account")
        self._lag = self._gauge("coverage_lag_seconds", "Age of the newest proven instant", "account", "stream")
        self._holes = self._gauge("coverage_holes", "Unproven gaps inside the horizon", "account", "stream")
        self._hole_seconds = self._gauge("coverage_hole_seconds", "Total length of those gaps", "account", "stream")
        self._hole_age = self._gauge("coverage_hole_age_seconds", "Age of the oldest of them", "account", "stream")
        self._success_age = self._gauge("run_success_age_seconds", "Since the last good pull", "account", "stream")
        self._audit_rows = self._gauge("audit_rows", "Rows of the mirror", "account", "kind")
        self._audit_proven = self._gauge("audit_proven_rows", "Those proven to equal the CRM lately", "account", "kind")
        self._audit_oldest = self._gauge("audit_oldest_seconds", "Age of the oldest proof", "account", "kind")
        self._paused = self._gauge("paused_accounts", "1 while the account is paused", "account")
        self._holds = self._gauge("holds_open", "Mass changes that wait for a person", "account")
        self._conflicts = self._gauge("conflicts_open", "Fields both sides changed, not decided yet", "account")
        self._open_breakers = self._gauge("open_breakers", "1 while the account's breaker is not closed", "account")
        self._throttled_s = self._gauge("throttled_seconds", "How long the CRM asked to be left alone yet", "account")
        self._width = self._gauge("delivery_width", "Deliveries that may be under way at once now", "account")
        self._leases = self._gauge("held_leases", "1 where this process pulls for the account", "account")
        self._database = self._gauge("database_up", "1 while the database answers")
        self._gauge("build_info", "1, labelled with the version that runs", "version").labels(__version__).set(1)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self.described.append((f"syncd_{name}_total", labels, meaning))
        return Counter(f"syncd_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self.described.append((f"syncd_{name}", labels, meaning))
        return Histogram(f"syncd_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self.described.append((f"syncd_{name}", labels, meaning))
        return Gauge(f"syncd_{name}", meaning, labels, registry=self.registry)

    def count_run(self, report: RunReport) -> None:
        """Add one pull."""
        labels = (report.account, report.stream)
        self._runs.labels(*labels, report.status).inc()
        self._run_s.labels(*labels).observe(report.elapsed_s)
        self._requests.labels(report.account, "in").inc(report.requests)
        for change in ("received", "inserted", "updated", "unchanged", "missing", "deferred"):
            self._rows.labels(*labels, change).inc(getattr(report, change))

    def count_delivery(self, report: DeliveryReport) -> None:
        """Add one delivery."""
        self._requests.labels(report.account, "out").inc(report.requests)
        self._width.labels(report.account).set(report.width)
        if report.is_fenced:
            self._fenced.labels(report.account).inc()
            return
        self._deliveries.labels(report.account, report.operation, report.outcome).inc()
        self._settled.labels(report.account, report.outcome).inc(len(report.entry_ids))
        self._delivery_s.labels(report.account).observe(report.elapsed_s)
        self._delivery_age_s.labels(report.account).observe(max(0.0, report.age_s))

    def count_audit(self, report: AuditReport) -> None:
        """Add one round of the auditor, and show how all kinds stand since."""
        for verdict, number in report.verdicts.items():
            self._audited.labels(report.account, report.kind, verdict.value).inc(number)
        for row in report.standings:
            labels = (row.account, row.kind)
            self._audit_rows.labels(*labels).set(row.rows)
            self._audit_proven.labels(*labels).set(row.proven)
            self._audit_oldest.labels(*labels).set(row.oldest_s or 0.0)

    def show_database(self, is_up: bool) -> None:
        self._database.set(is_up)

    def show_accounts(self, accounts: tuple[AccountStatus, ...], replica: str) -> None:
        for account in accounts:
            self._paused.labels(account.name).set(account.paused_at is not None)
            self._holds.labels(account.name).set(account.open_holds)
            self._conflicts.labels(account.name).set(account.open_conflicts)
            self._open_breakers.labels(account.name).set(account.breaker_state != "closed")
            self._throttled_s.labels(account.name).set(account.throttled_s)
            self._leases.labels(account.name).set(account.lease_owner == replica)

    def show_streams(self, streams: tuple[StreamStatus, ...]) -> None:
        for row in streams:
            labels = (row.account, row.stream)
            self._holes.labels(*labels).set(row.holes)
            self._hole_seconds.labels(*labels).set(row.hole_s)
            self._hole_age.labels(*labels).set(row.hole_age_s)
            if row.lag_s is not None:
                self._lag.labels(*labels).set(row.lag_s)
            if row.success_age_s is not None:
                self._success_age.labels(*labels).set(row.success_age_s)

    def show_outbox(self, outboxes: tuple[OutboxStatus, ...]) -> None:
        for row in outboxes:
            for status in ("pending", "reasserting", "held", "dead", "parked", "diverged"):
                self._entries.labels(row.account, status).set(getattr(row, status))
            self._oldest.labels(row.account).set(row.oldest_s or 0.0)

    def show_incidents(self, counts: tuple[IncidentCount, ...]) -> None:
        for row in counts:
            self._incidents.labels(row.account, row.kind).set(row.open)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        lines = generate_latest(self.registry).splitlines(keepends=True)
        return b"".join(line for line in lines if b"_created" not in line)  # when a series began is nobody's question


def metrics_table() -> str:
    """Return the README's table of all metrics."""
    rows = [f"| `{name}` | {', '.join(labels)} | {meaning} |" for name, labels, meaning in Metrics().described]
    return "\n".join(["| metric | labels | meaning |", "|---|---|---|", *rows]) + "\n"
