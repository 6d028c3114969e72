"""From settings to accounts: one from the plain settings, or many from a TOML file.

An account of the file may override everything that concerns one account alone (cadences, rates, what may be sent);
what concerns the process (database, logs, pages) it may not. Unknown keys are refused like unknown settings.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from syncd.settings.account import AccountSettings
from syncd.settings.errors import SettingsError, sentences
from syncd.settings.group import Group
from syncd.settings.http import HttpSettings
from syncd.settings.names import nearest
from syncd.settings.pulling import PullSettings
from syncd.settings.root import Settings
from syncd.settings.sending import SendSettings

DEFAULT_BASE_URLS: Mapping[str, str] = {"autorespond": "https://api.e-act.nl/api/1.0/"}

_RENAMED = {"admin": "autorespond_admin", "key": "autorespond_key"}
_OWN = ("provider", "base_url", "time_zone", *_RENAMED)
_PER_ACCOUNT: tuple[type[Group], ...] = (PullSettings, SendSettings, HttpSettings)
_KEYS = (*_OWN, "key_file", *(name for group in _PER_ACCOUNT for name in group.model_fields))


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """Everything one account needs. ``credentials`` are shown by no ``repr``."""

    name: str
    provider: str
    base_url: str
    time_zone: str
    credentials: Mapping[str, str] = field(repr=False)
    pull: PullSettings
    send: SendSettings
    http: HttpSettings


@dataclass(frozen=True, slots=True)
class Accounts:
    """All configured accounts, and warnings for the log (never about values)."""

    configs: tuple[AccountConfig, ...]
    warnings: tuple[str, ...] = ()


def resolve_accounts(settings: Settings) -> Accounts:
    """Return the configured accounts. Raises SettingsError if there is none, or one is incomplete or ambiguous."""
    if settings.accounts_file is None:
        return Accounts((_single(settings),))
    if settings.autorespond_admin or settings.autorespond_key.get_secret_value():
        raise SettingsError(
            ["SYNCD_ACCOUNTS_FILE and SYNCD_AUTORESPOND_ADMIN or _KEY are both set; keep one of the two ways"]
        )
    return _many(settings, settings.accounts_file)


def _single(settings: Settings) -> AccountConfig:
    missing = [
        f"{name} is not set; {hint}"
        for name, value, hint in (
            ("SYNCD_AUTORESPOND_ADMIN", settings.autorespond_admin, "it is the number of your administration"),
            (
                "SYNCD_AUTORESPOND_KEY",
                settings.autorespond_key.get_secret_value(),
                "make a key in Autorespond's settings",
            ),
        )
        if not value
    ]
    if missing:
        raise SettingsError(missing)
    account = settings.part(AccountSettings)
    return _config(settings.account, account, *(settings.part(group) for group in _PER_ACCOUNT))


def _many(settings: Settings, path: Path) -> Accounts:
    tables = _read(path)
    problems: list[str] = []
    configs = []
    for name, table in tables.items():
        config = _from_table(settings, path, name, table, problems)
        if config:
            configs.append(config)
    if problems:
        raise SettingsError(problems)
    return Accounts(tuple(configs), _mode_warnings(path, tables))


def _read(path: Path) -> dict[str, object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"SYNCD_ACCOUNTS_FILE cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise SettingsError(["SYNCD_ACCOUNTS_FILE is not TOML; it wants tables such as [accounts.shop]"]) from None
    strangers = sorted(set(document) - {"accounts"})
    if strangers:
        raise SettingsError([f"{path.name}: {strangers[0]} is not known; everything stands in [accounts.NAME]"])
    accounts = document.get("accounts")
    if not isinstance(accounts, dict) or not accounts:
        raise SettingsError([f"{path.name} holds no account; it wants tables such as [accounts.shop]"])
    return accounts


def _from_table(settings: Settings, path: Path, name: str, table: object, problems: list[str]) -> AccountConfig | None:
    """Build one account, or say what is wrong with it in ``problems``."""
    where = f"{path.name}: accounts.{name}"
    if not isinstance(table, dict):
        problems.append(f"{where} must be a table")
        return None
    wrong = [f"{where}.{key} is not known; {nearest(key, _KEYS)}" for key in table if key not in _KEYS]
    wrong += _missing(where, table)
    values = _with_key(where, path, table, wrong)
    groups: list[Group] = []
    try:
        own = {_RENAMED.get(key, key): values[key] for key in _OWN if key in values}
        groups.append(settings.part(AccountSettings, account=name, **own))
        for group in _PER_ACCOUNT:
            groups.append(settings.part(group, **{key: values[key] for key in group.model_fields if key in values}))
    except ValidationError as error:
        back = {inside: outside for outside, inside in _RENAMED.items()} | {"account": "name"}
        wrong += sentences(error, lambda field_name: f"{where}.{back.get(field_name, field_name)}")
    problems += wrong
    return None if wrong else _config(name, *groups)


def _missing(where: str, table: Mapping[str, object]) -> list[str]:
    missing = [f"{where}.admin is not set"] if "admin" not in table else []
    if ("key" in table) == ("key_file" in table):
        missing.append(f"{where} wants either key or key_file")
    return missing


def _with_key(where: str, path: Path, table: Mapping[str, object], wrong: list[str]) -> dict[str, object]:
    """Return the table with numbers as the text they stand for and the key read from its file."""
    values = dict(table)
    if isinstance(values.get("admin"), int):
        values["admin"] = str(values["admin"])
    if "key_file" in values:
        file = path.parent / Path(str(values.pop("key_file"))).expanduser()
        try:
            values["key"] = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            wrong.append(f"{where}.key_file cannot be read")
    if values.get("key", "x") == "":
        wrong.append(f"{where} has an empty key")
    return values


def _config(name: str, account: Group, pull: Group, send: Group, http: Group) -> AccountConfig:
    assert isinstance(account, AccountSettings)
    assert isinstance(pull, PullSettings)
    assert isinstance(send, SendSettings)
    assert isinstance(http, HttpSettings)
    return AccountConfig(
        name=name,
        provider=account.provider,
        base_url=account.base_url or DEFAULT_BASE_URLS[account.provider],
        time_zone=account.time_zone,
        credentials={"admin": account.autorespond_admin, "key": account.autorespond_key.get_secret_value()},
        pull=pull,
        send=send,
        http=http,
    )


def _mode_warnings(path: Path, tables: Mapping[str, object]) -> tuple[str, ...]:
    has_key = any(isinstance(table, dict) and "key" in table for table in tables.values())
    if has_key and os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return (f"{path.name} holds keys and can be read by every user of this machine; chmod 600 it",)
    return ()
