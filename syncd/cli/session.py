"""What every command does first: read settings, set up the log, hide the secrets, and run its coroutine.

Ctrl-C, SIGTERM and the closing of the terminal cancel the coroutine, which leaves every block of it properly; a second
one ends the process there and then, which loses nothing either: everything syncd does survives being killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from syncd import log
from syncd.service.stopping import stop_numbers
from syncd.settings import Loaded, load_settings, resolve_accounts
from syncd.settings.accounts import AccountConfig
from syncd.settings.root import Settings

T = TypeVar("T")
GOES_ON = "nothing is lost, the same command goes on from here"
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the closing of the terminal"}


class Stopped(Exception):
    """Raised by work that listens to signals by itself and has finished what it must: ``number`` asked it to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def begin() -> Loaded:
    """Read the settings and set up the log. Raises SettingsError with all problems at once."""
    log.configure(json=None, level="warning")
    loaded = load_settings()
    settings = loaded.settings
    log.configure(json={"auto": None, "json": True, "pretty": False}[settings.log_format], level=settings.log_level)
    log.add_secrets(_secrets(settings))
    return loaded


def accounts(settings: Settings, only: str | None = None) -> tuple[AccountConfig, ...]:
    """Return the configured accounts, or the one that is asked for, with their secrets hidden from the log."""
    found = resolve_accounts(settings)
    for config in found.configs:
        log.add_secrets(value for name, value in config.credentials.items() if name == "key")
    for warning in found.warnings:
        log.get("syncd.cli").warning("settings.questioned", reason=warning)
    if only is None:
        return found.configs
    chosen = tuple(config for config in found.configs if config.name == only)
    if not chosen:
        names = ", ".join(config.name for config in found.configs)
        raise click.UsageError(f"there is no account {only!r}; configured: {names}")
    return chosen


def run(work: Callable[[], Coroutine[Any, Any, T]], *, then: str = GOES_ON) -> T:
    """Run a coroutine to its end. A signal to stop exits with 130 or 143, and ``then`` says how things stand."""
    stopping: list[signal.Signals] = []
    try:
        return asyncio.run(_guarded(work, stopping))
    except Stopped as stopped:
        number = stopped.number
    except asyncio.CancelledError:
        if not stopping:
            raise
        number = stopping[0]
    print(f"{_after_echo(number)}syncd: stopped by {_NAMES[number]}; {then}", file=sys.stderr)
    raise click.exceptions.Exit(128 + number)


async def _guarded(work: Callable[[], Coroutine[Any, Any, T]], stopping: list[signal.Signals]) -> T:
    """Await the work as a task that the first signal cancels; the signal is left in ``stopping``."""
    task, loop = asyncio.ensure_future(work()), asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if stopping:
            os._exit(128 + number)
        stopping.append(number)
        task.cancel()

    heard = stop_numbers()
    for number in heard:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _after_echo(number: signal.Signals) -> str:
    """Begin a new line where the terminal has just echoed ^C."""
    return "\n" if number is signal.SIGINT and sys.stderr.isatty() else ""


def _secrets(settings: Settings) -> list[str]:
    """Return what must never be shown: the keys, and the password inside the database URL."""
    from urllib.parse import unquote, urlsplit

    values = [settings.autorespond_key.get_secret_value(), settings.erase_key.get_secret_value()]
    try:
        password = urlsplit(settings.database_url.get_secret_value()).password
    except ValueError:
        password = None
    if password:
        values += [password, unquote(password)]
    return [value for value in values if value]
