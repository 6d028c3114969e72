"""The server's Unix socket: its directory, its URL, and what answers on it."""

from __future__ import annotations

import os
import stat
from enum import Enum, auto
from pathlib import Path
from urllib.parse import quote

import asyncpg

from syncd.domain.errors import ConfigurationError
from syncd.store.embedded.cluster import SUPERUSER
from syncd.store.embedded.layout import PORT, SOCKET_NAME, Layout
from syncd.store.embedded.owner import Owner

DATABASE = "syncd"
_ANSWER_WITHIN_S = 5.0
_SOCKET_DIR_LINE = 4  # of postmaster.pid, as documented in Postgres' miscadmin.h


class Answer(Enum):
    """What a connection attempt met. ``BUSY``: a server that is starting, recovering or stopping."""

    READY = auto()
    BUSY = auto()
    ABSENT = auto()


def socket_dir(layout: Layout, owner: Owner) -> Path:
    """Return where the running server listens, else where the next one will.

    The server's own note comes first: the runtime directory may differ between two logins of one user.
    """
    try:
        noted = (layout.cluster / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        noted = []
    if len(noted) > _SOCKET_DIR_LINE and noted[_SOCKET_DIR_LINE]:
        directory = Path(noted[_SOCKET_DIR_LINE])
        if _is_private(directory, owner) and (directory / SOCKET_NAME).exists():
            return directory
    return layout.socket_dir(owner.uid, os.environ)


def make_socket_dir(directory: Path, owner: Owner) -> None:
    """Make the directory, closed to everybody but the server's user (and root)."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        owner.own(directory)
    if not _is_private(directory, owner):
        raise ConfigurationError(
            f"{directory} is not a private directory of the user {owner.name}; remove it and start again"
        )


def url(directory: Path) -> str:
    """Return the URL of syncd's database on the server that listens in ``directory``."""
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(os.fsencode(directory))}&port={PORT}"


async def probe(directory: Path) -> Answer:
    """Ask for a connection and tell what came back."""
    try:
        connection = await _connect(directory)
    except asyncpg.TooManyConnectionsError:
        return Answer.READY
    except (FileNotFoundError, ConnectionRefusedError):
        return Answer.ABSENT
    except (asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError, ConnectionError, TimeoutError):
        return Answer.BUSY
    await connection.close()
    return Answer.READY


async def ensure_database(directory: Path) -> None:
    """Make syncd's database on a server that has none yet. The caller holds the start lock alone."""
    try:
        connection = await _connect(directory)
    except asyncpg.TooManyConnectionsError:
        return  # others use it already
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


async def _connect(directory: Path) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=os.fspath(directory), port=PORT, user=SUPERUSER, database="postgres", timeout=_ANSWER_WITHIN_S
    )


def _is_private(directory: Path, owner: Owner) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner.uid and not found.st_mode & 0o077
