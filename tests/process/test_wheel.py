"""The wheel: what is installed must work where no checkout is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import text

from syncd.store import Store
from tests.conftest import admin, database_url
from tests.support.commands import ROOT

SOURCES = ("syncd", "migrations", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this checkout, unpacked as an installer does."""
    directory = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = ROOT / name, directory / "source" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        str(directory),
    ]
    result = subprocess.run(
        [*build, "./source"], cwd=directory, capture_output=True, text=True, timeout=240, check=False
    )
    if result.returncode and "hatchling" in result.stderr and "No matching distribution" in result.stderr:
        pytest.skip("the build backend cannot be had here")
    assert result.returncode == 0, result.stderr
    (wheel,) = directory.glob("*.whl")
    site = directory / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    found = run(site, directory, "-c", "import syncd; print(syncd.__file__)")
    assert found.stdout.startswith(str(site)), "the tests below would judge the checkout"
    return site


def run(installed: Path, cwd: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the installed package, with the checkout nowhere on the path."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SYNCD_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**bare, **settings, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
async def test_installed_package_migrates_outside_the_checkout(
    installed: Path, tmp_path: Path, server_url: str
) -> None:
    """Migrations that are only in the repository are migrations that production does not have."""
    name = f"syncd_test_wheel_{os.getpid()}"
    await admin(server_url, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    url = database_url(server_url, name)
    try:
        migrated = await asyncio.to_thread(run, installed, tmp_path, "-m", "syncd", "migrate", SYNCD_DATABASE_URL=url)
        assert migrated.returncode == 0, migrated.stderr
        assert "Traceback" not in migrated.stderr
        status = await asyncio.to_thread(run, installed, tmp_path, "-m", "syncd", "status", SYNCD_DATABASE_URL=url)
        assert status.returncode == 0, status.stderr
        store = Store.open(url, pool_size=1)
        try:
            async with store.begin() as connection:
                assert (await connection.execute(text("SELECT to_regclass('crm.relations')"))).scalar_one() is not None
        finally:
            await store.close()
    finally:
        await admin(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.slow
def test_wheel_carries_every_sql_file_and_the_types(installed: Path) -> None:
    """A file that the build leaves out is missed at the worst moment."""
    for path in sorted((ROOT / "migrations").rglob("*.*")):
        if path.suffix in (".sql", ".py"):
            assert (installed / "syncd" / path.relative_to(ROOT)).is_file(), path.name
    assert (installed / "syncd" / "py.typed").is_file()
    assert not list(installed.rglob("tests"))


@pytest.mark.slow
def test_installed_command_has_an_entry_point(installed: Path) -> None:
    """`syncd`, and the provider's announcement, come from the metadata."""
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "syncd = syncd.cli:main" in points.read_text()
    assert "autorespond = syncd.providers.autorespond:provider" in points.read_text()
