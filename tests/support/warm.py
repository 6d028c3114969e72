"""A warm process that forks commands: each as good as a start of ``python -m syncd``, without the second of importing.

What is warm are the libraries that others wrote, and nothing of ours: a forked command imports ``syncd`` by itself, in
its own order, so what it forgets to import is still missed. Its arguments, environment, directory and pipes are those
that it is given, and the interpreter ends as after ``-m``. Never for a process that is stopped, killed or watched while
it runs: ``spawn`` starts those as a user does.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

LIBRARIES = (
    "aiohttp.web",
    "alembic.command",
    "apscheduler.schedulers.asyncio",
    "asyncpg",
    "click",
    "httpx",
    "msgspec.json",
    "prometheus_client",
    "pydantic_settings",
    "rich.console",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "structlog",
)
_LONGEST_ORDER = 1 << 17


async def run(arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], within_s: float) -> tuple[int, str, str]:
    """Run one command to its end; return its exit code, its output and its errors. It is killed when it takes longer.

    Raises TimeoutError then.
    """
    ends = [os.pipe() for _ in range(3)]
    order = {"arguments": list(arguments), "cwd": os.fspath(cwd), "environ": dict(environ)}
    socket.send_fds(_warmed(), [json.dumps(order).encode()], [write for _, write in ends])
    for _, write in ends:
        os.close(write)
    reading = [asyncio.create_task(_read(read)) for read, _ in ends[:2]]
    ending = await _reader(ends[2][0])
    pid = int(await ending.readline())
    try:
        async with asyncio.timeout(within_s):
            out, err = [(await each).decode() for each in reading]
            return int(await ending.read()), out, err
    finally:
        for each in reading:
            if not each.done():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                each.cancel()


async def _read(end: int) -> bytes:
    return await (await _reader(end)).read()


async def _reader(end: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(end, "rb", buffering=0)
    )
    return reader


@cache
def _warmed() -> socket.socket:
    """Start the warm process of this one; it ends when this one does, because nobody holds the socket then."""
    from tests.support.commands import ROOT, environment

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        ).returncode = 0  # nobody waits for it, nor need be warned of that
    return ours


def serve(orders: socket.socket) -> list[str]:
    """Fork a command for each order until nobody can give any. Returns in each child, with the command's arguments."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    _tell(key.fd, *running.pop(key.fd))
                    continue
                order, ends, _, _ = socket.recv_fds(orders, _LONGEST_ORDER, 3)
                if not order:
                    raise SystemExit
                if (pid := os.fork()) == 0:
                    return _become(json.loads(order), ends)
                watched = os.pidfd_open(pid)
                running[watched] = (pid, ends[2])
                os.write(ends[2], b"%d\n" % pid)
                for end in ends[:2]:
                    os.close(end)
                selector.register(watched, selectors.EVENT_READ)


def _tell(watched: int, pid: int, end: int) -> None:
    """Reap a command and say how it ended."""
    os.close(watched)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(end, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(end)


def _become(order: dict[str, object], ends: list[int]) -> list[str]:
    """Make this forked process the one that was ordered."""
    os.dup2(ends[0], 1)
    os.dup2(ends[1], 2)
    os.closerange(3, max(ends) + 1)
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    time.tzset()
    os.chdir(str(order["cwd"]))
    sys.path[0] = os.getcwd()
    return list(order["arguments"])  # type: ignore[call-overload, no-any-return]


if __name__ == "__main__":
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv[1:] = arguments
    runpy.run_module("syncd", run_name="__main__", alter_sys=True)
