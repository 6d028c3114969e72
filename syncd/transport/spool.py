"""Where the body of a large answer goes: memory while it is small, an unnamed file on disk above that.

Disk writes happen in a thread, a mebibyte at a time, so that a slow disk does not stop the event loop. The file has no
name: whatever kills us, nothing stays behind.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import IO

from syncd.domain.errors import InfrastructureError

_WRITE_BYTES = 1 << 20


class Spool:
    """Collects one body. ``file`` is None while everything fits in memory; ``close`` frees the disk."""

    def __init__(self, above_bytes: int, directory: Path | None) -> None:
        self._above_bytes = above_bytes
        self._directory = directory
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.file: IO[bytes] | None = None

    async def add(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        if self._pending_bytes > (self._above_bytes if self.file is None else _WRITE_BYTES):
            await self._write()

    async def finish(self) -> bytes:
        """Return the body if it stayed in memory; else complete the file, rewind it, and return nothing."""
        if self.file is None:
            return b"".join(self._pending)
        await self._write()
        self.file.seek(0)
        return b""

    async def _write(self) -> None:
        pieces, self._pending, self._pending_bytes = self._pending, [], 0
        try:
            await asyncio.to_thread(self._write_now, b"".join(pieces))
        except OSError as error:
            where = self._directory or tempfile.gettempdir()
            raise InfrastructureError(
                f"an answer of the CRM does not fit on disk in {where} ({error.strerror}); free space there"
            ) from None

    def _write_now(self, body: bytes) -> None:
        if self.file is None:
            self.file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 (lives until close)
        self.file.write(body)
        self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
