"""Which facet is meant: as stored, or as people say it; never a guess between two."""

from __future__ import annotations

import pytest

from syncd.policy.facet_choice import Choice, NamedFacet, Unclear, choose

NAMED = (
    NamedFacet("tag", 5, "VIP", ("305",)),
    NamedFacet("tag", 6, "vip ", ("306",)),
    NamedFacet("tag", 305, "5", ("999",)),
    NamedFacet("field", 5, "Kleur", ("4711_FF1", "77")),
    NamedFacet("group", 2, "Klanten", ("12345",)),
    NamedFacet("list", 2, "Klanten", ("7",)),
)


@pytest.mark.parametrize(
    ("said", "facets", "column"),
    [
        ("profile", ("profile",), None),
        ("identity", ("identity",), None),
        ("last_name", ("profile", "identity"), "last_name"),
        ("email", ("identity",), "email"),
        ("funnel_state", (), "funnel_state"),
        ("tag:5", ("tag:5",), None),
        ("tag:305", ("tag:305",), None),
        ("tag:306", ("tag:6",), None),
        ("tag:VIP", ("tag:5",), None),
        ("tag:Vip", ("tag:5", "tag:6"), None),
        ("field:4711_FF1", ("field:5",), None),
        ("field:kleur", ("field:5",), None),
        ("group:Klanten", ("group:2",), None),
        ("Kleur", ("field:5",), None),
        ("subscription:S1", ("subscription:S1",), None),
    ],
)
def test_what_is_said_is_found(said: str, facets: tuple[str, ...], column: str | None) -> None:
    """Stored numbers first, exact names before any case, the CRM's own numbers last."""
    assert choose(said, NAMED) == Choice(facets, column)


def test_a_name_of_two_kinds_is_asked_back() -> None:
    """To explain the wrong thing in full is worse than a question."""
    found = choose("Klanten", NAMED)
    assert isinstance(found, Unclear)
    assert "group:Klanten or list:Klanten" in found.reason


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    """A typing error is mended by reading one line."""
    found = choose("tag:Vipp", NAMED)
    assert isinstance(found, Unclear)
    assert "did you mean tag:VIP" in found.reason
    nothing = choose("qqqqqqqqq", NAMED)
    assert isinstance(nothing, Unclear)
    assert "say profile, identity, a column" in nothing.reason
