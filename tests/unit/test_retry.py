"""Retry: pauses and budgets, from values alone."""

from dataclasses import replace

import pytest

from syncd.policy.retry import RetryPolicy

POLICY = RetryPolicy(base_s=2, cap_s=60, max_attempts=3, max_age_s=1000)


def test_pauses_double_up_to_the_cap() -> None:
    """Without a cap, a CRM that came back after a night would be noticed the next night."""
    assert [POLICY.delay_s(n, 1.0) for n in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("jitter", [0.0, 0.25, 0.999])
def test_jitter_is_full(jitter: float) -> None:
    """A thousand lanes that failed together must not come back together."""
    assert POLICY.delay_s(3, jitter) == 8 * jitter


def test_a_pause_that_the_crm_asked_for_is_kept_and_the_jitter_comes_after_it() -> None:
    """Even beyond our own cap: it knows better. But who was told the same must not come back at the same moment."""
    assert POLICY.delay_s(1, 0.0, 90) == 90
    assert POLICY.delay_s(1, 0.5, 90) == 91
    assert POLICY.delay_s(5, 0.25, 3) == 11


def test_ten_thousand_failures_do_not_overflow() -> None:
    """An operator may set the budget to a thousand tries."""
    assert POLICY.delay_s(10_000, 1.0) == 60


def test_the_budget_ends_by_tries_or_by_age() -> None:
    """Whichever is first; an old entry that one bad answer met, after a long pause or a retry, is not given up."""
    patient = replace(POLICY, max_attempts=12)
    assert not patient.is_spent(11, 999)
    assert patient.is_spent(12, 0)
    assert patient.is_spent(3, 1000)
    assert not patient.is_spent(2, 10**9)
    assert replace(POLICY, max_attempts=1).is_spent(1, 0)
