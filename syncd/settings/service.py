"""How the process itself behaves: health pages, logs, stopping, replicas."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from syncd.settings.group import Group
from syncd.settings.values import OptionalPath


class ServiceSettings(Group):
    title: ClassVar[str] = "Service"

    ops_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address of /livez, /readyz and /metrics; they ask no password, so keep it private.",
    )
    ops_port: int = Field(
        9464, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0 switches them off."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="Shape of log lines; auto is pretty on a terminal and JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged; debug adds e-mail addresses and tracebacks, never secrets."
    )
    replica: str = Field(
        "",
        max_length=200,
        description="Name of this process among several on one database; blank takes host name and process id.",
    )
    replica_lease_s: float = Field(
        30, ge=2, le=3600, description="How long a dead replica keeps an account before another one pulls for it."
    )
    stop_grace_s: float = Field(
        25,
        ge=1,
        le=600,
        description="Time for what is under way to end after a stop signal; the rest is resumed at the next start.",
    )
    secrets_dir: OptionalPath = Field(
        None,
        description="Directory of secret files, named after settings; blank is /run/secrets/syncd if it exists.",
    )
    env_file: OptionalPath = Field(
        None, description="File of settings to read; blank takes .env in the working directory."
    )
