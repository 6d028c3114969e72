"""Conversations as lists of answers: what is asked in which order, and how sure each one is at its end."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from msgspec.structs import replace

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    EndSubscription,
    JoinGroup,
    LeaveGroup,
    SetField,
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
)
from syncd.providers.autorespond import provider
from syncd.providers.autorespond.conversations import GUARDED_OPERATIONS
from syncd.providers.contract import (
    Delivered,
    MaybeApplied,
    Proof,
    ProviderOptions,
    Rejected,
    Retryable,
    Unauthorised,
    Unknown,
)
from tests.support.conversing import answer, hold, target

CRM = provider()
OPEN = provider(ProviderOptions(allowed_operations=GUARDED_OPERATIONS))
CHECKING = provider(ProviderOptions(allowed_operations=GUARDED_OPERATIONS, verify_writes=True))
NEW, REPEAT = target(remote_id=None), target(is_repeat=True)
RELATION = '{"id":"7","email":"A@b.nl","firstName":"Jan","suffix":"","lastName":"Smit","gender":"-"}'
LOST = MaybeApplied("timed out")


def test_create_binds_the_id_that_the_answer_shows():
    held = hold(CRM, CreateRelation("a@b.nl", {"first_name": "Jan", "gender": "-"}), NEW, RELATION)
    assert held.operations == ["relation_upsert"]
    assert held.outcome == Delivered(Proof.VERIFIED, "7")


@pytest.mark.parametrize(
    ("change", "remote_id", "before"),
    [
        (CreateRelation("a@b.nl", {"first_name": "Jan"}), None, []),
        (ChangeEmail("old@b.nl", "a@b.nl"), "9", []),
        (ChangeEmail("old@b.nl", "a@b.nl"), None, [answer("null", 404)]),
    ],
)
def test_an_address_that_one_of_the_others_has_is_not_taken(change, remote_id, before):
    """The CRM finds by address: the one relation's data would be written over the other's."""
    held = hold(CRM, change, replace(target(remote_id), others=("7", "8")), *before, RELATION)
    assert set(held.operations) == {"relation_by_email"}
    assert isinstance(held.outcome, Rejected)
    assert held.outcome.is_ours


@pytest.mark.parametrize("change", [UpdateProfile({}, {"first_name": "Jan"}), AddTag(1, "1", "VIP")])
def test_a_relation_that_is_looked_for_by_its_address_is_none_of_the_others(change):
    """What is known of it is the address alone, and the CRM may have that on somebody else."""
    held = hold(CRM, change, replace(target(None), others=("7",)), RELATION)
    assert held.operations == ["relation_by_email"]
    assert isinstance(held.outcome, Rejected)


def test_an_address_that_none_of_the_others_has_any_more_is_taken():
    """Somebody has seen to it in the CRM, or the relation is gone there."""
    taker = replace(target("9"), others=("8",))
    held = hold(CRM, ChangeEmail("old@b.nl", "a@b.nl"), taker, answer("null", 404), "TRUE")
    assert held.operations == ["relation_by_email", "relation_email"]
    made = hold(CRM, CreateRelation("a@b.nl", {}), replace(NEW, others=("8",)), answer("null", 404), RELATION)
    assert made.operations == ["relation_by_email", "relation_upsert"]


def test_create_is_no_more_than_accepted_where_the_answer_shows_less():
    """type and customer are never returned, so nothing can prove them."""
    held = hold(CRM, CreateRelation("a@b.nl", {"customer": "true", "type": "K"}), NEW, RELATION)
    assert dict(held.requests[0].form) == {"email": "a@b.nl", "customer": "y", "type": "K"}
    assert held.outcome == Delivered(Proof.ACCEPTED, "7")


@pytest.mark.parametrize(
    "said", ["TRUE", "", "null", '{"result":true}', '{"data":{"id":9,"email":"other@b.nl"}}', '{"id":7}']
)
def test_create_reads_the_id_when_the_answer_does_not_show_it(said):
    """An answer about another address must never be bound to this relation."""
    held = hold(CRM, CreateRelation("a@b.nl", {"first_name": "Jan"}), NEW, said, RELATION)
    assert held.operations == ["relation_upsert", "relation_by_email"]
    assert held.outcome == Delivered(Proof.VERIFIED, "7")


def test_create_is_tried_again_when_the_id_cannot_be_read():
    """The upsert is repeat-safe, so one more is better than a relation without an id."""
    for given in (LOST, answer("", 503), "null"):
        assert isinstance(hold(CRM, CreateRelation("a@b.nl", {}), NEW, "TRUE", given).outcome, Retryable)


def test_a_create_that_the_crm_took_is_not_refused_by_a_read_after_it():
    """An entry that counts as refused may be created under another address: here that would make a second relation."""
    for given in (answer('{"error":"no"}'), answer("", 401), answer("", 429)):
        held = hold(CRM, CreateRelation("a@b.nl", {}), NEW, "TRUE", given)
        assert held.operations == ["relation_upsert", "relation_by_email"]
        assert isinstance(held.outcome, Retryable)


def test_create_of_a_known_relation_is_an_edit():
    """Its address in the CRM may be another by now; an upsert by ours would make a second relation."""
    held = hold(CRM, CreateRelation("new@b.nl", {"first_name": "Jan"}), target(), RELATION, RELATION)
    assert held.operations == ["relation_by_id", "relation_upsert"]
    assert dict(held.requests[1].form)["email"] == "A@b.nl"


def test_an_edit_that_lands_on_another_relation_has_diverged():
    held = hold(CRM, UpdateProfile({}, {"first_name": "Piet"}), target(), RELATION, RELATION.replace('"7"', '"8"'))
    assert held.outcome.proof is Proof.DIVERGED
    assert held.outcome.remote_id is None


def test_an_edit_that_the_crm_does_not_show_has_diverged():
    held = hold(CRM, UpdateProfile({}, {"first_name": "Piet"}), target(), RELATION, RELATION)
    assert held.outcome.proof is Proof.DIVERGED
    assert "first_name" in held.outcome.detail
    assert "Piet" not in held.outcome.detail


def test_emptying_what_is_empty_needs_no_call():
    held = hold(CRM, UpdateProfile({"suffix": "van"}, {"suffix": None}), target(), RELATION)
    assert held.outcome.proof is Proof.VERIFIED
    assert held.operations == ["relation_by_id"]


def test_an_unset_gender_is_sent_as_the_dash_that_means_it():
    held = hold(CRM, UpdateProfile({"gender": "M"}, {"gender": None}), target(), RELATION, RELATION)
    assert dict(held.requests[1].form)["gender"] == "-"
    assert held.outcome == Delivered(Proof.VERIFIED)


@pytest.mark.parametrize("new", [{"gender": "X"}, {"type": "KL"}, {"customer": "maybe"}, {"funnel_state": "a"}])
def test_what_the_reference_forbids_is_not_sent(new):
    held = hold(CRM, UpdateProfile({}, new), target(), RELATION)
    assert isinstance(held.outcome, Rejected)
    assert held.operations == ["relation_by_id"]


@pytest.mark.parametrize(
    "change",
    [UpdateProfile({}, {"first_name": "A"}), AddTag(1, "4", "x"), SetField(1, "9_FF1", None, "v"),
     JoinGroup(1, "3", "g"), LeaveGroup(1, "3", "g"), Subscribe(1, "5", False)],
)  # fmt: skip
def test_a_relation_without_id_is_found_by_address_or_refused(change):
    """A change for nobody must be said, not sent."""
    held = hold(OPEN, change, NEW, "null")
    assert isinstance(held.outcome, Rejected)
    assert held.operations == ["relation_by_email"]
    assert isinstance(hold(OPEN, change, target(None, None)).outcome, Rejected)
    wrong = hold(OPEN, change, NEW, RELATION.replace("A@b.nl", "other@b.nl")).outcome
    assert isinstance(wrong, Rejected)


def test_an_id_found_on_the_way_is_handed_over():
    """Bound with the settle, it spares every later change the look-up."""
    held = hold(CRM, AddTag(1, "4", "x"), NEW, RELATION, "true")
    assert held.requests[1].path == "relation/7/addtag/4"
    assert held.outcome == Delivered(Proof.ACCEPTED, "7")


def test_a_changed_address_is_looked_up_by_the_old_one():
    held = hold(CRM, ChangeEmail("a@b.nl", "new@b.nl"), NEW, RELATION, "true")
    assert dict(held.requests[0].query) == {"email": "a@b.nl"}
    assert held.outcome == Delivered(Proof.ACCEPTED, "7")


def test_a_repeated_address_change_is_read_first():
    changed = RELATION.replace("A@b.nl", "NEW@b.nl")
    change = ChangeEmail("a@b.nl", "new@b.nl")
    assert hold(CRM, change, REPEAT, changed).outcome.proof is Proof.VERIFIED
    assert hold(CRM, change, REPEAT, RELATION, "true").operations == ["relation_by_id", "relation_email"]
    assert isinstance(hold(CRM, change, REPEAT, answer("", 503)).outcome, Retryable)


def test_an_address_that_differs_in_case_alone_is_still_sent():
    held = hold(CRM, ChangeEmail("a@b.nl", "A@B.nl"), REPEAT, RELATION, "true")
    assert held.operations == ["relation_by_id", "relation_email"]


def test_an_address_in_use_is_refused_with_what_to_do():
    held = hold(CRM, ChangeEmail("a@b.nl", "c@b.nl"), target(), answer('{"error":"c@b.nl in use"}', 400), RELATION)
    assert isinstance(held.outcome, Rejected)
    assert "merge" in held.outcome.reason
    assert "c@b.nl" not in held.outcome.reason


def test_an_address_change_is_verified_on_request():
    change = ChangeEmail("a@b.nl", "new@b.nl")
    assert hold(CHECKING, change, target(), "true", RELATION).outcome.proof is Proof.DIVERGED
    assert hold(CHECKING, change, target(), "true", LOST).outcome.proof is Proof.ACCEPTED


@pytest.mark.parametrize(
    ("names", "proof"), [('["x "]', Proof.VERIFIED), ("[]", Proof.DIVERGED), ("{", Proof.ACCEPTED)]
)
def test_a_tag_is_verified_on_request(names, proof):
    assert hold(CHECKING, AddTag(1, "4", "x"), target(), "true", names).outcome.proof is proof


@pytest.mark.parametrize(
    ("shown", "proof", "is_unshown"),
    [
        ('[{"campaignId":5,"relationId":7,"subscribedFlag":"S","eventDate":null}]', Proof.VERIFIED, False),
        ('[{"campaignId":5,"relationId":7,"subscribedFlag":"U","eventDate":null}]', Proof.ACCEPTED, True),
        ("[]", Proof.ACCEPTED, True),
        ("{", Proof.ACCEPTED, True),
    ],
)
def test_a_list_call_that_is_not_shown_at_once_is_to_be_read_back(shown, proof, is_unshown):
    """A list may be slow where a tag is not; the later read decides."""
    outcome = hold(CHECKING, Subscribe(1, "5", False), target(), "true", shown).outcome
    assert (outcome.proof, outcome.is_unshown) == (proof, is_unshown)


def test_a_group_without_id_is_found_by_its_title():
    held = hold(CRM, LeaveGroup(1, None, "Klanten"), target(), '{"groups":[{"id":3,"title":"Klanten "}]}', "true")
    assert (held.requests[1].verb, held.requests[1].path) == ("DELETE", "group/3/member/7")


def test_a_failed_look_up_sends_nothing_and_is_tried_again():
    for given in (LOST, answer("", 500), "<html>", "{"):
        held = hold(CRM, AddTag(1, None, "x"), target(), given)
        assert isinstance(held.outcome, Retryable)
        assert held.operations == ["tags"]
    assert isinstance(hold(CRM, AddTag(1, None, "x"), target(), answer("", 401)).outcome, Unauthorised)


def test_an_emptied_field_is_sent_as_an_empty_text():
    held = hold(CRM, SetField(1, "9_FF1", "v", None), target(), "true")
    assert held.requests[0].form == (("fieldCode", "9_FF1"), ("fieldValue", ""))


@pytest.mark.parametrize(
    "change",
    [CreateField("a1", "A", "string", ()), CreateField("a" * 60, "A", "string", ()), CreateField("a", "A", "date", ()),
     CreateField("a", "A", "list", ()), CreateField("a", "A", "list", ("x,y",)),
     CreateField("a", "A", "string", ("x",)), CreateField("a", "A", "list", ("x" * 2048,))],
)  # fmt: skip
def test_a_field_that_the_reference_forbids_is_not_sent(change):
    held = hold(CRM, change, target())
    assert isinstance(held.outcome, Rejected)
    assert held.requests == ()


def test_a_field_of_that_name_is_refused_first_and_proof_on_a_repeat():
    change, listed = CreateField("colour", "Colour", "string", ()), '[{"code":"9_FF1","name":"Colour"}]'
    assert isinstance(hold(CRM, change, target(), listed).outcome, Rejected)
    assert hold(CRM, change, REPEAT, listed).outcome.proof is Proof.VERIFIED
    assert hold(CRM, change, REPEAT, "[]", "12").operations == ["fields", "field_create"]
    labelled = CreateField("paint", "Colour", "string", ())
    assert isinstance(hold(CRM, labelled, REPEAT, listed).outcome, Unknown)
    assert isinstance(hold(CRM, change, target(), "[]", LOST).outcome, Unknown)


@pytest.mark.parametrize(
    "change",
    [Subscribe(1, "5", False), Unsubscribe(1, "5", "r"), EndSubscription("9", date(2027, 1, 31)),
     SubscribeWithConsent(1, "5", True, "p", True, "u", "c", False, "1.2.3.4")],
)  # fmt: skip
def test_what_mails_or_ends_is_off_until_allowed(change):
    """The first start of a new installation must not be able to mail anybody."""
    held = hold(CRM, change, target())
    assert held.requests == ()
    assert isinstance(held.outcome, Rejected)
    assert "SYNCD_ALLOWED_OPERATIONS" in held.outcome.reason
    assert hold(OPEN, change, target(), "TRUE").outcome.proof is Proof.ACCEPTED


def test_consent_is_sent_as_given():
    change = SubscribeWithConsent(1, "5", True, "privé", True, "https://x.nl/p", "ja", False, "1.2.3.4")
    [request] = hold(OPEN, change, target(), "TRUE").requests
    assert request.path == "listmanagers/5/gdpr_subscribe"
    assert request.form == (
        ("relId", "7"), ("skipOptin", "Y"), ("privacyText", "privé"), ("privacyAgreement", "Y"),
        ("privacyUrl", "https://x.nl/p"), ("consentText", "ja"), ("consentAgreement", "N"), ("ip", "1.2.3.4"),
    )  # fmt: skip


def test_an_optin_step_is_skipped_only_when_asked():
    [request] = hold(OPEN, Subscribe(1, "5", False), target(), "TRUE").requests
    assert request.form == (("relId", "7"),)


def test_unsubscribing_is_read_back_on_a_repeat():
    event = '[{"campaignId":5,"relationId":7,"subscribedFlag":"%s","eventDate":"2026-01-01"}]'
    change = Unsubscribe(1, "5", "asked")
    assert hold(OPEN, change, REPEAT, event % "U").outcome.proof is Proof.VERIFIED
    assert isinstance(hold(OPEN, change, REPEAT, event % "S").outcome, Unknown)
    assert isinstance(hold(OPEN, change, REPEAT, answer("", 404)).outcome, Unknown)
    assert isinstance(hold(OPEN, change, REPEAT, answer("", 503)).outcome, Retryable)


def test_a_subscription_is_ended_once_and_then_read():
    change = EndSubscription("9", date(2027, 1, 31))
    held = hold(OPEN, change, target(), "true")
    assert held.requests[0].form == (("endDate", "31-01-2027"),)
    shown = '[{"orderId":1,"paid":"Y","orderlines":[{"subscriptionId":9,"subscriptionEndsAt":"31-01-2027"}]}]'
    again = hold(OPEN, change, REPEAT, shown)
    assert (again.operations, again.outcome.proof) == (["relation_orders"], Proof.VERIFIED)
    assert isinstance(hold(OPEN, change, REPEAT, shown.replace("2027", "2028")).outcome, Unknown)


def test_a_list_without_id_is_refused():
    assert isinstance(hold(OPEN, Subscribe(1, None, False), target()).outcome, Rejected)


def test_a_repeated_create_is_read_first():
    """What is there already needs no second upsert; what differs does, and it is harmless."""
    change = CreateRelation("a@b.nl", {"first_name": "Jan"})
    again = target(remote_id=None, is_repeat=True)
    there = hold(CRM, change, again, RELATION)
    assert (there.operations, there.outcome) == (
        ["relation_by_email"],
        Delivered(Proof.VERIFIED, "7", "an earlier try had arrived"),
    )
    assert hold(CRM, change, again, "null", RELATION).operations == ["relation_by_email", "relation_upsert"]
    other = RELATION.replace("Jan", "Piet")
    assert hold(CRM, change, again, other, RELATION).operations == ["relation_by_email", "relation_upsert"]
    assert isinstance(hold(CRM, change, again, answer("", 503)).outcome, Retryable)


def test_a_read_back_that_is_refused_decides_nothing_about_an_address():
    """Called a no, it would let a later edit make the relation anew elsewhere."""
    change = ChangeEmail("a@b.nl", "new@b.nl")
    assert isinstance(hold(CRM, change, REPEAT, answer("", 400)).outcome, Unknown)
    nobody = target(remote_id=None, is_repeat=True)
    assert isinstance(hold(CRM, change, nobody, "null", "null").outcome, Unknown)
    assert isinstance(hold(CRM, CreateRelation("a@b.nl", {}), nobody, answer("", 400)).outcome, Unknown)


def test_a_field_that_arrives_between_look_and_call_is_no_failure():
    """The late first try made the name ours; the second is refused because of it."""
    change, listed = CreateField("colour", "Colour", "string", ()), '[{"code":"9_FF1","name":"Colour"}]'
    in_use = answer('{"error":"name in use"}', 400)
    held = hold(CRM, change, REPEAT, "[]", in_use, listed)
    assert (held.operations, held.outcome.proof) == (["fields", "field_create", "fields"], Proof.VERIFIED)
    assert isinstance(hold(CRM, change, REPEAT, "[]", in_use, "[]").outcome, Rejected)
    assert isinstance(hold(CRM, change, target(), "[]", in_use).outcome, Rejected)


def test_a_standing_from_before_the_change_proves_nothing():
    """Whoever was subscribed long ago would else count as mailed by a call that never arrived."""
    shown = '[{"campaignId":5,"relationId":7,"subscribedFlag":"S","eventDate":"2026-01-01"}]'
    again = replace(REPEAT, since=datetime(2026, 3, 1, tzinfo=UTC))
    assert isinstance(hold(OPEN, Subscribe(1, "5", False), again, shown).outcome, Unknown)
    fresh = replace(REPEAT, since=datetime(2026, 1, 1, 9, tzinfo=UTC))
    assert hold(OPEN, Subscribe(1, "5", False), fresh, shown).outcome.proof is Proof.VERIFIED
    known = replace(fresh, stood_at=datetime(2026, 1, 1, 8, tzinfo=UTC))
    assert isinstance(hold(OPEN, Subscribe(1, "5", False), known, shown).outcome, Unknown)


def test_what_has_diverged_names_both_values_apart_from_its_words():
    """The incident holds them; logs and attempts hold the words."""
    held = hold(CRM, UpdateProfile({}, {"first_name": "Piet"}), target(), RELATION, RELATION)
    assert held.outcome.difference is not None
    assert held.outcome.difference.expected == {"first_name": "Piet"}
    assert held.outcome.difference.shown == {"first_name": "Jan"}
    assert "Piet" not in repr(held.outcome)
    address = hold(CHECKING, ChangeEmail("a@b.nl", "new@b.nl"), target(), "true", RELATION).outcome.difference
    assert address is not None
    assert (address.expected, address.shown) == ({"email": "new@b.nl"}, {"email": "A@b.nl"})
