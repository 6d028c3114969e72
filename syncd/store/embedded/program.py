"""Run one of Postgres' programs to its end: bounded in time, as the server's user, with a bare environment."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from syncd.domain.errors import InfrastructureError
from syncd.store.embedded.owner import Owner

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZDIR")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; ``output`` is what it wrote to both streams."""

    code: int
    output: str


def bare_environment() -> dict[str, str]:
    """Return the environment for Postgres: no secret of ours, no PG variable of the caller's, messages in English."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C"}


async def run(program: Path, *arguments: str, owner: Owner, timeout_s: float) -> Ended:
    """Run a program in a session of its own, so that a Ctrl-C in our terminal does not reach it."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env=bare_environment(),
        start_new_session=True,
        **owner.identity,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        raise InfrastructureError(f"{program.name} did not end within {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(errors="replace"))
