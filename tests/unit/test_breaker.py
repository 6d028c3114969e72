"""Breaker: many different entries failing in a row are one incident of the host's."""

from syncd.policy.breaker import Breaker, BreakerState

FRESH = Breaker(threshold=3, pause_s=5, pause_cap_s=15)


def _opened(at: float = 100.0) -> Breaker:
    breaker = FRESH
    for number in range(3):
        breaker = breaker.failed(number, at)
    return breaker


def test_it_opens_after_enough_different_entries_failed() -> None:
    """Going on would spend every entry's budget on an outage."""
    assert FRESH.failed(1, 0).failed(2, 0).state is BreakerState.CLOSED
    assert _opened().state is BreakerState.OPEN


def test_the_same_entry_failing_again_says_nothing_about_the_host() -> None:
    """A poison entry that is retried alone must not stop the account."""
    breaker = FRESH
    for _ in range(20):
        breaker = breaker.failed(7, 0)
    assert breaker.state is BreakerState.CLOSED


def test_a_success_in_between_starts_the_count_anew() -> None:
    """In a row means in a row."""
    assert FRESH.failed(1, 0).failed(2, 0).succeeded().failed(3, 0).state is BreakerState.CLOSED


def test_a_probe_waits_for_the_pause_and_closes_it() -> None:
    """A safe read, never a delivery, finds out whether the host is back."""
    breaker = _opened(at=100.0)
    assert breaker.probe_wait_s(102.0) == 3.0
    assert breaker.probe_wait_s(105.0) == 0.0
    assert breaker.probing().state is BreakerState.HALF_OPEN
    assert breaker.probing().succeeded() == FRESH.__class__(3, 5, 15, opened_at=100.0)


def test_failed_probes_double_the_pause_up_to_the_cap() -> None:
    """A host that is down for a day is asked now and then, not every few seconds."""
    breaker, pauses = _opened(), []
    for _ in range(4):
        pauses.append(breaker.probe_wait_s(breaker.opened_at))
        breaker = breaker.probing().probe_failed(200.0)
    assert pauses == [5, 10, 15, 15]


def test_failures_while_open_are_not_counted() -> None:
    """What was under way when it opened belongs to the same incident."""
    assert _opened().failed(99, 300.0) == _opened()
