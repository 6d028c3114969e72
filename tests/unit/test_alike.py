"""Alike: what makes two refusals one kind."""

import pytest

from syncd.policy.alike import kind_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tag_add: 400, the CRM says: maintenance", "field_set: 400, the CRM says: Maintenance"),
        ("tag_add: 404, tag 301 does not exist", "tag_add: 404, tag 77 does not exist"),
        ("x: no field 'size'", "x: no field 'a colour'"),
        ("x: (an address) is in use", "x: <email> is in use"),
        ("x: gone\n  away", "x: gone away"),
    ],
)
def test_what_differs_between_entries_is_masked(one: str, other: str) -> None:
    """The same no to two entries must look the same, or the host is never suspected."""
    assert kind_of(one, 400) == kind_of(other, 400)


def test_another_reason_or_status_is_another_kind() -> None:
    """Fifty different mistakes are no sign of anything."""
    assert kind_of("x: gender is wrong", 400) != kind_of("x: type is wrong", 400)
    assert kind_of("x: no", 400) != kind_of("x: no", 404)
    assert kind_of("x: no") != kind_of("x: no", 404)


def test_a_kind_is_short_however_long_the_reason() -> None:
    """It is kept in the account's row."""
    assert len(kind_of("x: " + "blah " * 500, 400)) < 200
