"""From a data directory to a server that answers: join it, wait for it, or start it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import assert_never

import asyncpg

from syncd.domain.errors import InfrastructureError
from syncd.store.embedded import server
from syncd.store.embedded.cluster import ensure_cluster
from syncd.store.embedded.installation import Installation
from syncd.store.embedded.lock import FileLock
from syncd.store.embedded.socket import Answer, ensure_database, make_socket_dir, probe, socket_dir
from syncd.store.embedded.troubles import disk_full, trouble

_POLL_S = 0.02


async def serve(installation: Installation, *, timeout_s: float) -> Path:
    """Return the socket directory of a server that answers and has syncd's database.

    The caller holds the start lock alone. A long recovery is waited for; past ``timeout_s`` it goes on by itself and
    the next start joins it.
    """
    await ensure_cluster(installation)
    try:
        async with asyncio.timeout(timeout_s):
            directory = await _answering(installation)
            await ensure_database(directory)
    except TimeoutError:
        raise InfrastructureError(
            f"the embedded Postgres does not answer after {timeout_s:.0f} s (see {installation.layout.log})"
        ) from None
    except asyncpg.DiskFullError as error:
        raise disk_full(installation.layout) from error
    return directory


async def _answering(installation: Installation) -> Path:
    launched: _Launched | None = None
    while True:
        directory = socket_dir(installation.layout, installation.owner)
        match await probe(directory):
            case Answer.READY:
                return directory
            case Answer.BUSY:
                pass
            case Answer.ABSENT if launched is None:
                launched = _try_launch(installation, directory)
            case Answer.ABSENT:
                launched.raise_if_ended(installation)
            case never:
                assert_never(never)
        await asyncio.sleep(_POLL_S)


def _try_launch(installation: Installation, directory: Path) -> _Launched | None:
    """Launch the server unless one still lives: it may be on its way up, down, or be the children of a killed one."""
    life = FileLock(installation.layout.life_lock, installation.owner)
    try:
        if not life.try_alone():
            return None
        make_socket_dir(directory, installation.owner)
        mark = server.log_size(installation.layout)
        return _Launched(server.launch(installation, directory, life), mark)
    finally:
        life.close()


class _Launched:
    """A server that we have started and that does not answer yet; ``mark`` is where its part of the log begins."""

    def __init__(self, process: subprocess.Popen[bytes], mark: int) -> None:
        self._process = process
        self._mark = mark

    def raise_if_ended(self, installation: Installation) -> None:
        if self._process.poll() is not None:
            said = server.log_since(installation.layout, self._mark)
            raise trouble(installation.layout, installation.owner.name, said)
