"""Where everything lies under a data directory, and which data directory is meant when nobody names one.

Paths only: nothing here is made, changed or started, so that two processes always agree about them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
LONGEST_SOCKET_PATH = 100  # the kernel allows 107 bytes; Postgres appends ".lock" to the name of its lock file


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one embedded Postgres. ``data_dir`` is absolute and resolved."""

    data_dir: Path

    @classmethod
    def of(cls, data_dir: Path) -> Layout:
        return cls(Path(os.path.realpath(data_dir.expanduser())))

    @property
    def cluster(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def log(self) -> Path:
        return self.data_dir / "postgres.log"

    @property
    def start_lock(self) -> Path:
        return self.data_dir / "postgres.lock"

    @property
    def users_lock(self) -> Path:
        return self.data_dir / "postgres.users"

    @property
    def life_lock(self) -> Path:
        return self.data_dir / "postgres.alive"

    @property
    def binaries(self) -> Path:
        """Copies of binaries that the server's user could not reach where they were."""
        return self.data_dir / "postgres-binaries"

    def socket_dir(self, uid: int, environ: Mapping[str, str]) -> Path:
        """Return the directory of the Unix socket for a server that runs as ``uid``.

        It lies under the data directory where the kernel's limit on socket paths allows, else in the runtime
        directory of that user, else in /tmp, under a name made from the user and the data directory.
        """
        inside = self.data_dir / "postgres-socket"
        if _fits(inside):
            return inside
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        runtime = environ.get("XDG_RUNTIME_DIR", "")
        if runtime.startswith("/") and uid == os.geteuid() and os.path.isdir(runtime):
            named = Path(runtime) / f"syncd-{digest}"
            if _fits(named):
                return named
        return Path("/tmp") / f"syncd-{uid}-{digest}"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory for who names none: systemd's, root's, or the user's own."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/syncd")  # root's home is closed to the user that Postgres must run as
    xdg = environ.get("XDG_DATA_HOME", "")
    return (Path(xdg) if xdg.startswith("/") else Path.home() / ".local" / "share") / "syncd"


def _fits(directory: Path) -> bool:
    """Tell whether Postgres can be given this socket directory: short enough, and no character of its list syntax."""
    path = os.fsencode(directory / SOCKET_NAME)
    return len(path) <= LONGEST_SOCKET_PATH and not any(mark in path for mark in (b",", b'"', b"\n"))
