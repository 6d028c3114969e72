"""``syncd run``: the daemon."""

from __future__ import annotations

import asyncio
import sys

import click

from syncd.cli import session
from syncd.cli.ending import INTERRUPTED
from syncd.service.daemon import run_daemon


@click.command(name="run")
def command() -> int:
    """Run the daemon: pull on schedule, deliver local changes as they are made.

    It waits for an absent database instead of failing, stops cleanly on SIGTERM, and tells systemd how it goes.
    Health and metrics are on SYNCD_OPS_HOST:SYNCD_OPS_PORT (/livez, /readyz, /metrics).
    """
    settings = session.begin().settings
    configs = session.accounts(settings)
    code = asyncio.run(run_daemon(settings, configs))
    if code == INTERRUPTED:
        print("syncd: stopped by Ctrl-C; nothing is lost", file=sys.stderr)
    return code
