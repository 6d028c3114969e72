"""Real processes: ``python -m syncd`` as a user starts it, and the doors through which tests disturb it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from syncd.sandbox import Sandbox
from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of ours, and with the given ones (prefix left out)."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SYNCD_")}
    bare.pop("PYTHONDONTWRITEBYTECODE", None)  # dozens of processes: each would compile every library anew
    bare.setdefault("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / f"syncd-bytecode-{os.geteuid()}"))
    path = os.pathsep.join(part for part in (str(ROOT), bare.get("PYTHONPATH", "")) if part)
    return {**bare, "PYTHONPATH": path, **{f"SYNCD_{name.upper()}": value for name, value in settings.items()}}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. ``both`` is everything it ever said."""

    code: int
    out: str
    err: str

    @property
    def both(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


async def syncd(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, **settings: str) -> Ended:
    """Run one command to its end, from a warm process: see there."""
    return Ended(*await warm.run(arguments, cwd, {**environment(**settings), **(env or {})}, PATIENCE_S))


async def spawn(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, **settings: str
) -> asyncio.subprocess.Process:
    """Start one command, with pipes for what it says."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "syncd",
        *arguments,
        cwd=cwd,
        env={**environment(**settings), **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )


async def reap(process: asyncio.subprocess.Process) -> None:
    """Leave nothing running."""
    if process.returncode is None:
        process.kill()
        await process.wait()


@dataclass(slots=True)
class Daemon:
    """A running ``syncd run`` whose log lines are read as events."""

    process: asyncio.subprocess.Process
    events: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def until(self, event: str, **fields: object) -> dict[str, Any]:
        """Read on until a line of this event with these fields comes; fail when the process ends first."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (line := await self._line()) is not None:
                    if line.get("event") == event and all(line.get(name) == value for name, value in fields.items()):
                        return line
        except TimeoutError:
            pass
        raise AssertionError(f"no {event}; it said:\n" + "\n".join(self.said))

    async def ended(self) -> int:
        """Read to the end and return the exit code."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._line() is not None:
                pass
            return await self.process.wait()

    async def stopped(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.ended()

    def count(self, event: str) -> int:
        return sum(line.get("event") == event for line in self.events)

    async def _line(self) -> dict[str, Any] | None:
        assert self.process.stderr is not None
        raw = await self.process.stderr.readline()
        if not raw:
            return None
        text = raw.decode().rstrip("\n")
        self.said.append(text)
        found = json.loads(text) if text.startswith("{") else {}
        self.events.append(found)
        return dict(found)


@asynccontextmanager
async def daemon(cwd: Path, env: Mapping[str, str] | None = None, **settings: str) -> AsyncIterator[Daemon]:
    """Run the daemon for the length of the block; killed at its end if the test did not stop it."""
    quick = {"rate_per_s": "1000", "log_format": "json", "ops_port": "0", "replica_lease_s": "3"}
    process = await spawn("run", cwd=cwd, env=env, **{**quick, **settings})
    try:
        yield Daemon(process)
    finally:
        await reap(process)


def accounts_file(directory: Path, **crms: Sandbox) -> Path:
    """Write a file of accounts, each with its own CRM, as a user would."""
    path = directory / "accounts.toml"
    path.write_text(
        "\n".join(
            f"[accounts.{name}]\nadmin = '{crm.admin}'\nkey = '{crm.key}'\nbase_url = '{crm.base_url}'"
            for name, crm in crms.items()
        )
    )
    path.chmod(0o600)
    return path


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """A TCP door to the test database that can be shut and opened: a database that is away without being stopped."""

    def __init__(self, database_url: str) -> None:
        self._target = make_url(database_url)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        query = {name: value for name, value in self._target.query.items() if name not in ("host", "port")}
        through = self._target.set(host="127.0.0.1", port=self.port, query=query)
        if "user" in query:
            through = through.set(username=str(query["user"]), query={k: v for k, v in query.items() if k != "user"})
        return through.render_as_string(hide_password=False)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Refuse new connections and break those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, there_writer}
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            self._open -= {writer, there_writer}
            writer.transport.abort()
            there_writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = str(self._target.query.get("host") or self._target.host or "127.0.0.1")
        port = int(str(self._target.query.get("port") or self._target.port or 5432))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.transport.abort()


@asynccontextmanager
async def proxied(database_url: str, *, is_open: bool = True) -> AsyncIterator[Proxy]:
    """A proxy for the length of the block."""
    proxy = Proxy(database_url)
    if is_open:
        await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
