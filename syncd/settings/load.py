"""Read the settings from the world: environment, then ``.env``, then secret files, then defaults; the first that
holds a name wins, and a blank value counts as not given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from syncd.settings.errors import SettingsError, sentences
from syncd.settings.names import variable
from syncd.settings.root import Settings
from syncd.settings.sources import Sources, find_sources

__all__ = ["Loaded", "SettingsError", "load_settings"]


class _World(Settings, BaseSettings):
    """The same fields, filled by pydantic-settings; ``find_sources`` has checked the names before."""

    model_config = SettingsConfigDict(
        env_prefix="SYNCD_", env_ignore_empty=True, extra="ignore", env_file_encoding="utf-8"
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for ``syncd check``, where each one that is no default came from (field name -> words)."""

    settings: Settings
    origins: Mapping[str, str] = field(default_factory=dict)


def load_settings() -> Loaded:
    """Read and check all settings. Raises SettingsError with every problem at once."""
    known = {variable(name) for name in Settings.model_fields}
    sources = find_sources(os.environ, known)
    problems = list(sources.problems)
    try:
        files: dict[str, Any] = {"_env_file": sources.env_file, "_secrets_dir": sources.secrets_dirs or None}
        world = _World(**files)
    except ValidationError as error:
        problems += sentences(error)
    except (OSError, UnicodeDecodeError):
        problems.append("a secret file or the .env file cannot be read as text")
    if problems:
        raise SettingsError(problems)
    values = {name: getattr(world, name) for name in Settings.model_fields}
    return Loaded(Settings.model_validate(values), _origins(sources))


def _origins(sources: Sources) -> dict[str, str]:
    """Say for each given setting where it came from, strongest source first."""
    origins: dict[str, str] = {}
    layers: list[tuple[str, set[str]]] = [
        ("environment", {name.upper() for name, value in os.environ.items() if value})
    ]
    if sources.env_file:
        given = dotenv_values(sources.env_file, encoding="utf-8")
        layers.append((sources.env_file.name, {name.upper() for name, value in given.items() if value}))
    for directory in reversed(sources.secrets_dirs):
        layers.append(("secret file", {path.name.upper() for path in directory.iterdir() if path.is_file()}))
    for name in Settings.model_fields:
        found = next((words for words, names in layers if variable(name) in names), None)
        if found:
            origins[name] = found
    return origins
