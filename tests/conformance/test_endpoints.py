"""Every row of every provider's table is well formed."""

from __future__ import annotations

import string

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.providers.contract import Effect, Place, Provider, ProviderOptions

SHAPES = {"list", "object", "boolean", "text", "id", "file"}
VERBS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def path_names(path: str) -> dict[str, str]:
    return {name: f"a/b {name}" for _, name, _, _ in string.Formatter().parse(path) if name}


def test_rows_are_filed_under_their_own_name(provider: Provider) -> None:
    """Logs, limits and overrides go by that name."""
    assert all(name == row.operation for name, row in provider.endpoints.items())


def test_rows_speak_the_contracts_words(provider: Provider) -> None:
    for row in provider.endpoints.values():
        assert row.verb in VERBS, row.operation
        assert row.shape in SHAPES, row.operation
        assert row.heading, row.operation
        assert not row.path.startswith("/"), row.operation
        assert not (row.verb == "GET" and row.place is not Place.QUERY), row.operation
        assert len(set(row.parameters)) == len(row.parameters), row.operation
        assert not set(row.parameters) & set(path_names(row.path)), row.operation


def test_calls_that_mail_are_never_called_repeat_safe(provider: Provider) -> None:
    """A repeated mail cannot be taken back."""
    assert all(row.effect in (Effect.ONCE, Effect.CONSENT) for row in provider.endpoints.values() if row.mails)


def test_every_row_makes_a_request_with_encoded_segments(provider: Provider) -> None:
    """A slash in an id must not become another path."""
    for row in provider.endpoints.values():
        names = path_names(row.path)
        request = row.request(names, **dict.fromkeys(row.parameters, "x y&z"))
        assert request.path.count("/") == row.path.count("/"), row.operation
        assert " " not in request.path
        assert request.operation == row.operation
        carried = [*request.query, *request.form] if request.json is None else list(row.parameters)
        assert len(carried) == len(row.parameters), row.operation
        with pytest.raises(ValueError, match="no parameter"):
            row.request(names, nonsense="x")


def test_overrides_are_for_writes_that_exist(build) -> None:
    """A typing error in a setting must be found at start."""
    with pytest.raises(ConfigurationError):
        build(ProviderOptions(verbs={"nonsense": "PUT"}))
    for name, row in build(ProviderOptions()).endpoints.items():
        if row.effect is Effect.SAFE:
            with pytest.raises(ConfigurationError):
                build(ProviderOptions(verbs={name: "PUT"}))


def test_the_probe_is_a_signed_read_and_liveness_an_unsigned_one(provider: Provider) -> None:
    """The probe runs while the breaker is open; a write there would be a disaster."""
    probe, liveness = provider.probe(), provider.liveness()
    assert probe.is_signed
    assert provider.endpoints[probe.operation].effect is Effect.SAFE
    if liveness is not None:
        assert not liveness.is_signed
        assert provider.endpoints[liveness.operation].effect is Effect.SAFE


def test_credentials_show_in_no_repr_and_missing_ones_are_refused(provider: Provider) -> None:
    auth = provider.auth({"admin": "s3cr3t-1", "key": "s3cr3t-2"})
    assert {"s3cr3t-1", "s3cr3t-2"} <= auth.secrets()
    assert "s3cr3t" not in repr(auth) + repr(provider)
    with pytest.raises(ConfigurationError):
        provider.auth({})
