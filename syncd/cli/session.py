"""What every command does first: read settings, set up the log, hide the secrets, and run its coroutine.

Ctrl-C and SIGTERM cancel the coroutine, which leaves every block of it properly; a second one ends the process.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from syncd import log
from syncd.settings import Loaded, load_settings, resolve_accounts
from syncd.settings.accounts import AccountConfig
from syncd.settings.root import Settings

T = TypeVar("T")


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


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end. SIGTERM is treated like Ctrl-C, and exits with 143."""
    try:
        return asyncio.run(_guarded(work))
    except _Terminated:
        print("syncd: stopped by SIGTERM; nothing is lost, the same command goes on from here", file=sys.stderr)
        raise click.exceptions.Exit(143) from None


class _Terminated(Exception):
    """SIGTERM came while a one-shot command ran."""


async def _guarded(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    task = asyncio.ensure_future(work())
    terminated = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        terminated.set()
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if terminated.is_set():
            raise _Terminated from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _secrets(settings: Settings) -> list[str]:
    """Return what must never be shown: the key, and the password inside the database URL."""
    from urllib.parse import unquote, urlsplit

    values = [settings.autorespond_key.get_secret_value()]
    try:
        password = urlsplit(settings.database_url.get_secret_value()).password
    except ValueError:
        password = None
    if password:
        values += [password, unquote(password)]
    return [value for value in values if value]
