"""The daemon of the demo: ``syncd run`` as a process of its own, told everything through its environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

STOP_WITHIN_S = 20.0

# A demo hurries: the simulator is ours, so nobody minds the rate, and a retry need not wait for seconds.
HURRIED: Mapping[str, str] = {
    "SYNCD_RATE_PER_S": "1000",
    "SYNCD_CONCURRENCY": "8",
    "SYNCD_HORIZON_DAYS": "3650",
    "SYNCD_CADENCE_ORDERS_S": "2",
    "SYNCD_CADENCE_INVOICES_S": "3",
    "SYNCD_CADENCE_INVOICE_DETAILS_S": "1",
    "SYNCD_CADENCE_GROUP_MEMBERS_S": "2",
    "SYNCD_CADENCE_RELATION_DETAILS_S": "2",
    "SYNCD_CADENCE_RELATION_TAGS_S": "2",
    "SYNCD_SEND_BACKOFF_S": "0.3",
    "SYNCD_SEND_BACKOFF_MAX_S": "1",
    "SYNCD_SETTLE_WINDOW_S": "3",
    "SYNCD_MIGRATE_ON_START": "true",
    "SYNCD_OPS_PORT": "0",
    "SYNCD_LOG_FORMAT": "json",
}


@asynccontextmanager
async def running_daemon(directory: Path, given: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the daemon with ``directory`` as its home and the place of its log; end it with SIGTERM after the block."""
    with (directory / "daemon.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "syncd", "run", cwd=directory, env=environment(given), stderr=log, stdout=log
        )
        try:
            yield process
        finally:
            await stop(process)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without any setting of the user's, and with the demo's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SYNCD_")}
    package_home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (package_home, inherited.get("PYTHONPATH", "")) if part)
    return {**inherited, "PYTHONPATH": path, **HURRIED, **given}


async def stop(process: asyncio.subprocess.Process) -> None:
    """End the daemon as an operator would; kill it only when it does not listen."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
