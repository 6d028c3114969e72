"""Where the mirror lives."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from syncd.settings.group import Group
from syncd.settings.values import OptionalPath


class DatabaseSettings(Group):
    title: ClassVar[str] = "Database"

    database_url: SecretStr = Field(
        SecretStr(""),
        description="Postgres 15 or newer, as postgresql://user:password@host/name; blank runs an embedded server.",
    )
    data_dir: OptionalPath = Field(
        None,
        description="Home of the embedded database and of files; "
        "blank is $STATE_DIRECTORY, else ~/.local/share/syncd, for root /var/lib/syncd.",
    )
    postgres_binaries: OptionalPath = Field(
        None,
        description="Directory with initdb and pg_ctl for the embedded database; blank finds the installed ones.",
    )
    database_pool_size: int = Field(
        8,
        ge=2,
        le=64,
        description="Connections one process may hold; too few make pulls and deliveries wait for each other.",
    )
    migrate_on_start: bool = Field(
        False,
        description="Lets the daemon migrate your own database when it starts; the embedded one is always migrated.",
    )
