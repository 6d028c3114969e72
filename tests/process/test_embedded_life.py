"""The embedded server's life: made, shared, left behind, adopted, killed and started again, always with its data."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from syncd.domain.errors import InfrastructureError
from syncd.store.embedded import EmbeddedPostgres, server
from syncd.store.embedded.layout import Layout
from syncd.store.embedded.lock import FileLock
from syncd.store.embedded.owner import choose_owner
from syncd.store.embedded.server import launch
from tests.support.embedded import (
    User,
    gone,
    is_noted,
    is_running,
    postmaster,
    reachable_directory,
    remains_of_initdb,
    until,
)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """A data directory without a cluster."""
    with reachable_directory(tmp_path) as directory:
        yield directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory whose cluster has been made once, for all tests that start warm."""
    with reachable_directory(tmp_path_factory.getbasetemp()) as directory:

        async def make() -> None:
            async with EmbeddedPostgres(directory, is_durable=False) as url:
                await run(url, "CREATE TABLE kept (word text)")

        asyncio.run(make())
        yield directory


@pytest.fixture
async def home(made: Path) -> AsyncIterator[Path]:
    """The made data directory; whatever a test left running in it is stopped, and that must succeed."""
    yield made
    embedded = EmbeddedPostgres(made, is_durable=False)
    url = await embedded.start()
    await run(url, "TRUNCATE kept")
    await embedded.stop()
    assert not (made / "postgres" / "postmaster.pid").exists()


@pytest.fixture
def stranger(home: Path) -> Iterator[int]:
    """The process id of another process of the server's user that has nothing to do with Postgres."""
    owner = choose_owner(Layout.of(home))
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, start_new_session=True, **owner.identity)
    yield process.pid
    process.communicate(timeout=10)


async def kill_postmaster(data_dir: Path) -> int:
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    return pid


def name_in_pid_files(data_dir: Path, pid: int) -> None:
    """Let the files that a dead server left behind name another process, as if its id had been given anew."""
    for remainder in (data_dir / "postgres" / "postmaster.pid", data_dir / "postgres-socket" / ".s.PGSQL.5432.lock"):
        lines = remainder.read_text(encoding="utf-8").splitlines()
        remainder.write_text("\n".join([str(pid), *lines[1:]]) + "\n", encoding="utf-8")


async def run(url: str, statement: str) -> list[object]:
    """Run one statement in a connection of its own and return the first column."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [row[0] for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def environment_of(pid: int) -> bytes:
    return Path("/proc", str(pid), "environ").read_bytes()


async def test_cold_start_makes_a_durable_private_server(empty: Path) -> None:
    """What it is by default is what people keep their customers in: safe writes, no network, no other user."""
    async with EmbeddedPostgres(empty) as url:
        wanted = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "listen_addresses": ""}
        wanted |= {"server_encoding": "UTF8", "TimeZone": "UTC"}
        for name, value in wanted.items():
            assert await run(url, f"SHOW {name}") == [value]
        assert await run(url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == ["C"]
        pid = postmaster(empty)
        assert mode(str(make_url(url).query["host"])) == 0o700, "beside the data only where that path is short enough"
        assert mode(empty / "postgres") == 0o700
    await gone(pid)
    assert not remains_of_initdb(empty)


def mode(path: Path | str) -> int:
    return os.stat(path).st_mode & 0o777


async def test_warm_start_keeps_the_data(home: Path) -> None:
    """A restart is the most ordinary thing that happens to a daemon."""
    async with EmbeddedPostgres(home, is_durable=False) as url:
        await run(url, "INSERT INTO kept VALUES ('before')")
    async with EmbeddedPostgres(home, is_durable=False) as url:
        assert await run(url, "SELECT word FROM kept") == ["before"]


async def test_last_of_two_processes_to_leave_stops_the_server(home: Path) -> None:
    """`syncd status` beside the daemon must neither need a second server nor take the daemon's away."""
    first, second = await User.spawn(home), await User.spawn(home)
    url = await first.said()
    assert await second.said() == url
    pid = postmaster(home)
    await first.leave()
    assert await run(url, "SELECT 1") == [1]
    assert postmaster(home) == pid
    await second.leave()
    await gone(pid)


async def test_two_cold_starts_at_once_make_one_cluster(empty: Path) -> None:
    """A daemon and a command may both be the first: two clusters would be two truths."""
    first, second = await User.spawn(empty), await User.spawn(empty)
    assert await first.said() == await second.said()
    await first.leave()
    await second.leave()
    assert not remains_of_initdb(empty)


async def test_server_of_a_killed_parent_is_adopted(home: Path) -> None:
    """kill -9, or the kernel short of memory, leaves the server behind: the next start joins it and owns its end."""
    parent = await User.spawn(home)
    url = await parent.said()
    await run(url, "INSERT INTO kept VALUES ('orphan')")
    pid = postmaster(home)
    await parent.kill()
    assert is_running(pid)
    async with EmbeddedPostgres(home, is_durable=False) as adopted:
        assert adopted == url
        assert postmaster(home) == pid
        assert await run(adopted, "SELECT word FROM kept") == ["orphan"]
    await gone(pid)


async def test_killed_postmaster_is_revived_with_its_data(home: Path) -> None:
    """Whoever kills the server must cost us a reconnect and nothing that was committed."""
    embedded = EmbeddedPostgres(home)
    async with embedded as url:
        assert not await embedded.revive()
        await run(url, "INSERT INTO kept VALUES ('committed')")
        killed = await kill_postmaster(home)
        assert await embedded.revive()
        assert await run(url, "SELECT word FROM kept") == ["committed"]
        assert postmaster(home) != killed


async def test_start_survives_a_pid_file_that_names_a_stranger(home: Path, stranger: int) -> None:
    """After a restart of a container the old process id belongs to somebody else, often to ourselves."""
    embedded = EmbeddedPostgres(home)
    async with embedded as url:
        await run(url, "INSERT INTO kept VALUES ('still here')")
        await kill_postmaster(home)
        name_in_pid_files(home, stranger)
        assert await embedded.revive()
        assert await run(url, "SELECT word FROM kept") == ["still here"]


async def test_leaving_a_dead_server_signals_no_stranger(home: Path, stranger: int) -> None:
    """pg_ctl would interrupt whoever has the old process id now; the last to leave must know that nothing is left."""
    async with EmbeddedPostgres(home, is_durable=False):
        await kill_postmaster(home)
        name_in_pid_files(home, stranger)
    assert is_running(stranger)


async def test_no_second_server_while_anything_of_the_first_lives(home: Path) -> None:
    """Two postmasters on one cluster destroy it: while the first one's children live, a start waits, then gives up."""
    layout = Layout.of(home)
    with closing(FileLock(layout.life_lock, choose_owner(layout))) as life:
        assert life.try_alone()
        with pytest.raises(InfrastructureError, match="does not answer"):
            await EmbeddedPostgres(home, is_durable=False, timeout_s=0.3).start()
        assert not (home / "postgres" / "postmaster.pid").exists()


async def test_running_server_and_its_children_hold_the_life_lock(home: Path) -> None:
    """The lock is only as good as its inheritance: without it the test above would prove nothing."""
    async with EmbeddedPostgres(home, is_durable=False):
        layout = Layout.of(home)
        with closing(FileLock(layout.life_lock, choose_owner(layout))) as life:
            assert not life.try_alone()


async def test_kill_during_initdb_leaves_no_half_cluster(empty: Path) -> None:
    """The first start is the slowest, so it is the one that people interrupt."""
    interrupted = await User.spawn(empty)
    await until(lambda: any((unfinished / "PG_VERSION").exists() for unfinished in remains_of_initdb(empty)))
    await interrupted.kill()
    assert not (empty / "postgres").exists()
    async with EmbeddedPostgres(empty, is_durable=False) as url:
        assert await run(url, "SELECT 1") == [1]


async def test_interrupt_from_the_terminal_reaches_syncd_and_not_the_server(home: Path) -> None:
    """Ctrl-C goes to every process of the terminal's group: the daemon must still be able to settle what it sent."""
    user = await User.spawn(home)
    await user.said()
    os.killpg(user.process.pid, signal.SIGINT)
    assert await user.said() == "drained 1"
    assert await user.said() == "left"
    await user.complaint()


async def test_cancelled_start_leaves_nothing_running(home: Path) -> None:
    """Ctrl-C in the second in which the server comes up must not leave it to nobody."""
    starting = asyncio.create_task(EmbeddedPostgres(home, is_durable=False).start())
    await until(lambda: is_noted(home))
    pid = postmaster(home)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await gone(pid)


async def test_start_cancelled_before_the_server_has_a_name_leaves_nothing_running(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its launch and its postmaster.pid a server is known by its lock alone; it must stop all the same."""
    launched: list[subprocess.Popen[bytes]] = []

    def launch_and_notice(*arguments: object) -> subprocess.Popen[bytes]:
        process = launch(*arguments)  # type: ignore[arg-type]
        process.send_signal(signal.SIGSTOP)  # a slow machine, made slower
        asyncio.get_running_loop().call_later(0.3, process.send_signal, signal.SIGCONT)
        starting.cancel()
        launched.append(process)
        return process

    monkeypatch.setattr(server, "launch", launch_and_notice)
    starting = asyncio.create_task(EmbeddedPostgres(home, is_durable=False).start())
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert len(launched) == 1
    await gone(launched[0].pid)


async def test_server_starts_over_an_empty_pid_file(home: Path) -> None:
    """A server that died while it wrote postmaster.pid leaves it empty, and Postgres alone would refuse to start."""
    owner = choose_owner(Layout.of(home))
    os.close(owner.open(home / "postgres" / "postmaster.pid", os.O_WRONLY))
    async with EmbeddedPostgres(home, is_durable=False) as url:
        assert await run(url, "SELECT 1") == [1]


async def test_server_inherits_neither_secrets_nor_the_callers_postgres_variables(home: Path) -> None:
    """/proc shows a process' environment to its user, and Postgres would obey PGPORT and PGDATA."""
    user = await User.spawn(home, environ={"SYNCD_AUTORESPOND_KEY": "canary", "PGPORT": "6543", "PGDATABASE": "other"})
    url = await user.said()
    assert await run(url, "SELECT 1") == [1]
    environment = environment_of(postmaster(home))
    assert b"LC_ALL=C" in environment
    assert b"canary" not in environment
    assert b"PGPORT" not in environment
    await user.leave()
