"""Providers are found by name, built in or from an installed package."""

from __future__ import annotations

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.providers import registry


def test_the_built_in_provider_is_found_without_installation() -> None:
    """A checkout without an installed package must work, so the entry point alone is not enough."""
    assert registry.open_provider("autorespond").name == "autorespond"
    assert "autorespond" in registry.names()


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="autorespond"):
        registry.open_provider("autorepsond")


@pytest.mark.parametrize("says", ["ModuleNotFoundError", "AttributeError"])
def test_a_package_that_does_not_load_is_a_sentence(says: str, tmp_path, monkeypatch) -> None:
    """A third party's broken package must not be a traceback of ours."""
    value = {"ModuleNotFoundError": "no_such_module:provider", "AttributeError": "json:provider"}[says]
    info = tmp_path / "someone-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someone\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nsomeone = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        registry.open_provider("someone")
