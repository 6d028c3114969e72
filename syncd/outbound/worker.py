"""Worker: under which name somebody claims lanes.

A name is of one process at one time: whoever claims again after a restart must not be taken for who claimed before.
"""

from __future__ import annotations

import os
import socket

from syncd.clock import Clock


def worker_name(clock: Clock) -> str:
    """Return a name that no other drainer has or had: host, process and a number drawn by chance."""
    return f"{socket.gethostname()}/{os.getpid()}/{int(clock.random() * 0xFFFFFFFF):08x}"
