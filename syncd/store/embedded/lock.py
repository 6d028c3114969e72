"""File locks between processes. The kernel drops them with their holder, so a killed process leaves none behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from syncd.domain.errors import InfrastructureError
from syncd.store.embedded.owner import Owner

_POLL_S = 0.05


class FileLock:
    """One open lock file: ``flock`` belongs to the open file, so two of these exclude each other in one process too."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self._file = owner.open(path, os.O_RDWR)

    def try_alone(self) -> bool:
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        return self._try(fcntl.LOCK_SH)

    @property
    def file(self) -> int:
        """The open file's number: a program that inherits it holds the lock for as long as it lives."""
        return self._file

    def close(self) -> None:
        """Let go of the lock. Calling it again does nothing."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@asynccontextmanager
async def alone(path: Path, owner: Owner, *, timeout_s: float) -> AsyncIterator[None]:
    """Hold the lock at ``path`` alone; raises InfrastructureError when others hold it for longer than ``timeout_s``."""
    lock = FileLock(path, owner)
    try:
        async with asyncio.timeout(timeout_s):
            while not lock.try_alone():  # noqa: ASYNC110 - the kernel tells nobody when a file lock is dropped
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        lock.close()
        raise InfrastructureError(
            f"another process has been starting or stopping the embedded Postgres for {timeout_s:.0f} s ({path})"
        ) from None
    except BaseException:
        lock.close()
        raise
    try:
        yield
    finally:
        lock.close()
