"""The doors: one command a file, each a thin wrapper around one sequence of the floors below.

``main`` is the only place where an exception becomes an exit code. A command prints its result on standard output and
nothing else there; logs, progress and errors go to standard error, so that output can be piped. Modules are imported
when their command runs, so that ``--help`` is instant and Ctrl-C is caught from the start.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        from syncd.cli.ending import run_to_exit_code

        code = run_to_exit_code()
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)
