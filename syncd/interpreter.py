"""Interpreter: how Python itself runs in a process that pulls or delivers.

What is set here is the process's, and stays: an application that only imports syncd is left alone, one that lets it
pull or deliver gives it the process. Both figures come from ``benchmarks``.
"""

from __future__ import annotations

import gc
import sys

# How long a thread may go on when another wants the interpreter. Python's own 5 ms are more than most statements take:
# while one thread decodes, Postgres would wait for its next statement as long.
_GIVES_WAY_AFTER_S = 0.0005

# So many objects more than before make Python look for garbage. Its own 700 are less than one batch of rows or one
# claim of lanes, all of which is in use and goes as a whole: looking through it took a fourteenth of what a first load
# takes of the processor, and a tenth of what deliveries take.
_LOOKS_FOR_GARBAGE_AFTER = 50_000


def tune() -> None:
    """Let threads give way to each other at once, and look for garbage rarely."""
    sys.setswitchinterval(_GIVES_WAY_AFTER_S)
    gc.set_threshold(_LOOKS_FOR_GARBAGE_AFTER)
