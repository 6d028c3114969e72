"""Metrics and canonical lines: every report is counted once, under documented names."""

from __future__ import annotations

import re

import pytest

from syncd.domain.audits import AuditReport, Standing, Verdict
from syncd.domain.ids import RunId
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.ops.metrics import Metrics, metrics_table
from syncd.ops.reporter import Reporter
from syncd.store.incidents import IncidentCount


def delivery(outcome: str = "verified", is_fenced: bool = False) -> DeliveryReport:
    return DeliveryReport("shop", 1, (4, 5), "add_tag", "tag:1", outcome, "", 1, 2, 0.2, 0.9, is_fenced)


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_run_is_counted_with_its_rows_and_requests() -> None:
    """Rates of rows and requests are what an operator's dashboard is made of."""
    metrics = Metrics()
    Reporter(metrics).run(
        RunReport(
            RunId(1), "shop", "orders", "schedule", "succeeded", 1.5, requests=2, received=7, updated=3, unchanged=4
        )
    )
    assert sample(metrics, "syncd_runs_total", account="shop", stream="orders", status="succeeded") == 1
    assert sample(metrics, "syncd_rows_total", account="shop", stream="orders", change="updated") == 3
    assert sample(metrics, "syncd_requests_total", account="shop", direction="in") == 2


def test_fenced_delivery_is_no_delivery() -> None:
    """A dropped result counted as delivered would hide that the change is still under way."""
    metrics = Metrics()
    reporter = Reporter(metrics)
    reporter.delivery(delivery())
    reporter.delivery(delivery(is_fenced=True))
    labels = {"account": "shop", "operation": "add_tag", "outcome": "verified"}
    assert sample(metrics, "syncd_deliveries_total", **labels) == 1
    assert sample(metrics, "syncd_settled_entries_total", account="shop", outcome="verified") == 2
    assert sample(metrics, "syncd_fenced_deliveries_total", account="shop") == 1
    assert sample(metrics, "syncd_requests_total", account="shop", direction="out") == 4


def test_an_incident_that_is_over_is_shown_as_none() -> None:
    """A gauge is filled anew each time: kinds without an open one go back to zero."""
    metrics = Metrics()
    metrics.show_incidents((IncidentCount("shop", "diverged", 2), IncidentCount("shop", "parked", 0)))
    assert sample(metrics, "syncd_incidents_open", account="shop", kind="diverged") == 2
    metrics.show_incidents((IncidentCount("shop", "diverged", 0),))
    assert sample(metrics, "syncd_incidents_open", account="shop", kind="diverged") == 0


def test_names_follow_one_pattern_and_all_are_in_the_table() -> None:
    """syncd_<noun>_<unit|total>: dashboards are written from the table."""
    table = metrics_table()
    for name, _, meaning in Metrics().described:
        assert re.fullmatch(r"syncd_[a-z]+(_[a-z]+)+", name)
        assert f"| `{name}` |" in table
        assert meaning


def test_two_registries_live_side_by_side() -> None:
    """Metrics in the global registry would make a second instance, or a test, an error."""
    assert Metrics().text() == Metrics().text()


@pytest.mark.parametrize("outcome", ["verified", "retryable"])
def test_delivery_line_names_entries_and_outcome(outcome: str) -> None:
    """One line must be enough to know what happened to an entry."""
    from structlog.testing import capture_logs

    with capture_logs() as lines:
        Reporter(Metrics()).delivery(delivery(outcome))
    (line,) = [line for line in lines if line["event"] == "delivery.settled"]
    assert (line["entry_ids"], line["outcome"]) == ([4, 5], outcome)
    assert line["log_level"] == ("info" if outcome == "verified" else "warning")


def test_an_audit_becomes_counts_and_how_all_kinds_stand() -> None:
    """An alert on drift, and one on what was not looked at for too long."""
    metrics = Metrics()
    verdicts = {Verdict.EQUAL: 9, Verdict.LATE: 2}
    standings = (Standing("shop", "orders", 40, 30, 7200.0), Standing("shop", "tags", 0, 0, None))
    Reporter(metrics).audit(AuditReport("shop", "orders", RunId(7), 1.5, 3, verdicts, standings))
    assert sample(metrics, "syncd_audited_rows_total", account="shop", kind="orders", verdict="late") == 2
    assert sample(metrics, "syncd_audit_rows", account="shop", kind="orders") == 40
    assert sample(metrics, "syncd_audit_proven_rows", account="shop", kind="orders") == 30
    assert sample(metrics, "syncd_audit_oldest_seconds", account="shop", kind="orders") == 7200
    assert standings[0].share == 0.75
