"""Where settings come from: which files are read, and which names in them are nobody's.

Everything here deals in names; a value is looked at for one purpose only, to tell a Kubernetes service address from
a setting.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from dotenv.parser import parse_stream

from syncd.settings.names import PREFIX, is_foreign, nearest

_KUBERNETES_SECRETS = Path("/run/secrets/syncd")


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that take part, and what is wrong with the names in them and in the environment."""

    env_file: Path | None
    secrets_dirs: tuple[Path, ...]
    problems: tuple[str, ...]


def find_sources(environ: Mapping[str, str], known: Collection[str]) -> Sources:
    """Find ``.env`` and the secret directories, and check every name that claims to be ours."""
    problems = [
        f"{name} is not a setting; {nearest(name.upper(), known)}" for name in sorted(_strangers(environ, known))
    ]
    env_file = _env_file(environ, problems)
    secrets_dirs = _secrets_dirs(environ, problems)
    if env_file:
        problems += _env_file_problems(env_file, known)
    for directory in secrets_dirs:
        problems += _secret_problems(directory, known)
    return Sources(env_file, secrets_dirs, tuple(problems))


def _strangers(values: Mapping[str, str | None], known: Collection[str]) -> set[str]:
    return {
        name
        for name, value in values.items()
        if name.upper().startswith(PREFIX) and name.upper() not in known and not is_foreign(name.upper(), value)
    }


def _env_file(environ: Mapping[str, str], problems: list[str]) -> Path | None:
    given = environ.get("SYNCD_ENV_FILE", "").strip()
    path = Path(given or ".env").expanduser()
    if os.access(path, os.R_OK) and path.is_file():
        return path
    if given or path.is_file():
        problems.append("SYNCD_ENV_FILE names a file that cannot be read" if given else ".env cannot be read")
    return None


def _secrets_dirs(environ: Mapping[str, str], problems: list[str]) -> tuple[Path, ...]:
    """Return the secret directories, weakest first."""
    given = environ.get("SYNCD_SECRETS_DIR", "").strip()
    if given and not Path(given).expanduser().is_dir():
        problems.append("SYNCD_SECRETS_DIR names no directory")
    named = Path(given).expanduser() if given else _KUBERNETES_SECRETS
    systemd = environ.get("CREDENTIALS_DIRECTORY", "")
    candidates = [named, *([Path(systemd)] if systemd else [])]
    return tuple(path for path in candidates if path.is_dir())


def _env_file_problems(path: Path, known: Collection[str]) -> list[str]:
    found: dict[str, str | None] = {}
    problems = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for binding in parse_stream(lines):
            if binding.error:
                problems.append(f"line {binding.original.line} of {path.name} is not of the form NAME=value")
            elif binding.key:
                found[binding.key] = binding.value
    problems += [
        f"{name} in {path.name} is not a setting; {nearest(name.upper(), known)}"
        for name in sorted(_strangers(found, known))
    ]
    return problems + [line for name in sorted(found) for line in _without_prefix(name, path, known)]


def _without_prefix(name: str, path: Path, known: Collection[str]) -> list[str]:
    """A ``.env`` file may serve other programs too, so only names that are surely meant for us are refused."""
    upper = name.upper()
    if upper.startswith(PREFIX):
        return []
    if PREFIX + upper in known and upper.count("_"):
        return [f"{name} in {path.name} is not read; did you mean {PREFIX}{upper}?"]
    close = get_close_matches(upper, known, n=1, cutoff=0.9)
    return [f"{name} in {path.name} is not read; did you mean {close[0]}?"] if close else []


def _secret_problems(directory: Path, known: Collection[str]) -> list[str]:
    problems = []
    for path in sorted(directory.iterdir()):
        name = path.name.upper()
        if not name.startswith(PREFIX):
            continue
        if name not in known:
            problems.append(f"secret file {path.name} is not a setting; {nearest(name.upper(), known)}")
        elif path.is_file() and not os.access(path, os.R_OK):
            problems.append(f"secret file {path.name} cannot be read by this user")
    return problems
