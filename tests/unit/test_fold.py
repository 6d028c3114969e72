"""Fold: which calls a lane needs now, case by case. The laws over all cases are in tests/properties."""

import pytest
from msgspec.structs import replace

from syncd.domain.changes import LocalChange
from syncd.policy.fold import Entry, fold, watermark
from syncd.policy.landing import Landing
from tests.support.lanes import (
    EARLIER,
    LATER,
    NOW,
    add,
    create,
    email,
    end,
    entry,
    field,
    is_repeat_safe,
    join,
    lane,
    leave,
    new_field,
    plan,
    profile,
    remove,
    sent,
    subscribe,
    unsubscribe,
)


def test_the_last_of_add_and_remove_of_a_tag_is_sent_alone() -> None:
    """Tags start campaigns: a tag that was added and removed before we got to it must not start one."""
    made = plan(*lane(add(), remove()))
    assert sent(made) == [remove()]
    assert [e.seq for e in made.steps[0].superseded] == [1]


def test_the_last_value_of_a_field_is_sent_with_the_first_old_one() -> None:
    """The history must say from what the CRM's value really changed."""
    assert sent(plan(*lane(field("b", "a"), field("c", "b")))) == [field("c", "a")]


def test_profile_edits_merge_newest_value_over_oldest_known() -> None:
    """One call instead of three, and no column of any edit is forgotten."""
    made = plan(
        *lane(profile({"first_name": "A"}, first_name="B"), profile({"first_name": "B"}, first_name="C", gender="F"))
    )
    assert sent(made) == [profile({"first_name": "A"}, first_name="C", gender="F")]


def test_groups_keep_the_last_of_join_and_leave() -> None:
    """Joining and leaving are documented no-ops when they hold already, so the last one says it all."""
    assert sent(plan(*lane(join(), leave(), join()))) == [join()]


def test_calls_of_different_facets_go_in_the_order_of_their_carriers() -> None:
    """Commit order holds between facets as well: the folded tag belongs where its last value stood."""
    made = plan(*lane(add(1), add(2), remove(1)))
    assert sent(made) == [add(2), remove(1)]
    assert made.sending_upto == 3


@pytest.mark.parametrize("barrier", [create(), email("b@x.example"), subscribe(), unsubscribe()])
def test_a_barrier_is_sent_alone(barrier: object) -> None:
    """After a crash the intent must name one call, so that it is known which one to read back."""
    made = fold(lane(barrier, add(), field("x")), is_repeat_safe, NOW)  # type: ignore[arg-type]
    assert sent(made) == [barrier]
    assert made.steps[0].is_barrier
    assert made.is_more


def test_the_intent_of_a_call_that_is_not_repeat_safe_says_that_it_has_not_begun() -> None:
    """It is written for the whole claim; only what may simply be sent again may count as begun from there on."""
    assert [plan(*lane(add(1), change)).sending_upto for change in (remove(1), create(), subscribe())] == [2, 1, 1]
    assert plan(*lane(create())).sending_upto == 1
    assert [plan(*lane(change)).sending_upto for change in (subscribe(), end(), new_field())] == [-1, -1, -1]
    assert plan().sending_upto is None


def test_what_stands_before_a_barrier_goes_first() -> None:
    """Order of one relation is commit order."""
    made = plan(*lane(add(), email("b@x.example"), remove()))
    assert sent(made) == [add()]
    assert made.is_more


def test_nothing_is_folded_across_a_barrier_that_waits() -> None:
    """Two tag changes around a subscription may start two campaigns; folding them would start none."""
    made = plan(entry(1, add()), entry(2, subscribe(), next_attempt_at=LATER), entry(3, remove()))
    assert sent(made) == [add()]
    assert made.is_more, "the remove is due as soon as the add is settled"


def test_identity_that_waits_stops_everything_behind_it() -> None:
    """A call to a relation that is not there yet, or under another address, is worse than a late one."""
    made = plan(entry(1, create(), next_attempt_at=LATER), entry(2, add()))
    assert made.is_idle
    assert made.next_at == LATER


@pytest.mark.parametrize("status", ["dead", "parked", "held"])
def test_identity_that_needs_a_person_blocks_its_lane(status: str) -> None:
    """Nothing may be sent about a relation whose identity is in doubt."""
    made = plan(entry(1, create(), status), entry(2, add()), entry(3, email("b@x.example")))
    assert made.is_idle
    assert made.next_at is None


def test_a_facet_in_back_off_waits_with_all_that_is_later_in_it() -> None:
    """Sending the later value now would let the earlier one, tried again, overwrite it."""
    made = plan(entry(1, add(1), next_attempt_at=LATER), entry(2, add(2)), entry(3, remove(1)))
    assert sent(made) == [add(2)]
    assert made.next_at == LATER


def test_a_back_off_that_is_over_does_not_wait() -> None:
    """The lane is woken at that very instant."""
    assert sent(plan(entry(1, add(), next_attempt_at=NOW))) == [add()]


def test_an_earlier_value_waits_with_the_failed_call_that_carried_it() -> None:
    """It was part of a call that failed; alone it would be sent for nothing."""
    assert plan(entry(1, add()), entry(2, remove(), next_attempt_at=LATER)).is_idle


def test_a_dead_entry_blocks_nothing_but_itself() -> None:
    """One poison entry must not delay any other facet, and needs no call of its own."""
    made = plan(entry(1, add(1), "dead"), entry(2, add(2)))
    assert sent(made) == [add(2)]
    assert made.steps[0].superseded == ()


def test_a_later_value_supersedes_a_dead_one() -> None:
    """Once the CRM holds the later value, nobody needs to look at the dead one any more."""
    made = plan(entry(1, add(), "dead"), entry(2, remove()))
    assert [e.seq for e in made.steps[0].superseded] == [1]


def test_a_dead_profile_edit_lends_its_columns_to_a_later_edit() -> None:
    """The application wrote both; forgetting the first would lose a change."""
    made = plan(entry(1, profile(first_name="B", gender="Q"), "dead"), entry(2, profile(gender="F")))
    assert sent(made) == [profile(first_name="B", gender="F")]


def test_a_dead_entry_behind_a_retried_one_stays_dead() -> None:
    """An operator retried the earlier one only."""
    made = plan(entry(1, add()), entry(2, remove(), "dead"))
    assert sent(made) == [add()]
    assert made.steps[0].superseded == ()


@pytest.mark.parametrize("barrier", ["parked", "dead"])
def test_what_waits_for_a_person_is_not_overtaken_beyond_a_barrier(barrier: str) -> None:
    """A gender waits until a person has decided about the one behind it, which may have been applied. Were the next
    gender sent meanwhile, this one would follow it."""
    waiting = (entry(1, profile(gender="M")), entry(2, profile(gender="B"), "dead", is_uncertain=True))
    made = plan(*waiting, entry(3, subscribe(), barrier), entry(4, profile(gender="F")), entry(5, add()))
    assert sent(made) == [add()]


def test_a_profile_edit_is_not_kept_by_one_of_other_columns_that_may_have_been_applied() -> None:
    """Neither undoes the other; a person may retry the one, and decide about the other later."""
    other = entry(2, profile(first_name="B"), "dead", is_uncertain=True)
    made = plan(entry(1, profile(gender="M")), other)
    assert sent(made) == [profile(gender="M")]
    assert made.steps[0].superseded == ()


@pytest.mark.parametrize("status", ["parked", "held"])
def test_a_parked_or_held_entry_blocks_its_facet_until_a_person_decides(status: str) -> None:
    """Nobody knows what the CRM holds; a later value of that facet must not be sent over it."""
    assert sent(plan(entry(1, add(1), status), entry(2, remove(1)), entry(3, add(2)))) == [add(2)]


def test_a_dead_subscription_is_not_superseded() -> None:
    """Unsubscribing somebody who was never subscribed leaves a note at the CRM: that is not "the later value"."""
    assert plan(entry(1, subscribe(), "dead"), entry(2, unsubscribe())).is_idle


def test_a_once_entry_that_waits_delays_its_own_facet_only() -> None:
    """G6 holds for subscriptions as well."""
    made = plan(entry(1, subscribe(1), next_attempt_at=LATER), entry(2, unsubscribe(1)), entry(3, subscribe(2)))
    assert sent(made) == [subscribe(2)]


def test_a_dead_value_before_a_waiting_barrier_does_not_block_its_facet() -> None:
    """It can neither be sent nor folded across; the later value goes alone."""
    made = plan(entry(1, add(), "dead"), entry(2, subscribe(), "parked"), entry(3, remove()))
    assert sent(made) == [remove()]


def test_an_entry_that_nobody_can_read_is_broken_and_the_rest_goes_on() -> None:
    """A payload of another version must cost its own facet only."""
    made = plan(entry(1, None, fault="no"), entry(2, add(2)))
    assert [e.seq for e in made.broken] == [1]
    assert sent(made) == [add(2)]


def test_an_unreadable_identity_stops_its_lane() -> None:
    """Who the rest is about is not known."""
    made = plan(entry(1, None, facet="identity", operation="create_relation"), entry(2, add(2)))
    assert [e.seq for e in made.broken] == [1]
    assert made.steps == ()


def test_a_diverged_entry_is_passed_and_a_later_value_supersedes_it() -> None:
    """It was delivered; the CRM shows something else, which the later value mends."""
    made = plan(entry(1, field("a"), "diverged"), entry(2, field("b")))
    assert [e.seq for e in made.steps[0].superseded] == [1]
    assert plan(entry(1, field("a"), "diverged")).is_idle


def again(seq: int, change: object, status: str = "pending", **given: object) -> Entry:
    """A reassertion: says once more what entry 900 was in doubt about."""
    return entry(seq, change, status, reasserts=900, **given)  # type: ignore[arg-type]


def test_a_reassertion_that_waits_delays_nobody() -> None:
    """It repeats what is delivered already; newer edits of its facet are news."""
    made = plan(again(1, add(), next_attempt_at=LATER), entry(2, remove()), entry(3, add(2)))
    assert sent(made) == [remove(), add(2)]
    assert all(step.superseded == () for step in made.steps), "its window is not over: the matter is not ended"
    assert made.next_at == LATER


def test_an_identity_reassertion_that_waits_does_not_stop_its_lane() -> None:
    """Every other identity entry would; this one is about an address that was delivered."""
    waiting = again(1, email("b@x.example"), next_attempt_at=LATER)
    assert sent(plan(waiting, entry(2, add()))) == [add()]
    assert sent(plan(waiting, entry(2, email("c@x.example")))) == [email("c@x.example")]


def test_a_due_reassertion_is_sent() -> None:
    """Nobody changed the facet since: its last value is said once more."""
    for change in (add(), field("a"), profile(gender="F"), email("b@x.example")):
        made = plan(again(1, change, next_attempt_at=NOW))
        assert sent(made) == [change]
        assert not made.steps[0].is_barrier, "it must be able to fail without blocking anybody"


@pytest.mark.parametrize("newer_seq", [1, 9])
def test_a_newer_value_supersedes_a_due_reassertion(newer_seq: int) -> None:
    """Sent after the window it ends the matter, wherever in the lane it stands."""
    due = again(5, profile(first_name="A", gender="F"))
    made = plan(*sorted((due, entry(newer_seq, profile(first_name="B"))), key=lambda e: e.seq))
    assert sent(made) == [profile(first_name="B", gender="F")]
    assert (made.steps[0].carrier.seq, [e.seq for e in made.steps[0].superseded]) == (newer_seq, [5])


def test_a_newer_address_supersedes_a_due_reassertion() -> None:
    """The older address must not be set again for a moment: somebody may be mailed there."""
    made = plan(again(1, email("b@x.example")), entry(2, email("c@x.example")))
    assert sent(made) == [email("c@x.example")]
    assert [e.seq for e in made.steps[0].superseded] == [1]


@pytest.mark.parametrize("newer", [remove(), email("c@x.example")])
def test_a_due_reassertion_waits_with_a_newer_value_that_backs_off(newer: LocalChange) -> None:
    """That one may have been applied: the older value would undo it until its next try."""
    older = again(1, add() if newer == remove() else email("b@x.example"))
    made = plan(older, entry(2, newer, next_attempt_at=LATER))
    assert made.is_idle
    assert made.next_at == LATER


def test_a_due_reassertion_goes_before_a_barrier() -> None:
    """What a subscription sees must be what was delivered before it."""
    made = plan(entry(1, subscribe()), again(2, add()))
    assert sent(made) == [add()]
    assert made.is_more


@pytest.mark.parametrize("status", ["dead", "held"])
def test_a_reassertion_that_a_person_must_see_blocks_nobody(status: str) -> None:
    """The change itself was delivered long ago."""
    assert sent(plan(again(1, email("b@x.example"), status), entry(2, add()))) == [add()]
    assert sent(plan(again(1, add(), status), entry(2, remove()))) == [remove()]


def test_a_reassertion_settles_what_is_shown_otherwise() -> None:
    """It says what was delivered last, so nobody needs to look at what the CRM made of that the first time; whether
    that one was in doubt itself, and wherever it stands."""
    shown = entry(1, field("b"), "diverged"), entry(1, field("b"), "diverged", is_uncertain=True)
    for diverged in shown:
        made = plan(diverged, again(2, field("b")))
        assert (sent(made), [e.seq for e in made.steps[0].superseded]) == ([field("b")], [1])
    moved = plan(entry(1, email("b@x.example"), "diverged"), again(2, email("b@x.example")))
    assert (sent(moved), [e.seq for e in moved.steps[0].superseded]) == ([email("b@x.example")], [1])
    dead = plan(entry(1, field("b"), "diverged"), again(2, field("b")), entry(3, field("c"), "dead"))
    assert [e.seq for e in dead.steps[0].superseded] == [1], "what was refused is no part of it"


def test_a_value_in_doubt_that_is_retried_stays_behind_a_newer_one_that_is_shown_otherwise() -> None:
    """The newer one was delivered: the older must not follow it, whatever the CRM shows."""
    older, newer = entry(1, field("a")), entry(2, field("b"), "diverged", is_uncertain=True)
    assert plan(older, newer).is_idle


def test_an_address_is_not_changed_while_a_profile_edit_may_still_land() -> None:
    """The CRM finds by address: landing behind the change, the old call would make a second relation of the old one."""
    late = Landing(profile_until=LATER)
    made = plan(entry(2, email("b@x.example")), entry(3, add()), landing=late)
    assert (made.steps, made.next_at, made.is_barred) == ((), LATER, True)
    made = plan(entry(1, profile(first_name="A")), entry(2, email("b@x.example")), landing=late)
    assert (sent(made), made.next_at) == ([profile(first_name="A")], LATER), "another call by the same address may go"


def test_a_profile_is_not_edited_while_an_address_may_still_change() -> None:
    """The call looks the address up first: it could change between the look and the edit."""
    late = Landing(address_until=LATER)
    for edited in (entry(2, profile(first_name="A")), again(2, profile(first_name="A"))):
        made = plan(edited, entry(3, add()), landing=late)
        assert (sent(made), made.next_at) == ([add()], LATER)


@pytest.mark.parametrize("barrier", [subscribe(), email("b@x.example")])
def test_a_barrier_waits_for_a_profile_edit_before_it_that_waits_for_an_address(barrier: LocalChange) -> None:
    """That one has not failed: a mail that tells the name must not go before it. Neither does what follows it."""
    late = Landing(address_until=LATER)
    made = plan(entry(1, profile(first_name="A")), entry(3, barrier), entry(4, add(2)), landing=late)
    assert (made.steps, made.next_at) == ((), LATER)
    made = plan(entry(1, profile(first_name="A")), entry(2, add()), entry(3, barrier), landing=late)
    assert (sent(made), made.next_at) == ([add()], LATER)
    made = plan(entry(3, barrier), entry(4, profile(first_name="A")), landing=late)
    assert sent(made) == [barrier], "one behind it is not in its way"


def test_an_address_is_not_said_again_while_a_profile_edit_may_still_land() -> None:
    """To say it again may change it; the edit would then land by an address that nobody has any more."""
    made = plan(again(1, email("b@x.example")), entry(2, add()), landing=Landing(profile_until=LATER))
    assert (sent(made), made.next_at) == ([add()], LATER)


def test_an_address_is_said_again_before_a_profile_is_edited_and_not_beside_it() -> None:
    """Each call's answer may be lost; the other would be under way already."""
    edit = profile(first_name="A")
    made = plan(entry(1, edit), again(2, email("b@x.example")), entry(3, add()))
    assert (sent(made), made.is_more) == ([email("b@x.example"), add()], True)
    assert sent(plan(entry(1, edit), again(2, email("b@x.example"), next_attempt_at=LATER))) == [edit]


def test_a_create_does_not_wait_for_its_own_late_call() -> None:
    """It is keyed on the address that it gives: it may go again, and only then is there an id to change it by."""
    late = Landing(profile_until=LATER)
    assert sent(plan(entry(1, create(first_name="A")), landing=late)) == [create(first_name="A")]
    refused = entry(1, create(first_name="A"), "dead", is_refused=True)
    moved = entry(2, email("b@x.example"), is_uncertain=True)
    assert sent(plan(refused, moved, landing=late)) == [create("b@x.example", first_name="A")]


def test_a_reassertion_leaves_columns_that_it_does_not_say_to_a_person() -> None:
    """A profile edit that is shown otherwise may be of other columns: nobody has said those again."""
    shown = entry(1, profile(last_name="A"), "diverged")
    assert plan(shown, again(2, profile(first_name="B"))).steps[0].superseded == ()
    said = plan(shown, again(2, profile(first_name="B", last_name="A")))
    assert [e.seq for e in said.steps[0].superseded] == [1]


def test_a_rejected_newer_value_leaves_the_reassertion_to_be_sent() -> None:
    """What the CRM refused changed nothing; what was delivered before it still has to stand."""
    made = plan(again(1, add()), entry(2, remove(), "dead"))
    assert sent(made) == [add()]


@pytest.mark.parametrize(
    ("older", "newer"), [(subscribe(), unsubscribe()), (email("b@x.example"), email("c@x.example"))]
)
def test_a_later_barrier_supersedes_a_diverged_one_of_its_facet(older: LocalChange, newer: LocalChange) -> None:
    """Once the later one is delivered, nobody needs to look at what the earlier came to."""
    made = plan(entry(1, older, "diverged"), entry(2, newer))
    assert [e.seq for e in made.steps[0].superseded] == [1]


@pytest.mark.parametrize("taker", [create("a@x.example"), email("a@x.example")])
def test_what_takes_an_address_that_another_lane_leaves_keeps_all_behind_it(taker: LocalChange) -> None:
    """The CRM would take the one relation for the other; what stands before it is about the relation as it is."""
    made = plan(entry(1, add(1)), entry(2, taker, awaits=7), entry(3, add(2)))
    assert sent(made) == [add(1)]
    assert made.is_barred
    assert made.next_at is not None


def test_who_waits_for_another_lane_is_looked_at_when_the_store_says() -> None:
    """A back-off of an hour there is no reason to ask every minute here."""
    assert plan(entry(1, create(), awaits=7, awaits_until=LATER)).next_at == LATER


def test_a_lane_that_sends_before_what_waits_is_looked_at_again_at_once() -> None:
    """The wait may be over by the time those calls are settled, and nobody wakes a lane that is being sent."""
    assert plan(entry(1, add()), entry(2, email("a@x.example"), awaits=7)).is_more
    assert not plan(entry(2, email("a@x.example"), awaits=7)).is_more


def test_an_email_change_that_waits_for_another_lane_is_superseded_by_a_later_one() -> None:
    """Else two lanes could wait in a circle, and no address that a person gives would end it."""
    waiting = entry(1, email("a@x.example"), awaits=7)
    made = plan(waiting, entry(2, add()), entry(3, email("b@x.example")))
    assert sent(made) == [email("b@x.example")]
    assert [e.seq for e in made.steps[0].superseded] == [1]
    assert made.is_more
    both = plan(replace(waiting, awaits_until=EARLIER), entry(3, email("b@x.example"), awaits=8, awaits_until=LATER))
    assert sent(both) == []
    assert both.next_at == EARLIER


def test_what_was_passed_goes_out_when_the_later_change_was_refused_after_all() -> None:
    """Its last answer tells: an earlier one was lost, and the CRM has said no since."""
    refused = entry(2, email("b@x.example"), "dead", is_uncertain=True, is_refused=True, attempts=2)
    assert sent(plan(entry(1, email("a@x.example")), refused)) == [email("a@x.example")]


def test_a_part_of_a_lane_goes_by_what_it_is_told_of_the_rest() -> None:
    """What waits as a whole is not read on; what a later address frees, or has passed, is."""
    waiting, free = entry(1, email("a@x.example"), awaits=7), entry(1, email("a@x.example"))
    assert plan(replace(waiting, moves_on=True)).is_barred is False
    assert sent(plan(replace(free, moves_on=True))) == [email("a@x.example")]
    passed = plan(replace(free, has_moved_on=True))
    assert (sent(passed), passed.is_barred) == ([], False)


def test_a_create_that_waits_for_another_lane_is_passed_by_nothing() -> None:
    """It would be forgotten that it was sent under another address, and be sent once more when its wait is over."""
    assert sent(plan(entry(1, create(), awaits=7), entry(2, email("b@x.example")))) == []


@pytest.mark.parametrize("status", ["pending", "dead", "parked"])
def test_what_was_passed_stays_passed_once_the_later_change_may_have_been_applied(status: str) -> None:
    """Sent after it, the older address would undo the newer; behind a refused create, it would make a relation more."""
    refused, older = entry(1, create(), "dead", is_refused=True), entry(2, email("a@x.example"))
    tried = entry(3, email("b@x.example"), status, is_uncertain=True, attempts=1)
    made = plan(refused, older, tried)
    assert sent(made) == ([create("b@x.example")] if status == "pending" else [])
    assert sent(plan(older, entry(3, email("b@x.example"), attempts=1))) == [email("a@x.example")]


def test_an_empty_lane_has_an_idle_plan() -> None:
    """Claims see such lanes after a person skipped the last entry."""
    assert plan().is_idle


def test_the_cursor_passes_dead_and_parked_entries_and_stops_before_pending_and_held_ones() -> None:
    """The cursor says up to where everything is settled; what waits for a person no longer holds it."""
    entries = [entry(3, add(1), "dead"), entry(4, add(2)), entry(5, add(3), "held")]
    assert watermark(entries, set(), 9) == 3
    assert watermark(entries, {4}, 9) == 4
    assert watermark(entries, {4, 5}, 9) == 9
    assert EARLIER < NOW


def test_a_barrier_that_waits_does_not_part_a_reassertion_from_a_newer_change() -> None:
    """The newer one may have been applied already: the older value must not be said after it, barrier or not."""
    parked, newer = entry(1, unsubscribe(), "parked"), field("b")
    again = entry(3, field("a"), reasserts=900, next_attempt_at=EARLIER)
    waiting = entry(2, newer, attempts=1, is_uncertain=True, next_attempt_at=LATER)
    assert sent(plan(parked, waiting, again)) == []
    assert sent(plan(parked, entry(2, newer), again)) == [newer]


def test_a_lane_with_a_reassertion_behind_a_parked_call_goes_on() -> None:
    """Else the e-mail change, and all that waits behind it, would sleep for ever."""
    again = entry(3, email("a@x.example"), reasserts=900, next_attempt_at=EARLIER)
    made = plan(entry(1, unsubscribe(), "parked"), entry(2, email("b@x.example")), again)
    assert sent(made) == [email("b@x.example")]
    assert made.steps[0].superseded == (again,)


def test_a_value_is_not_said_again_after_a_newer_one_that_may_have_been_applied() -> None:
    """It was given up in doubt: only a newer change, or a person, can follow it."""
    again, given_up = entry(3, field("a"), reasserts=900, next_attempt_at=EARLIER), field("b")
    assert sent(plan(entry(2, given_up, "dead", is_uncertain=True), again)) == []
    assert sent(plan(entry(2, given_up, "dead"), again)) == [field("a")]
    assert sent(plan(entry(2, given_up, "dead", is_uncertain=True), again, entry(4, field("c")))) == [field("c")]


def test_a_value_is_said_again_after_an_older_one_that_may_still_land() -> None:
    """It was delivered after that one, behind a barrier, and for its sake it is said again."""
    given_up, parked = entry(1, field("a"), "dead", is_uncertain=True), entry(2, unsubscribe(), "parked")
    again = entry(4, field("b"), reasserts=given_up.id, next_attempt_at=EARLIER)
    made = plan(given_up, parked, again)
    assert sent(made) == [field("b")]
    assert made.steps[0].superseded == (), "what is dead before the barrier stays there"
    newer = entry(5, field("c"), attempts=1, is_uncertain=True, next_attempt_at=LATER)
    assert sent(plan(given_up, parked, again, newer)) == [], "not after one that may have been applied"


@pytest.mark.parametrize(
    ("barrier", "is_sent"),
    [
        (entry(1, unsubscribe()), True),
        (entry(1, email("a@x.example")), True),
        (entry(1, email("a@x.example"), "held"), False),
        (entry(1, email("a@x.example"), "dead", is_refused=True), False),
    ],
    ids=["a call once", "an address", "a held address", "a refused address"],
)
def test_a_value_is_not_said_again_while_a_newer_one_in_doubt_stands_behind_a_barrier(
    barrier: Entry, is_sent: bool
) -> None:
    """The newer value went out before the barrier was retried, and its answer was lost. It waits behind the barrier
    now, and nothing may tell the CRM the older value before it."""
    again, newer = entry(3, field("a"), reasserts=900, next_attempt_at=EARLIER), entry(2, field("b"))
    in_doubt = entry(2, field("b"), is_uncertain=True)
    assert sent(plan(barrier, in_doubt, again)) == ([barrier.change] if is_sent else [])
    assert sent(plan(barrier, newer, again)) == [field("a")], "one that was never sent is no hindrance"
    after = plan(in_doubt, again)
    assert (sent(after), [e.seq for e in after.steps[0].superseded]) == ([field("b")], [3])
