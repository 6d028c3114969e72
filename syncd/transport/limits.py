"""Everything a request may use up. Each has a bound, because a CRM's bad day must not become ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Times in seconds, sizes in bytes (after decompression).

    ``total_timeout_s`` bounds a whole ``send``: the wait for a free connection, the connection, the answer and its
    body. ``read_timeout_s`` bounds each silence of the server after the request is written; the CRM's own front end
    allows 60 s. Downloads have their own, longer pair: a server may think for minutes before a big answer starts.
    ``keepalive_s`` is short, because a kept connection that the server closes while we write makes the outcome
    of that request unknown. Bodies up to ``spool_above_bytes`` stay in memory; larger downloads go to an unnamed
    temporary file in ``spool_dir`` (default: the system's).
    """

    total_timeout_s: float = 75.0
    connect_timeout_s: float = 10.0
    pool_timeout_s: float = 30.0
    read_timeout_s: float = 60.0
    download_timeout_s: float = 3600.0
    download_read_timeout_s: float = 300.0
    body_bytes: int = 8 << 20
    download_bytes: int = 2 << 30
    connections: int = 64
    keepalive_s: float = 15.0
    spool_above_bytes: int = 1 << 20
    spool_dir: Path | None = None
