"""``python -m benchmarks [NAME ...]``: run each benchmark in a process of its own and print what it prints.

A process each, so that peak memory is the benchmark's own. They share one Postgres: the server that
``SYNCD_TEST_SERVER`` names, else the embedded one with the settings of every user (``fsync`` on). At the end comes one
table of all figures beside their yardsticks and targets. ``--short`` runs small sizes: it shows that they work, and
that is what the tests do. ``--strict`` makes a missed target an exit code of 1; other flags go to the benchmarks.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from benchmarks.figures import NOTES, Figure, noted, table
from syncd.store.embedded import EmbeddedPostgres, default_data_dir

CHECKOUT = Path(__file__).resolve().parents[1]
SERVER = "SYNCD_TEST_SERVER"
NAMES = ("transport", "pull", "million", "deliveries", "claims", "held", "commits", "latency")
BY_NAME_ALONE = ("dlt_load",)  # it installs something
STRICT = "--strict"


def main(arguments: list[str]) -> int:
    """Run the named benchmarks (all of them when none is named); the worst exit code is ours."""
    flags = [argument for argument in arguments if argument.startswith("--") and argument != STRICT]
    names = [argument for argument in arguments if not argument.startswith("--")] or list(NAMES)
    known = (*NAMES, *BY_NAME_ALONE)
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    with NamedTemporaryFile(prefix="syncd-figures-") as notes:
        code = asyncio.run(run_all(names, flags, notes.name))
        figures = noted(Path(notes.name))
    print(f"== figures ==\n{table(figures)}", flush=True)
    return exit_code(code, figures, is_strict=STRICT in arguments)


def exit_code(worst: int, figures: list[Figure], *, is_strict: bool) -> int:
    """Return a broken benchmark's own code, else 1 for a missed target, if one may fail the run."""
    return worst or int(is_strict and any(not figure.is_met for figure in figures))


async def run_all(names: list[str], flags: list[str], notes: str) -> int:
    async with server() as url:
        return max([await asyncio.to_thread(run, name, flags, {SERVER: url, NOTES: notes}) for name in names])


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """Yield the URL of a server whose role may create databases."""
    if given := os.environ.get(SERVER):
        yield given
        return
    async with EmbeddedPostgres(default_data_dir() / "benchmarks") as url:
        yield url


def run(name: str, flags: list[str], given: dict[str, str]) -> int:
    print(f"== {name} ==", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    return subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **given}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
