"""What the embedded server will not start on, in one sentence each: wrong directories, wrong binaries, full disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.store.embedded import EmbeddedPostgres
from tests.support.embedded import reachable_directory, word_of

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NOBODY = 65534


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    with reachable_directory(tmp_path) as directory:
        yield directory


async def test_data_dir_that_is_a_file_is_refused(empty: Path) -> None:
    """A slip in a settings file must read as one."""
    (empty / "file").write_text("", encoding="utf-8")
    for path in (empty / "file", empty / "file" / "below"):
        with pytest.raises(ConfigurationError, match="is not a directory"):
            await EmbeddedPostgres(path).start()


async def test_directory_named_postgres_that_is_no_cluster_is_left_alone(empty: Path) -> None:
    """Whatever lies there belongs to somebody."""
    (empty / "postgres").mkdir()
    (empty / "postgres" / "letter.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is not a Postgres cluster"):
        await EmbeddedPostgres(empty).start()
    assert (empty / "postgres" / "letter.txt").exists()


async def test_cluster_of_another_version_says_which_one_is_needed(empty: Path) -> None:
    """After an upgrade of the wheel the old data must neither be opened wrongly nor quietly replaced."""
    (empty / "postgres").mkdir()
    (empty / "postgres" / "PG_VERSION").write_text("9\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 9 and no binaries of that version were found"):
        await EmbeddedPostgres(empty).start()


async def test_configured_directory_without_programs_is_refused(empty: Path) -> None:
    """Who names a directory means it: taking other binaries instead would hide the slip."""
    with pytest.raises(ConfigurationError, match="not a directory of Postgres programs"):
        await EmbeddedPostgres(empty / "data", binaries=empty).start()


async def test_configured_binaries_that_are_too_old_are_refused(empty: Path) -> None:
    """The schema needs NULLS NOT DISTINCT; an old server would fail in the middle of a migration instead."""
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 12\.3 is older than 15"):
        await EmbeddedPostgres(empty / "data", binaries=programs(empty / "bin", version="12.3")).start()


async def test_disk_that_fills_up_in_initdb_is_one_sentence(empty: Path) -> None:
    """A full disk is the most ordinary bad day of all: say what to free, and be ready for the next start."""
    full = programs(empty / "bin", initdb='initdb: error: could not write to file "pg_wal": No space left on device')
    with pytest.raises(InfrastructureError, match=r"is full: free at least 200 MB .*no data was lost"):
        await EmbeddedPostgres(empty / "data", binaries=full).start()
    assert not (empty / "data" / "postgres").exists()
    async with EmbeddedPostgres(empty / "data", is_durable=False) as url:
        assert await word_of(url) == "mirrored"


@only_root
async def test_really_full_disk_at_first_and_at_later_starts(empty: Path) -> None:
    """The real messages of real programs, on a real full file system; with room again, the same start works."""
    with mounted(empty / "disk", megabytes=12) as disk, pytest.raises(InfrastructureError, match="is full"):
        await EmbeddedPostgres(disk).start()
    with mounted(empty / "disk", megabytes=160) as disk:
        async with EmbeddedPostgres(disk, is_durable=False) as url:
            assert await word_of(url) == "mirrored"
        fill(disk / "filler")
        with pytest.raises(InfrastructureError, match="is full"):
            await EmbeddedPostgres(disk, is_durable=False).start()
        (disk / "filler").unlink()
        async with EmbeddedPostgres(disk, is_durable=False) as url:
            assert await word_of(url) == "mirrored"


def programs(directory: Path, *, version: str = "18.6", initdb: str = "") -> Path:
    """Make programs that say a version and, for initdb, fail with a message."""
    directory.mkdir()
    for name, script in {
        "postgres": f"echo 'postgres (PostgreSQL) {version}'",
        "initdb": f"echo '{initdb}' >&2; exit 1",
        "pg_ctl": "exit 1",
    }.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (directory / name).chmod(0o755)
    return directory


class mounted:
    """A small file system of its own in memory; skips the test where mounting is not allowed."""

    def __init__(self, place: Path, *, megabytes: int) -> None:
        self._place = place
        self._size = f"size={megabytes}m"

    def __enter__(self) -> Path:
        self._place.mkdir(exist_ok=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self._size, "syncd-test", self._place], capture_output=True, timeout=20
        )
        if made.returncode != 0:
            pytest.skip("this machine allows no mounts")
        return self._place

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self._place], check=True, timeout=20)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 20))
        except OSError:
            pass
        try:
            while True:
                filler.write(bytes(512))
        except OSError:
            pass
