"""The benchmarks run: a figure that nobody can print again is a rumour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import exit_code
from benchmarks.figures import Figure, table
from tests.support.proving import pick

ROOT = Path(__file__).resolve().parents[2]

FIGURES = {
    "transport": (r"bare aiohttp\D+[\d,]+",),
    "pull": (r"raw COPY\D+\d+ orders/s", r"first load over HTTP\D+\d+ orders/s", r"re-pull over HTTP\D+\d+ orders/s"),
    "million": (r"first load\D+\d+ orders/s", r"re-pull\D+\d+ orders/s", r"memory of the load\D+\d+ MB"),
    "claims": (r"claims, +\d+ settled.+ratio", r"stuck on.+ratio", r"beside one lane.+ratio"),
    "held": (r"transaction open .+all of it.+ratio", r"transaction open .+last fifth.+ratio"),
    "deliveries": (r"bare aiohttp loop\D+\d+", r"outbox\D+\d+ deliveries/s", r"20 ms answers"),
    "commits": (
        r"bare edits of 1 client +capture on.+ratio",
        r"bare edits of 16 clients with a stager.+ratio",
        r"transactions of 16 clients.+ratio",
        r"one UPDATE of \d+ relations",
    ),
    "latency": (r"after a rest +p50 \d+ ms, p99 \d+ ms", r"soon after another +p50", r"idle, .+ transactions/s"),
}


@pytest.mark.parametrize("name", pick(sorted(FIGURES), short=2, always=("deliveries",)))
def test_short_form_prints_its_figures(name: str, server_url: str) -> None:
    """Each figure of the README has a command that prints it; here the command runs at a small size."""
    result = run(server_url, name, "--short")
    assert result.returncode == 0, result.stderr
    assert all(re.search(figure, result.stdout, re.I) for figure in FIGURES[name]), result.stdout
    assert re.search(r"peak memory\D+\d+ MB", result.stdout), result.stdout
    what, *rows = result.stdout.partition("== figures ==\n")[2].splitlines()
    assert what.split() == ["what", "figure", "beside", "it", "value", "target", "met"]
    assert rows


def run(server_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "SYNCD_TEST_SERVER": server_url},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize(
    ("figure", "is_met", "shown"),
    [
        (Figure("deliveries", "5 /s", "10", 0.5, 0.45), True, ">= 0.45  yes"),
        (Figure("deliveries", "4 /s", "10", 0.4, 0.45), False, ">= 0.45  NO"),
        (Figure("latency", "60 ms", "", 60.0, 50.0, "ms", True), False, "<= 50 ms  NO"),
        (Figure("latency", "40 ms", "", 40.0, 50.0, "ms", True), True, "<= 50 ms  yes"),
        (Figure("idling", "20 /s", "", 3.0), True, "3.00"),
    ],
)
def test_table_says_whether_a_target_is_met(figure: Figure, is_met: bool, shown: str) -> None:
    """A miss that reads like a hit would be worse than no table."""
    assert figure.is_met == is_met
    assert exit_code(0, [figure], is_strict=True) == (0 if is_met else 1)
    assert exit_code(0, [figure], is_strict=False) == 0
    assert table([figure]).splitlines()[-1].endswith(shown)


def test_a_benchmark_of_no_such_name_is_refused(server_url: str) -> None:
    """A typing error must not look like a run without misses."""
    assert run(server_url, "delivery").returncode == 2
