"""Diff and merge: which value a column takes. The table in ``policy.merge`` is the table here."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import UNSET

from syncd.domain.changes import AddTag, ChangeEmail, CreateRelation, LocalChange, UpdateProfile
from syncd.policy.diff import diff
from syncd.policy.merge import Conflict, Edit, Owner, Owners, Trail, is_contested, is_same, merge, trails

AT = datetime(2024, 5, 1, tzinfo=UTC)


def edits(*changes: LocalChange, **known: bool) -> list[Edit]:
    return [Edit(change, AT, **known) for change in changes]


@pytest.mark.parametrize(
    ("base", "local", "remote", "value", "is_conflict"),
    [
        (None, "a", "b", "b", False),  # no local change: remote
        ("b", "l", "b", "l", False),  # only we moved
        ("b", "l", "l", "l", False),  # both say the same
        ("b", "l", "r", "l", True),  # both moved
    ],
)
def test_the_merge_of_one_column(base: str | None, local: str, remote: str, value: str, is_conflict: bool) -> None:
    """An undelivered change stays; a disagreement is never silent. The whole table is played in the pipelines."""
    trail = {} if base is None else {"last_name": Trail(base)}
    merged = merge({"last_name": local}, {"last_name": remote}, trail)
    assert {"last_name": local, **merged.values}["last_name"] == value
    assert merged.conflicts == ((Conflict("last_name", base, local, remote),) if is_conflict else ())


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [("email", "A@x.nl", "a@X.nl "), ("gender", None, "-"), ("gender", "f", "F"), ("last_name", None, " ")],
)
def test_two_spellings_of_a_value_are_no_conflict(name: str, one: str | None, other: str | None) -> None:
    """A CRM trims, and writes nothing in its own way: nobody moved anything."""
    assert is_same(name, one, other)
    assert not is_contested(name, Trail("elsewhere"), one, other)


def test_an_echo_of_a_try_whose_answer_was_lost_is_no_conflict() -> None:
    """Taken for news it would be a conflict with ourselves, and an owner ``remote`` would drop the newer edit."""
    first, second = UpdateProfile({"gender": "F"}, {"gender": "M"}), UpdateProfile({"gender": "M"}, {"gender": "-"})
    trail = trails([*edits(first, is_sent=True), *edits(second)])["gender"]
    assert not is_contested("gender", trail, "-", "M")
    assert is_contested("gender", trails(edits(first, second))["gender"], "-", "M"), "of a value never sent it is news"


def test_an_older_answer_contests_nothing() -> None:
    """It was asked for before the delivery: whatever it says, the delivery came after."""
    trail = trails(edits(UpdateProfile({"last_name": "b"}, {"last_name": "l"}), is_delivered=True))["last_name"]
    assert not is_contested("last_name", trail, "l", "r")


def test_what_was_given_up_protects_nothing_and_tells_what_was_agreed() -> None:
    """Skipped, its value stands in the mirror until a pull: that is not what the CRM agreed to."""
    given_up = edits(UpdateProfile({"last_name": "b"}, {"last_name": "x"}), is_given_up=True)
    assert trails(given_up) == {}
    later = edits(UpdateProfile({"last_name": "x"}, {"last_name": "y"}))
    assert trails([*given_up, *later])["last_name"].base == "b"


def test_the_nearest_name_names_the_owner() -> None:
    """One tag that starts a campaign may be held where all others are not."""
    owners = Owners(Owner.LOCAL, {"tags": Owner.REMOTE, "tag:VIP": Owner.HOLD})
    assert [owners.of("tag:VIP", "tags"), owners.of("tag:Old", "tags"), owners.of("email")] == [
        Owner.HOLD,
        Owner.REMOTE,
        Owner.LOCAL,
    ]


def test_what_an_answer_does_not_say_is_neither_written_nor_a_difference() -> None:
    """UNSET is not None: an endpoint that lacks a field must not null it."""
    assert dict(merge({"gender": "F"}, {"gender": UNSET}, {}).values) == {}
    assert not diff({"gender": "F"}, {"gender": UNSET})
    assert diff({"gender": "F"}, {"gender": None}).after == {"gender": None}


def test_bases_are_the_values_before_the_first_change() -> None:
    """Two edits of one name in a row agreed last before the first of them."""
    first = UpdateProfile(old={"first_name": "A"}, new={"first_name": "B"})
    second = UpdateProfile(old={"first_name": "B", "gender": None}, new={"first_name": "C", "gender": "M"})
    found = trails(edits(first, second, AddTag(1, "11", "VIP"), ChangeEmail("a@x.nl", "b@x.nl")))
    assert {name: trail.base for name, trail in found.items()} == {
        "first_name": "A",
        "gender": None,
        "tag:1": "no",
        "email": "a@x.nl",
    }
    created = trails(edits(CreateRelation("a@x.nl", {"first_name": "A"})))
    assert {name: trail.base for name, trail in created.items()} == {"email": "a@x.nl", "first_name": None}
