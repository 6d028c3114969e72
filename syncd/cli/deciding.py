"""Who decides and why: what the commands that decide something have in common."""

from __future__ import annotations

import getpass
import os

import click

from syncd.settings import Settings, resolve_accounts


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


def settle_window_s(settings: Settings) -> float:
    """Return the longest of all accounts' settle windows: an entry's account is known to the database alone."""
    if settings.accounts_file is None:
        return settings.settle_window_s
    return max(config.send.settle_window_s for config in resolve_accounts(settings).configs)
