"""Embedded servers for tests: quick ones to share, and directories that the server's user can reach."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from syncd.store.embedded import EmbeddedPostgres

MEMORY = Path("/dev/shm")


@contextmanager
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server without fsync, as the URL of its maintenance database; stopped and removed at the end.

    It lies in memory where there is room: each test clones a database of some 400 files, which a disk takes twice as
    long for, and far longer when it is busy.
    """
    with _quick_directory(tmp_path_factory.getbasetemp()) as directory:
        embedded = EmbeddedPostgres(directory, is_durable=False)
        url = asyncio.run(embedded.start())
        try:
            yield make_url(url).set(database="postgres").render_as_string()
        finally:
            asyncio.run(embedded.stop())


@contextmanager
def _quick_directory(preferred: Path) -> Iterator[Path]:
    """An empty directory in shared memory, or in the usual place where that is missing or small."""
    if not _has_room(MEMORY):
        with reachable_directory(preferred) as directory:
            yield directory
        return
    directory = Path(tempfile.mkdtemp(prefix="syncd-", dir=MEMORY))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _has_room(place: Path) -> bool:
    """Tell whether a place takes files of a few gigabytes: containers often give shared memory 64 MB."""
    return place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 6 * 1024**3


@contextmanager
def reachable_directory(preferred: Path) -> Iterator[Path]:
    """An empty directory; root's temporary directories are closed to the server's user, so root gets one in /tmp."""
    parent = Path("/tmp") if os.geteuid() == 0 else preferred
    directory = Path(tempfile.mkdtemp(prefix="syncd-", dir=parent))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


class User:
    """Another process that uses the embedded server until it is told to leave, or killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""

    @classmethod
    async def spawn(cls, data_dir: Path, *, uid: int | None = None, environ: dict[str, str] | None = None) -> User:
        """Start a process in a group of its own, as a terminal would; it has not reached the server yet."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.server_user", os.fspath(data_dir)),
            *(() if uid is None else (str(uid),)),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"} | (environ or {}),
            process_group=0,
        )
        return cls(process)

    async def said(self) -> str:
        """Return the next line that it prints; its URL is the first."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            line = (await self.process.stdout.readline()).decode().strip()
        assert line, await self.complaint()
        return line

    async def complaint(self) -> str:
        """Return what it wrote to stderr before it ended."""
        async with asyncio.timeout(60):
            _, errors = await self.process.communicate()
        return errors.decode()

    async def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"leave\n")
        assert await self.said() == "left"
        await self.complaint()

    async def kill(self) -> None:
        self.process.kill()
        await self.complaint()


def postmaster(data_dir: Path) -> int:
    """Return the process id of the server of a data directory."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


def is_noted(data_dir: Path) -> bool:
    """Tell whether the server has noted its process id: the file is there a moment before it is filled."""
    file = data_dir / "postgres" / "postmaster.pid"
    return file.exists() and file.read_text(encoding="utf-8").strip() != ""


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watched, ended.set)
    try:
        async with asyncio.timeout(30):
            await ended.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)


def is_running(pid: int) -> bool:
    """Tell whether a process runs; a zombie has ended."""
    try:
        return Path("/proc", str(pid), "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another process does to files, which nobody can announce."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - files announce nothing
            await asyncio.sleep(0)


def remains_of_initdb(data_dir: Path) -> list[Path]:
    return list(data_dir.glob(".postgres-initdb-*"))


def owner_of(path: Path) -> int:
    return path.lstat().st_uid


def uid_of(pid: int) -> int:
    return owner_of(Path("/proc", str(pid)))


def program_of(pid: int) -> Path:
    return Path("/proc", str(pid), "exe").readlink()


async def word_of(url: str) -> str:
    """Write a word through a connection of its own and read it back: ``mirrored``."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute("CREATE TEMPORARY TABLE words (word text); INSERT INTO words VALUES ('mirrored')")
        return str(await connection.fetchval("SELECT word FROM words"))
    finally:
        await connection.close()
