"""Reassertion: what is said once more after a doubt, and what never is."""

from __future__ import annotations

import pytest

from syncd.domain.changes import CreateField, CreateRelation, LocalChange, UpdateProfile, facet_of
from syncd.policy.reassertion import after_given_up, brought_up, reassertion
from tests.support.changes import SAMPLES
from tests.support.lanes import add, create, email, field, is_repeat_safe, profile, remove


@pytest.mark.parametrize("change", SAMPLES, ids=lambda change: type(change).__name__)
def test_what_does_something_each_time_is_never_said_again(change: LocalChange) -> None:
    """A second mail, consent or ending is worse than a value that may have been undone."""
    again = reassertion(change)
    assert (again is not None) is is_repeat_safe(change)
    assert again is None or is_repeat_safe(again)


def test_a_create_is_answered_by_its_profile() -> None:
    """A second upsert of the address makes nothing; the profile in it may overwrite what came after."""
    assert reassertion(create(first_name="An")) == UpdateProfile({}, {"first_name": "An"})
    assert reassertion(create()) is None


def test_what_was_delivered_since_is_laid_over_it() -> None:
    """Late is what was in doubt; last is what counts."""
    assert brought_up(add(), [remove()]) == remove()
    assert brought_up(field("a"), [field("b", "a"), field("c", "b")]) == field("c", "b")
    assert brought_up(email("b@x"), [email("c@x", "b@x")]) == email("c@x", "b@x")
    assert brought_up(add(), []) == add()


def test_profile_columns_add_up() -> None:
    """The doubtful call may have carried any of them."""
    since = [profile({"first_name": "A"}, first_name="B"), profile({"gender": None}, gender="F")]
    assert brought_up(profile({"first_name": "x"}, first_name="A"), since).new == {"first_name": "B", "gender": "F"}


def test_no_reassertion_is_made_of_an_account_call() -> None:
    """A field that is created twice is two fields, or an error."""
    assert reassertion(CreateField(name="a", label="A", type="string", options=())) is None


@pytest.mark.parametrize("change", SAMPLES, ids=lambda change: type(change).__name__)
def test_what_was_given_up_stands_for_its_facet_alone(change: LocalChange) -> None:
    """Another facet's reassertion would say what nobody doubts; columns of an edit that was given up, what nobody
    wants."""
    kept = after_given_up(change)
    assert kept is None or facet_of(kept) == facet_of(change)
    assert not (isinstance(kept, UpdateProfile) and kept.new)
    assert (kept is None) is (not is_repeat_safe(change) or isinstance(change, CreateRelation))
