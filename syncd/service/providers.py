"""From a provider's name to the provider: the built-in ones, and those that other packages announce as entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

from syncd.domain.errors import ConfigurationError
from syncd.providers import autorespond
from syncd.providers.contract import Place, Provider, ProviderOptions
from syncd.settings import AccountConfig

_BUILT_IN = {"autorespond": autorespond.provider}
_GROUP = "syncd.providers"


def build_provider(config: AccountConfig) -> Provider:
    """Return the account's provider with its overrides. Raises ConfigurationError for an unknown name."""
    make = _BUILT_IN.get(config.provider)
    if make is None:
        announced = {point.name: point for point in entry_points(group=_GROUP)}
        if config.provider not in announced:
            known = ", ".join(sorted({*_BUILT_IN, *announced}))
            raise ConfigurationError(f"there is no provider {config.provider!r}; installed: {known}")
        make = announced[config.provider].load()
    return make(_options(config))


def _options(config: AccountConfig) -> ProviderOptions:
    return ProviderOptions(
        verbs=config.send.autorespond_verbs,
        places={name: Place(place) for name, place in config.send.autorespond_places.items()},
        allowed_operations=config.send.allowed_operations,
        time_zone=config.time_zone,
        full_payload=config.send.full_payload,
        verify_writes=config.send.verify_writes,
        administration=config.credentials.get("admin"),
    )
