"""The cluster on disk: made once, whole or not at all.

``initdb`` works in a directory beside the final one, which a single rename puts in place. What a kill left behind is
swept away at the next start; a cluster that is in place is never touched.
"""

from __future__ import annotations

import os
import secrets
import shutil

from syncd.store.embedded.installation import Installation
from syncd.store.embedded.layout import Layout
from syncd.store.embedded.locate import cluster_major
from syncd.store.embedded.program import run
from syncd.store.embedded.troubles import trouble

SUPERUSER = "postgres"
_UNFINISHED = ".postgres-initdb-"
_TIMEOUT_S = 300.0


async def ensure_cluster(installation: Installation) -> None:
    """Make the cluster if there is none. The caller holds the start lock alone."""
    sweep(installation.layout)
    if cluster_major(installation.layout) is None:
        await _make(installation)


async def _make(installation: Installation) -> None:
    layout, owner = installation.layout, installation.owner
    unfinished = layout.data_dir / f"{_UNFINISHED}{secrets.token_hex(6)}"
    unfinished.mkdir(mode=0o700)
    owner.own(unfinished)
    try:
        ended = await run(
            installation.program("initdb"),
            *("--pgdata", os.fspath(unfinished), "--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C"),
            *("--auth-local", "trust", "--auth-host", "reject", "--no-instructions"),
            *(() if installation.is_durable else ("--no-sync",)),
            owner=owner,
            timeout_s=_TIMEOUT_S,
        )
        if ended.code != 0:
            raise trouble(layout, owner.name, ended.output)
        unfinished.rename(layout.cluster)
        _sync_directory(layout)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sweep(layout: Layout) -> None:
    """Remove what an initdb that was killed has left."""
    for path in layout.data_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _sync_directory(layout: Layout) -> None:
    """Make the rename itself survive a power cut."""
    directory = os.open(layout.data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
