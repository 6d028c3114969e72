"""Outcome: what the end of a conversation means for its entry. Every row here protects G2 or somebody's patience."""

import pytest

from syncd.policy.outcome import Circumstances, Ending, Verdict, verdict
from syncd.policy.states import EntryStatus, may_move

PENDING, DEAD, PARKED = EntryStatus.PENDING, EntryStatus.DEAD, EntryStatus.PARKED


def now(**given: bool) -> Circumstances:
    plain = {"is_barrier": False, "is_once": False, "is_repeat": False, "is_spent": False}
    return Circumstances(**{**plain, **given})


@pytest.mark.parametrize("ending", [Ending.THROTTLED, Ending.UNAUTHORISED, Ending.UNTOUCHED])
def test_trouble_of_the_account_costs_an_entry_nothing(ending: Ending) -> None:
    """A key that was revoked over the weekend must not kill a weekend of changes."""
    assert verdict(ending, now(is_spent=True)) == Verdict(PENDING, is_tried=False)


@pytest.mark.parametrize("ending", [Ending.RETRYABLE, Ending.UNKNOWN])
def test_failures_while_the_breaker_is_open_cost_an_entry_nothing(ending: Ending) -> None:
    """Its budget is for its own trouble; a host that goes away in mid-answer is the account's."""
    found = verdict(ending, now(is_account_down=True, is_spent=True))
    assert (found.status, found.is_tried) == (PENDING, False)
    assert found.is_uncertain is (ending is Ending.UNKNOWN), "the doubt is not forgotten with the attempt"


def test_rejected_is_dead() -> None:
    """Repeating will not help; a person or a later value will."""
    assert verdict(Ending.REJECTED, now()) == Verdict(DEAD)


def test_a_refusal_by_an_account_that_is_down_is_no_verdict() -> None:
    """A host in maintenance refuses everybody; that must not be the end of anything."""
    assert verdict(Ending.REJECTED, now(is_account_down=True)) == Verdict(PENDING, is_tried=False)


def test_retryable_waits_until_its_budget_is_spent() -> None:
    """Then it is dead, with the last reason."""
    assert verdict(Ending.RETRYABLE, now()) == Verdict(PENDING)
    assert verdict(Ending.RETRYABLE, now(is_spent=True)) == Verdict(DEAD)


def test_a_barrier_that_may_have_been_applied_is_never_called_dead() -> None:
    """Dead means that it did not happen; of this one nobody knows."""
    assert verdict(Ending.RETRYABLE, now(is_barrier=True, is_repeat=True, is_spent=True)) == Verdict(PARKED)


def test_unknown_and_repeat_safe_is_sent_again_and_the_doubt_is_kept() -> None:
    """The second identical call changes nothing; the first may still land after a third that says something else."""
    assert verdict(Ending.UNKNOWN, now()) == Verdict(PENDING, is_uncertain=True)
    assert verdict(Ending.UNKNOWN, now(is_spent=True)) == Verdict(DEAD, is_uncertain=True)


def test_a_gateway_that_lost_patience_leaves_the_same_doubt() -> None:
    """502 and 504 are the proxy's words: the server behind it may be at work on the request still."""
    assert verdict(Ending.RETRYABLE, now(may_land_late=True)) == Verdict(PENDING, is_uncertain=True)
    assert verdict(Ending.RETRYABLE, now(may_land_late=True, is_account_down=True)).is_uncertain
    spent = verdict(Ending.RETRYABLE, now(may_land_late=True, is_barrier=True, is_spent=True))
    assert spent == Verdict(PARKED, is_uncertain=True)


@pytest.mark.parametrize("is_once", [True, False])
def test_unknown_barrier_is_tried_again_by_reading_back(is_once: bool) -> None:
    """The mark makes the next conversation look before it sends."""
    assert verdict(Ending.UNKNOWN, now(is_barrier=True, is_once=is_once)) == Verdict(PENDING, is_uncertain=True)


def test_a_once_call_that_reading_cannot_decide_is_parked() -> None:
    """Twice a mail is worse than one that a person looks at."""
    assert verdict(Ending.UNKNOWN, now(is_barrier=True, is_once=True, is_repeat=True)).status is PARKED


def test_an_identity_change_is_read_back_again_until_its_budget_is_spent() -> None:
    """It is harmless to repeat; reading may tell next time."""
    again = verdict(Ending.UNKNOWN, now(is_barrier=True, is_repeat=True))
    assert again == Verdict(PENDING, is_uncertain=True)
    assert verdict(Ending.UNKNOWN, now(is_barrier=True, is_repeat=True, is_spent=True)).status is PARKED


def test_every_verdict_is_a_move_that_the_state_table_allows() -> None:
    """States are tables; a verdict outside the table would be refused by nobody."""
    for ending in set(Ending) - {Ending.DELIVERED}:
        for bits in range(64):
            flags = [bool(bits >> shift & 1) for shift in range(6)]
            status = verdict(ending, Circumstances(*flags)).status
            assert status is PENDING or may_move(PENDING, status)
