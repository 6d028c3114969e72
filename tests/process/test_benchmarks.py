"""The benchmarks run: a figure that nobody can print again is a rumour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FIGURES = {
    "transport": (r"bare aiohttp\D+[\d,]+",),
    "pull": (r"raw COPY\D+\d+ orders/s", r"first load over HTTP\D+\d+ orders/s", r"re-pull over HTTP\D+\d+ orders/s"),
    "claims": (
        r"claims, +\d+ settled.+ratio",
        r"stuck on.+ratio",
        r"beside one lane.+ratio",
        r"one open.+all of it.+ratio",
    ),
    "deliveries": (r"bare aiohttp loop\D+\d+", r"outbox\D+\d+ deliveries/s", r"peak memory\D+\d+ MB"),
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_short_form_prints_its_figures(name: str, server_url: str) -> None:
    """Each figure of the README has a command that prints it; here the command runs at a small size."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--short"],
        cwd=ROOT,
        env={**os.environ, "SYNCD_TEST_SERVER": server_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(re.search(figure, result.stdout, re.I) for figure in FIGURES[name]), result.stdout
