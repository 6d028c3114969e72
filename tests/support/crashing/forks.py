"""The parent's side of ``child``: start drainers and pullers, see them end, kill them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.commands import ROOT, environment

KILLED = -signal.SIGKILL


@dataclass(slots=True)
class Forks:
    """A warm process that forks drainers."""

    process: asyncio.subprocess.Process
    complaints: Path
    _forked: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    _codes: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, order: Mapping[str, Any], work: str = "drain") -> int:
        """Start one drainer or puller and return its process id."""
        async with self._turn:
            self._tell({work: order})
            return await self._forked.get()

    async def ended(self, pid: int) -> int:
        """Wait until a drainer has ended, reaped and all; return its exit code, negative for a signal."""
        async with asyncio.timeout(90):
            return await asyncio.shield(self._code(pid))

    async def kill(self, pid: int) -> int:
        """Kill a drainer that may be at its end already, and return how it ended."""
        self._tell({"kill": pid})
        return await self.ended(pid)

    def _tell(self, order: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")

    def _code(self, pid: int) -> asyncio.Future[int]:
        if pid not in self._codes:
            self._codes[pid] = asyncio.get_running_loop().create_future()
        return self._codes[pid]

    async def listen(self, ready: asyncio.Event) -> None:
        """Read what it says until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            match said["event"]:
                case "ready":
                    ready.set()
                case "forked":
                    self._codes.pop(said["pid"], None)  # the system may give a number again
                    self._code(said["pid"])
                    self._forked.put_nowait(said["pid"])
                case "ended":
                    self._code(said["pid"]).set_result(said["code"])


@asynccontextmanager
async def forks(directory: Path) -> AsyncIterator[Forks]:
    """Run the warm process for the length of the block; what its drainers complain of is in a file there."""
    complaints = directory / "complaints.txt"
    with complaints.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.crashing.child"),
            cwd=ROOT,
            env={**environment(), "SSL_CERT_FILE": os.devnull},  # nothing here is encrypted: save each its reading
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    warm, ready = Forks(process, complaints), asyncio.Event()
    listening = asyncio.create_task(warm.listen(ready))
    try:
        async with asyncio.timeout(60):
            await ready.wait()
        yield warm
    finally:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        await process.wait()
        await listening
