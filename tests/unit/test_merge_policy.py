"""Diff and merge: which value a column takes. The table in ``policy.merge`` is the table here."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from syncd.domain.changes import AddTag, ChangeEmail, CreateRelation, UpdateProfile
from syncd.policy.diff import diff
from syncd.policy.merge import Conflict, merge


@pytest.mark.parametrize(
    ("base", "local", "remote", "value", "is_conflict"),
    [
        (None, "a", "b", "b", False),  # no local change: remote
        ("b", "l", "b", "l", False),  # only we moved
        ("b", "l", "l", "l", False),  # both say the same
        ("b", "l", "r", "l", True),  # both moved
    ],
)
def test_the_table_of_merges(base: str | None, local: str, remote: str, value: str, is_conflict: bool) -> None:
    """An undelivered change stays; a disagreement is never silent."""
    changed = {} if base is None else {"last_name": base}
    merged = merge({"last_name": local}, {"last_name": remote}, changed)
    assert {"last_name": local, **merged.values}["last_name"] == value
    assert merged.conflicts == ((Conflict("last_name", base, local, remote),) if is_conflict else ())


def test_a_relation_the_crm_was_never_told_of_has_no_conflicts() -> None:
    """Its twin there knows nothing of what we meant."""
    merged = merge({"email": "A@x.nl"}, {"email": "a@x.nl"}, {"email": None}, is_new=True)
    assert (dict(merged.values), merged.conflicts) == ({}, ())


def test_what_an_answer_does_not_say_is_neither_written_nor_a_difference() -> None:
    """UNSET is not None: an endpoint that lacks a field must not null it."""
    assert dict(merge({"gender": "F"}, {"gender": UNSET}, {}).values) == {}
    assert not diff({"gender": "F"}, {"gender": UNSET})
    assert diff({"gender": "F"}, {"gender": None}).after == {"gender": None}


def test_bases_are_the_values_before_the_first_change() -> None:
    """Two edits of one name in a row agreed last before the first of them."""
    first = UpdateProfile(old={"first_name": "A"}, new={"first_name": "B"})
    second = UpdateProfile(old={"first_name": "B", "gender": None}, new={"first_name": "C", "gender": "M"})
    tag = AddTag(1, "11", "VIP")
    assert bases([first, second, tag, ChangeEmail("a@x.nl", "b@x.nl")]) == {
        "first_name": "A",
        "gender": None,
        "email": "a@x.nl",
    }
    assert bases([CreateRelation("a@x.nl", {"first_name": "A"})]) == {"email": None, "first_name": None}
