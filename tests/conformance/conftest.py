"""Every registered provider, once for each test that asks for ``provider``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from syncd.providers import registry
from syncd.providers.contract import Provider, ProviderOptions


@pytest.fixture(params=registry.names())
def build(request: pytest.FixtureRequest) -> Callable[[ProviderOptions], Provider]:
    """A function that opens this provider with options."""
    return lambda options: registry.open_provider(request.param, options)


@pytest.fixture
def provider(build: Callable[[ProviderOptions], Provider]) -> Provider:
    return build(ProviderOptions())
