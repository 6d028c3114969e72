"""Proof: what a record says about a change. Wrong either way is a lie: a false proof, or a false alarm."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec import UNSET

from syncd.domain.changes import LocalChange, UpdateProfile
from syncd.domain.records import FreeField, Order, OrderLine, Relation, Subscription
from syncd.policy.proof import (
    Showing,
    Sight,
    by_fields,
    by_members,
    by_orders,
    by_relation,
    by_standing,
    by_tags,
    is_shown_by_relations,
    still_expected,
)
from tests.support.lanes import add, create, email, end, join, new_field, profile, remove, subscribe, unsubscribe

MADE = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
ANN = Relation("7", email="Ann@x.example", first_name="Ann", suffix="", last_name=None, gender="-")


def test_a_relation_that_shows_every_column_proves_it() -> None:
    """Empty, null and a dash are one value each; letter case of an address is the CRM's."""
    assert by_relation(profile(first_name="Ann ", suffix=None, last_name="", gender=None), ANN).sight is Sight.EXPECTED
    assert by_relation(email("ann@X.example", "b@x.example"), ANN).sight is Sight.EXPECTED
    assert by_relation(create("ann@x.example", first_name="Ann"), ANN).sight is Sight.EXPECTED


def test_a_relation_that_shows_another_value_names_both_of_that_column_alone() -> None:
    """A person must see at a glance what is wrong."""
    seen = by_relation(profile(first_name="Bea", suffix=""), ANN)
    assert seen == Showing(Sight.OTHER, {"first_name": "Bea"}, {"first_name": "Ann"})


def test_a_column_that_is_not_said_proves_nothing() -> None:
    """Some endpoints name a relation by id alone, and some columns are never returned."""
    assert by_relation(profile(first_name="Ann"), Relation("7", first_name=UNSET)).sight is Sight.UNTOLD
    assert by_relation(profile(first_name="Ann", customer="y"), ANN).sight is Sight.UNTOLD
    assert by_relation(profile(first_name="Bea", customer="y"), ANN).sight is Sight.OTHER


def test_a_change_of_letter_case_alone_must_be_shown_exactly() -> None:
    """Else the address before it would prove it."""
    assert by_relation(email("ann@x.example", "ANN@x.example"), ANN).sight is Sight.OTHER
    assert by_relation(email("Ann@x.example", "ANN@x.example"), ANN).sight is Sight.EXPECTED


@pytest.mark.parametrize(
    ("change", "is_shown"),
    [(email("a@x"), True), (profile(gender="F"), True), (profile(customer="y"), False), (create(type="K"), False),
     (create(), True), (add(), False)],
)  # fmt: skip
def test_what_relations_show_of_a_change(change: LocalChange, is_shown: bool) -> None:
    """Half a proof is none."""
    assert is_shown_by_relations(change) is is_shown


def test_presence_is_proof_of_adding_and_absence_of_removing() -> None:
    """And the other way round a difference."""
    assert by_tags(add(), True).sight is by_tags(remove(), False).sight is Sight.EXPECTED
    assert by_tags(add(), False) == Showing(Sight.OTHER, {"tag tag 1": "there"}, {"tag tag 1": "not there"})
    assert by_members(join(), False).shown == {"group 1": "no member"}


def _standing(status: str, event_at: datetime | None = None) -> Subscription:
    return Subscription("1", status, event_at)


def test_a_standing_as_wanted_proves_a_delivery_however_old() -> None:
    """A list that does not move its event on the second call shows an old one."""
    old = _standing("subscribed", MADE - timedelta(days=90))
    assert by_standing(subscribe(), old, MADE, MADE).sight is Sight.EXPECTED


def test_a_standing_from_before_decides_nothing_about_a_call_in_doubt() -> None:
    """It stood so already. Dates may be of whole days, hence the slack."""
    old, fresh = (_standing("subscribed", MADE - timedelta(hours=hours)) for hours in (25, 20))
    assert by_standing(subscribe(), old, MADE, None).sight is Sight.UNTOLD
    assert by_standing(subscribe(), fresh, MADE, None).sight is Sight.EXPECTED
    assert by_standing(subscribe(), _standing("subscribed"), MADE, None).sight is Sight.EXPECTED


def test_a_standing_that_was_known_before_a_call_in_doubt_proves_nothing_of_it() -> None:
    """Subscribed this morning and, on purpose, again at noon: the CRM shows the morning. Only a later day decides."""
    morning = MADE - timedelta(hours=3)
    sights = [
        by_standing(subscribe(), _standing("subscribed", at), MADE, None, morning).sight
        for at in (morning, MADE + timedelta(minutes=1), morning + timedelta(hours=25), None)
    ]
    assert sights == [Sight.UNTOLD, Sight.UNTOLD, Sight.EXPECTED, Sight.UNTOLD]
    assert by_standing(subscribe(), _standing("subscribed", morning), MADE, MADE, morning).sight is Sight.EXPECTED
    assert by_standing(subscribe(), _standing("unsubscribed", MADE), MADE, None, morning).sight is Sight.OTHER


def test_a_standing_that_moved_after_the_delivery_is_somebody_elses_doing() -> None:
    """People unsubscribe by a link."""
    later = _standing("unsubscribed", MADE + timedelta(minutes=1))
    assert by_standing(subscribe(), later, MADE, MADE).sight is Sight.UNTOLD
    earlier = _standing("unsubscribed", MADE - timedelta(minutes=1))
    assert by_standing(subscribe(), earlier, MADE, MADE).sight is Sight.OTHER
    assert by_standing(unsubscribe(), None, MADE, MADE).shown == {"list 1": "nothing"}


def test_a_field_is_found_by_name_or_code_and_doubted_by_label() -> None:
    """The CRM may list what we called the name as the label of another."""

    def field(code: str, name: str) -> FreeField:
        return FreeField(code, code, name, "string", (), True)

    assert by_fields(new_field("colour"), [field("9_FF1", "COLOUR")]).sight is Sight.EXPECTED
    assert by_fields(new_field("colour"), [field("colour", "x")]).sight is Sight.EXPECTED
    assert by_fields(new_field("paint"), [field("9_FF1", "Paint")]).sight is Sight.EXPECTED
    assert by_fields(new_field("paint"), []).sight is Sight.OTHER


def test_an_end_is_read_from_the_lines_of_its_subscription_alone() -> None:
    """No line of it tells nothing; another date, or none, is a difference."""

    def order(number: str, ends_on: date | None) -> Order:
        line = OrderLine(None, None, None, None, number, None, ends_on)
        return Order(number, None, None, True, (line,))

    assert by_orders(end(9), [order("8", None)]).sight is Sight.UNTOLD
    assert by_orders(end(9), [order("9", date(2030, 1, 31))]).sight is Sight.EXPECTED
    assert by_orders(end(9), [order("9", None)]).shown == {"subscription 9 ends on": "never"}


def test_the_last_change_of_a_facet_is_what_is_expected() -> None:
    """What it overtook is not."""
    assert still_expected([(1, add()), (2, remove())]) == {2: remove()}
    assert still_expected([(1, create()), (4, email("b@x"))]) == {4: email("b@x")}
    assert still_expected([]) == {}


def test_each_column_of_a_profile_is_expected_of_its_last_change() -> None:
    """An edit of which nothing is left expects nothing."""
    edits = [(1, profile(first_name="A")), (2, profile(first_name="B", gender="F")), (3, profile(gender="M"))]
    expected = still_expected(edits)
    assert {seq: change.new for seq, change in expected.items() if isinstance(change, UpdateProfile)} == {
        2: {"first_name": "B"},
        3: {"gender": "M"},
    }
