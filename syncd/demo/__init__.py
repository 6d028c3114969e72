"""The demo: the whole circle with real parts, in half a minute, on a machine that has nothing but Python.

It starts the embedded Postgres, the simulated CRM and the real daemon as a process of its own; waits until the mirror
is filled; edits it with the SQL an application would write, while the CRM loses one answer and throws one 503; and
shows what reached the CRM. ``--once`` then compares both sides value by value and ends; its exit code is the verdict.

The demo talks to the daemon as anybody would: through the database. It is the only part of syncd that knows both the
mirror and the simulator, and nothing imports it but its door.
"""

from syncd.demo.options import DemoOptions
from syncd.demo.play import run_demo

__all__ = ["DemoOptions", "run_demo"]
