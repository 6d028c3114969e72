"""The server process: launched into a session of its own, stopped by ``pg_ctl``, known to live by its lock.

A ``postmaster.pid`` that outlived its server names a process id that anything may have by now (in a container, often
ourselves), and Postgres then refuses to start. Whoever holds the life lock knows that no server of this data directory
is left and that the file is a mere remainder; a server that somebody started by hand is recognised by its command line.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from syncd.store.embedded.installation import Installation
from syncd.store.embedded.layout import SOCKET_NAME, Layout
from syncd.store.embedded.lock import FileLock
from syncd.store.embedded.owner import Owner
from syncd.store.embedded.program import bare_environment, run
from syncd.store.embedded.troubles import trouble

_STOP_TIMEOUT_S = 120
# How long a server that comes up or goes down may live without a noted process id, and how often to look.
_NAMELESS_S, _LOOK_S = 10.0, 0.01
_LONGEST_LOG = 16 * 1024 * 1024
_GONE = ("does not exist", "No such process", "Is server running?")


def launch(installation: Installation, directory: Path, life: FileLock) -> subprocess.Popen[bytes]:
    """Start the postmaster, which inherits ``life``. The caller holds the start lock and ``life`` alone."""
    layout, owner = installation.layout, installation.owner
    _forget_dead_server(layout, directory)
    log = _open_log(layout, owner)
    program = os.fspath(installation.program("postgres"))
    try:
        process = subprocess.Popen(
            [program, "-D", os.fspath(layout.cluster), *_settings(directory, installation.is_durable)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=bare_environment(),
            start_new_session=True,
            pass_fds=(life.file,),
            **owner.identity,
        )
    finally:
        os.close(log)
    threading.Thread(target=process.wait, name="syncd-postgres-reaper", daemon=True).start()
    return process


async def halt(installation: Installation) -> None:
    """Stop the server: sessions are cut off, everything committed is on disk. Does nothing when none of ours runs.

    ``pg_ctl`` signals the process id that it finds in a file, so first it must be sure that this is still the server.
    """
    layout, owner = installation.layout, installation.owner
    pid = await _pid_of_living(layout, owner)
    if pid is None or not _is_postmaster(pid, layout):
        return
    ended = await run(
        installation.program("pg_ctl"),
        *("stop", "-D", os.fspath(layout.cluster), "-m", "fast", "-w", "-t", str(_STOP_TIMEOUT_S)),
        owner=owner,
        timeout_s=_STOP_TIMEOUT_S + 10,
    )
    if ended.code != 0 and not any(sign in ended.output for sign in _GONE):
        raise trouble(layout, owner.name, ended.output)


def log_size(layout: Layout) -> int:
    try:
        return layout.log.stat().st_size
    except FileNotFoundError:
        return 0


def log_since(layout: Layout, mark: int) -> str:
    """Return what the server has logged since ``log_size`` said ``mark``."""
    with layout.log.open("rb") as log:
        log.seek(mark if mark <= log_size(layout) else 0)
        return log.read(65536).decode(errors="replace")


async def _pid_of_living(layout: Layout, owner: Owner) -> str | None:
    """Return the noted process id while a server lives, None once none does.

    One that was launched a moment ago has not noted it yet: to take it for none would leave it running for nobody.
    """
    try:
        async with asyncio.timeout(_NAMELESS_S):
            while _is_alive(layout, owner):
                if (pid := _noted_pid(layout.cluster / "postmaster.pid")) is not None:
                    return pid
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        pass
    return None


def _is_alive(layout: Layout, owner: Owner) -> bool:
    life = FileLock(layout.life_lock, owner)
    try:
        return not life.try_alone()
    finally:
        life.close()


def _settings(directory: Path, is_durable: bool) -> Iterator[str]:
    durable = "on" if is_durable else "off"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": os.fspath(directory),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "fsync": durable,
        "full_page_writes": durable,
        "synchronous_commit": "on",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
        "log_checkpoints": "off",
        "logging_collector": "off",
    }
    for name, value in settings.items():
        yield from ("-c", f"{name}={value}")


def _open_log(layout: Layout, owner: Owner) -> int:
    """Open the server's log for appending; a long one is set aside, and the one before that is dropped."""
    if log_size(layout) > _LONGEST_LOG:
        layout.log.replace(layout.log.with_suffix(".log.1"))
    return owner.open(layout.log, os.O_WRONLY | os.O_APPEND)


def _forget_dead_server(layout: Layout, directory: Path) -> None:
    for remainder in (layout.cluster / "postmaster.pid", directory / f"{SOCKET_NAME}.lock"):
        pid = _noted_pid(remainder)
        if pid is None or not _is_postmaster(pid, layout):
            remainder.unlink(missing_ok=True)


def _noted_pid(file: Path) -> str | None:
    """Return the process id that a lock file of Postgres begins with; a standalone backend notes a negative one.

    None when there is no file, or none is written in it yet: Postgres makes the file before it fills it.
    """
    try:
        noted = file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip().lstrip("-")
    except FileNotFoundError:
        return None
    return noted if noted.isascii() and noted.isdigit() else None


def _is_postmaster(pid: str, layout: Layout) -> bool:
    """Tell whether a process is a postmaster of this cluster; where that cannot be read, let Postgres judge."""
    try:
        arguments = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    except OSError:
        return True
    program = os.path.basename(arguments[0])
    return program in (b"postgres", b"postmaster") and (
        os.fsencode(layout.cluster) in arguments or b"-D" not in arguments
    )
