"""``python -m benchmarks [NAME ...]``: run each benchmark in a process of its own and print what it prints.

A process each, so that peak memory is the benchmark's own. ``--short`` runs small sizes (that is what the tests do).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("transport", "pull", "deliveries")


def main(arguments: list[str]) -> int:
    """Run the named benchmarks (all of them when none is named); the worst exit code is ours."""
    flags = [argument for argument in arguments if argument.startswith("--")]
    names = [argument for argument in arguments if not argument.startswith("--")] or list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    return max(run(name, flags) for name in names)


def run(name: str, flags: list[str]) -> int:
    print(f"== {name} ==", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], cwd=HERE.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
