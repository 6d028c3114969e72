"""Who decides and why: the options that every command which decides something has in common."""

from __future__ import annotations

import getpass
import os

import click


def os_user() -> str:
    """Return the person at the keyboard: who called sudo, else whom the system says we are."""
    if os.geteuid() == 0 and (caller := os.environ.get("SUDO_USER")):
        return caller
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


actor_option = click.option(
    "--actor", metavar="NAME", default=os_user, show_default="who you are to this machine", help="Who decides; kept."
)
reason_option = click.option("--reason", metavar="TEXT", help="Why; kept with the decision, for whoever asks later.")
