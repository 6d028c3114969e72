"""Witnesses and absence: when an answer is believed, and when a row that it lacks is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.policy import absence, witness
from syncd.policy.absence import Absence
from syncd.policy.witness import Verdict, WitnessRule

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
RULE = WitnessRule(few=3, max_gone_share=0.1)


@pytest.mark.parametrize(
    ("known", "gone", "received", "verdict"),
    [
        (0, 0, 0, Verdict.BELIEVED),
        (10, 0, 10, Verdict.BELIEVED),
        (10, 3, 7, Verdict.CONFIRM),
        (100, 10, 90, Verdict.CONFIRM),
        (100, 11, 89, Verdict.REFUSED),
        (4, 4, 9, Verdict.REFUSED),
        (1, 1, 0, Verdict.REFUSED),
    ],
)
def test_a_few_may_be_gone_and_an_empty_answer_is_never_believed(
    known: int, gone: int, received: int, verdict: Verdict
) -> None:
    """The table is the rule: one deleted row is life, an empty account is an incident."""
    assert witness.judge(known, gone, received, RULE) is verdict


def test_a_single_group_may_be_empty_by_the_same_count() -> None:
    """The last member of a group may leave it; a hundred at once may not."""
    rule = WitnessRule(few=3, max_gone_share=0.1, may_be_empty=True)
    assert witness.judge(2, 2, 0, rule) is Verdict.CONFIRM
    assert witness.judge(100, 100, 0, rule) is Verdict.REFUSED


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_an_answer_that_lacks_nothing_is_believed_and_more_gone_is_never_better(
    known: int, gone: int, received: int
) -> None:
    """Doubt must grow with what is missing."""
    order = list(Verdict)
    assert witness.judge(known, 0, received, RULE) is Verdict.BELIEVED
    more = witness.judge(known, gone + 1, received, RULE)
    assert order.index(more) >= order.index(witness.judge(known, gone, received, RULE))


def test_absence_counts_twice_apart_in_time() -> None:
    """Two answers of one bad hour are one piece of news."""
    assert absence.judge(None, NOW, 3600) is Absence.NOTED
    assert absence.judge(NOW - timedelta(seconds=3599), NOW, 3600) is Absence.WAITING
    assert absence.judge(NOW - timedelta(seconds=3600), NOW, 3600) is Absence.CONFIRMED
