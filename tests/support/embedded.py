"""Embedded servers for tests: quick ones to share, and directories that the server's user can reach."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from syncd.store.embedded import EmbeddedPostgres


@contextmanager
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server without fsync, as the URL of its maintenance database; stopped and removed at the end."""
    with reachable_directory(tmp_path_factory.getbasetemp()) as directory:
        embedded = EmbeddedPostgres(directory, is_durable=False)
        url = asyncio.run(embedded.start())
        try:
            yield make_url(url).set(database="postgres").render_as_string()
        finally:
            asyncio.run(embedded.stop())


@contextmanager
def reachable_directory(preferred: Path) -> Iterator[Path]:
    """An empty directory; root's temporary directories are closed to the server's user, so root gets one in /tmp."""
    parent = Path("/tmp") if os.geteuid() == 0 else preferred
    directory = Path(tempfile.mkdtemp(prefix="syncd-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
