"""A process that uses the embedded server: it prints the URL, waits to be told or interrupted, drains, and leaves.

Arguments: the data directory and, for root only, the id of the user to become. The change of user comes after all
imports, because the interpreter's own files may be closed to that user.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from syncd.domain.errors import SyncdError
from syncd.store.embedded import EmbeddedPostgres


async def use(data_dir: Path) -> None:
    embedded = EmbeddedPostgres(data_dir, is_durable=False)
    try:
        url = await embedded.start()
    except SyncdError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(url, flush=True)
    try:
        await told_to_leave()
    except asyncio.CancelledError:  # Ctrl-C
        await drain(url)
    finally:
        await embedded.stop()
    print("left", flush=True)


async def told_to_leave() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.readline()


async def drain(url: str) -> None:
    connection = await asyncpg.connect(url)
    print("drained", await connection.fetchval("SELECT 1"), flush=True)
    await connection.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    asyncio.run(use(Path(sys.argv[1])))
