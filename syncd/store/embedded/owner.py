"""Which user of the machine the server runs as, and what that user can reach.

An ordinary user runs it as itself. Root cannot: the owner of what is already there runs it, else the first of a few
users that exist. This module creates no user and changes no directory but the data directory itself, and that only
while nothing of anybody else is in it.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from syncd.domain.errors import ConfigurationError
from syncd.store.embedded.layout import Layout

CANDIDATES = ("syncd", "postgres", "nobody")
OURS = ("postgres", ".postgres-")  # how the name of everything that this package makes in a data directory begins


class Identity(TypedDict, total=False):
    """The arguments of ``subprocess`` that run a program as another user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Owner:
    """The user that the server runs as; ``is_self`` when no change of user is needed."""

    uid: int
    gid: int
    name: str
    is_self: bool

    @property
    def identity(self) -> Identity:
        return {} if self.is_self else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, directory: Path) -> None:
        """Give a directory that we have just made to this user."""
        if not self.is_self:
            os.chown(directory, self.uid, self.gid, follow_symlinks=False)

    def open(self, path: Path, flags: int) -> int:
        """Open a file of ours that root and this user share, or make it; never through a symbolic link."""
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        if not self.is_self:
            os.fchown(file, self.uid, self.gid)
        return file

    def may_run(self, program: Path) -> bool:
        """Tell by trying: modes, access lists and mount options all have their say."""
        return self._succeeds(os.fspath(program), "--version")

    def may_use(self, directory: Path) -> bool:
        """Tell by trying whether this user can enter ``directory``."""
        return self._succeeds("/bin/sh", "-c", 'cd -- "$1"', "sh", os.fspath(directory))

    def _succeeds(self, *command: str) -> bool:
        silent = subprocess.DEVNULL
        try:
            tried = subprocess.run(
                command, stdin=silent, stdout=silent, stderr=silent, timeout=30, cwd="/", **self.identity
            )
        except (PermissionError, FileNotFoundError, NotADirectoryError, subprocess.TimeoutExpired):
            return False
        return tried.returncode == 0


def choose_owner(layout: Layout) -> Owner:
    """Return the user that runs the server of this data directory."""
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid(), str(os.geteuid()), is_self=True)
    for path in (layout.cluster, layout.data_dir):
        if path.exists() and path.stat().st_uid != 0:
            return _of_files(path.stat())
    for name in CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(found.pw_uid, found.pw_gid, name, is_self=False)
    raise ConfigurationError(
        f"Postgres does not run as root and none of the users {', '.join(CANDIDATES)} exists; "
        "start syncd as an ordinary user, or set SYNCD_DATABASE_URL to a Postgres server"
    )


def prepare_data_dir(layout: Layout, owner: Owner) -> None:
    """Make the data directory where there is none and see that ``owner`` can use it."""
    _make(layout.data_dir, owner)
    if owner.may_use(layout.data_dir):
        return
    if not owner.is_self and layout.data_dir.stat().st_uid == 0 and _holds_only_ours(layout.data_dir):
        owner.own(layout.data_dir)
        if owner.may_use(layout.data_dir):
            return
    raise ConfigurationError(
        f"Postgres runs as the user {owner.name}, which may not enter {layout.data_dir}; "
        "set SYNCD_DATA_DIR to a directory that it can reach, for example /var/lib/syncd"
    )


def _make(directory: Path, owner: Owner) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        if path == directory:
            path.chmod(0o700)
        elif not owner.is_self:
            path.chmod(0o755)  # root's umask may be narrow, and the server's user must pass
    if not directory.is_dir():
        raise NotADirectoryError(directory)
    if missing:
        owner.own(directory)


def _holds_only_ours(directory: Path) -> bool:
    return all(name.startswith(OURS) for name in os.listdir(directory))


def _of_files(found: os.stat_result) -> Owner:
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        name = str(found.st_uid)
    return Owner(found.st_uid, found.st_gid, name, is_self=False)
