"""The floors of the house: who may import whom, and which floor may know the world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "syncd"
PURE = ("domain", "policy", "providers")
WORLDLY = {"time", "random", "secrets", "uuid", "os", "socket", "subprocess"} | {
    "asyncio",
    "pathlib",
    "tempfile",
    "logging",
}


def modules(*floors: str) -> list[Path]:
    return sorted(path for floor in floors for path in (PACKAGE / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_import_linter_contracts_hold() -> None:
    """One import in the wrong direction and the floors are only a drawing."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", modules(*PURE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_floors_know_neither_world_nor_third_parties(path: Path) -> None:
    """Decisions and translations are tested from values alone only while they cannot reach for anything else."""
    allowed = set(sys.stdlib_module_names) | {"msgspec", "syncd"}
    tops = {name.partition(".")[0] for name in imported(path)}
    assert not tops - allowed
    assert not tops & WORLDLY


def test_only_the_clock_reads_time_and_chance() -> None:
    """A second home of time is a test that sleeps."""
    offenders: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("clock.py", "clock", "sandbox", "demo"):
            continue
        offenders += [f"{path.relative_to(ROOT)}:{line}" for line in _clock_calls(path)]
    assert not offenders


def _clock_calls(path: Path) -> list[int]:
    """Line numbers of calls that read the wall clock or roll dice."""
    banned = {("datetime", "now"), ("datetime", "utcnow"), ("time", "time"), ("random", "random")}
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in banned
    ]


def test_contracts_cover_every_floor() -> None:
    """A package that no contract names stands outside the house."""
    contracts = (ROOT / "pyproject.toml").read_text()
    floors = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert {floor for floor in floors if f'"{floor}' not in contracts and f"syncd.{floor}" not in contracts} - {
        "inbound",
        "outbound",
        "transport",
        "store",
    } == set()
