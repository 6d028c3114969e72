"""The table of endpoints: complete, named after the reference, and open to settings only where they can help."""

from __future__ import annotations

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.providers.autorespond.endpoints import ENDPOINTS, endpoints
from syncd.providers.contract import Effect, Place, ProviderOptions

HEADINGS = """
Administration - Get API Version
Administration - Get All Fields
Administration - Get All Tags
Administration - Load Admin
ListManagers - Show Listmanagers
ListManagers - Start Listmanager with GDPR Data
ListManagers - Start Listmanager
ListManagers - Stop Listmanager
Orders - End Existing Subscription
Orders - Get PDF invoice for Given Invoice Number
Orders - Show Individual Invoice
Orders - Show Invoices
Orders - Show Orders for Given Relation
Orders - Show Orders
Relations - Add Relation To group
Relations - Create New Free Field within an Administration
Relations - Create or Update Relation
Relations - Get All Groups
Relations - Get Relations in Group
Relations - Load Relation by Email
Relations - Load Relation by Id
Relations - Remove Relation From group
Relations - Show subscriptions
Relations - Update Relation Email
Tags - Add Tag To Relation with given email
Tags - Add Tag To Relation
Tags - Remove Tag From Relation
Tags - Set a Free field For a Relation
Tags - Show tags for relation
""".strip().splitlines()


def test_every_heading_of_the_reference_has_one_row():
    """A missing row is a call that nobody can make; a second one is a call with two meanings."""
    assert [row.heading for row in ENDPOINTS] == HEADINGS
    assert len({row.operation for row in ENDPOINTS}) == 29


def test_calls_that_mail_or_end_something_are_marked():
    """The mark is what keeps them off until a person allows them."""
    marked = {row.operation for row in ENDPOINTS if row.mails}
    assert marked == {"list_subscribe", "list_gdpr_subscribe", "list_unsubscribe", "subscription_end"}
    assert all(row.effect in (Effect.ONCE, Effect.CONSENT) for row in ENDPOINTS if row.mails)


def test_posts_carry_a_form_and_other_verbs_a_query():
    """Servlet containers read a form on POST alone; a form elsewhere would arrive as no parameters at all."""
    for row in ENDPOINTS:
        assert row.place is (Place.FORM if row.verb == "POST" else Place.QUERY), row.operation


def test_an_override_reaches_the_request():
    """The reference names no verbs, so a wrong guess must be mendable by a setting."""
    row = endpoints(ProviderOptions(verbs={"field_set": "put"}, places={"field_set": Place.JSON}))["field_set"]
    request = row.request({"relId": "7"}, fieldCode="1_FF2", fieldValue="x")
    assert (request.verb, request.json, request.form, request.query) == (
        "PUT", b'{"fieldCode":"1_FF2","fieldValue":"x"}', (), ()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verbs", "places", "says"),
    [
        ({"tag_ad": "PUT"}, {}, "no operation"),
        ({}, {"tag_ad": Place.FORM}, "no operation"),
        ({"orders": "POST"}, {}, "is a read"),
        ({}, {"orders": Place.FORM}, "is a read"),
        ({"tag_add": "FETCH"}, {}, "verb"),
        ({"tag_add": "GET"}, {"tag_add": Place.FORM}, "no body"),
        ({}, {"group_remove": Place.FORM}, "no body"),
        ({"group_remove": "POST"}, {}, "would both be"),
        ({"relation_upsert": "GET"}, {}, "would both be"),
    ],
)
def test_an_override_that_could_never_work_is_refused(verbs, places, says):
    """Found at start it is a sentence; found by the first delivery it is a dead entry for every relation."""
    with pytest.raises(ConfigurationError, match=says):
        endpoints(ProviderOptions(verbs=verbs, places=places))
