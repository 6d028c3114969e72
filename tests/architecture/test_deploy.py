"""What ships under deploy/ must speak of the program that ships."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
EXAMPLE = (ROOT / "config.example.env").read_text() if (ROOT / "config.example.env").exists() else ""


def test_every_setting_named_under_deploy_exists() -> None:
    """A misspelt variable in a manifest is refused at start: found here, not at three in the morning."""
    known = set(re.findall(r"SYNCD_[A-Z0-9_]+", EXAMPLE))
    named = {
        name
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for name in re.findall(r"SYNCD_[A-Z0-9_]+", path.read_text())
    }
    assert named
    assert not named - known


def test_unit_tells_systemd_the_truth() -> None:
    """Type=notify with no notifier hangs the start; restarting on a configuration error is a loop."""
    unit = (DEPLOY / "systemd" / "syncd.service").read_text()
    for line in (
        "Type=notify",
        "ExecStart=/opt/syncd/bin/syncd run",
        "RestartPreventExitStatus=78 2",
        "StateDirectory=syncd",
    ):
        assert f"\n{line}\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_passes_systemd_analyze(tmp_path: Path) -> None:
    """A directive that systemd ignores protects nobody."""
    unit = tmp_path / "syncd.service"
    unit.write_text((DEPLOY / "systemd" / "syncd.service").read_text().replace("/opt/syncd/bin/syncd", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "syncd.service:" not in result.stderr, result.stderr


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomization_builds() -> None:
    """Manifests that do not build are prose."""
    result = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes" / "base")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\nkind: ") + result.stdout.startswith("kind: ") == 4
    assert "image: syncd:0.1.0" in result.stdout


def test_dockerfile_copies_what_exists() -> None:
    """The image is built from a clean clone."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name


def test_a_probe_loads_neither_database_nor_server() -> None:
    """Probes start a Python of their own several times a minute, on a tenth of a processor."""
    heavy = "{'sqlalchemy', 'asyncpg', 'alembic', 'aiohttp', 'httpx', 'rich'}"
    program = f"import sys, syncd.ops.probe; print(*sorted({heavy} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.split() == []
