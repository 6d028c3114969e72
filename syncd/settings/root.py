"""All settings as one flat, frozen value. Building one reads nothing but its arguments; ``load`` reads the world."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from syncd.settings.account import AccountSettings
from syncd.settings.database import DatabaseSettings
from syncd.settings.erasure import ErasureSettings
from syncd.settings.group import Group
from syncd.settings.http import HttpSettings
from syncd.settings.pulling import PullSettings
from syncd.settings.sending import SendSettings
from syncd.settings.service import ServiceSettings

GROUPS: tuple[type[Group], ...] = (
    DatabaseSettings,
    AccountSettings,
    PullSettings,
    SendSettings,
    HttpSettings,
    ErasureSettings,
    ServiceSettings,
)

_G = TypeVar("_G", bound=Group)


class Settings(
    DatabaseSettings, AccountSettings, PullSettings, SendSettings, HttpSettings, ErasureSettings, ServiceSettings
):
    """The sum of all groups."""

    @property
    def is_embedded(self) -> bool:
        """True when syncd runs a database server of its own."""
        return not self.database_url.get_secret_value()

    @property
    def home(self) -> Path:
        """The directory for everything that is kept on disk; not created here."""
        from syncd.store.embedded import default_data_dir  # here: health probes read settings and want no database

        return self.data_dir or default_data_dir()

    def part(self, group: type[_G], **overrides: object) -> _G:
        """Return one group of these settings, with some values replaced and checked like all others."""
        own = {name: getattr(self, name) for name in group.model_fields}
        return group.model_validate(own | overrides)
