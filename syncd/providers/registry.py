"""Finds a provider by name: those built in, and any that an installed package offers.

A package offers one through the entry-point group ``syncd.providers``: a function that takes ``ProviderOptions`` and
returns a ``contract.Provider``. A built-in name cannot be taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TypeAlias

from syncd.domain.errors import ConfigurationError
from syncd.providers import autorespond
from syncd.providers.contract import Provider, ProviderOptions

Factory: TypeAlias = Callable[[ProviderOptions], Provider]

GROUP = "syncd.providers"
BUILT_IN: Mapping[str, Factory] = {"autorespond": autorespond.provider}


def names() -> tuple[str, ...]:
    """Return the names of all providers that can be asked for."""
    return tuple(sorted({*BUILT_IN, *entry_points(group=GROUP).names}))


def open_provider(name: str, options: ProviderOptions | None = None) -> Provider:
    """Return the provider of this name. Raises ConfigurationError when there is none, or its package is broken."""
    return _factory(name)(options or ProviderOptions())


def _factory(name: str) -> Factory:
    if name in BUILT_IN:
        return BUILT_IN[name]
    offered = entry_points(group=GROUP, name=name)
    if not offered:
        raise ConfigurationError(f"There is no provider {name!r}; there are {', '.join(names())}.")
    try:
        factory: Factory = next(iter(offered)).load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"The provider {name!r} cannot be loaded: {error}.") from error
    return factory
