"""Breaker: many different entries failing in a row, or refused alike in a row, are one incident of the host's."""

from syncd.policy.breaker import Breaker, BreakerState

FRESH = Breaker(threshold=3, pause_s=5, pause_cap_s=15, rounds=2)
KIND = "400 maintenance"


def _opened() -> Breaker:
    breaker = FRESH
    for number in range(3):
        breaker = breaker.failed(number, f"entry {number}: 503")
    return breaker


def _refused(breaker: Breaker, *entries: int, kind: str = KIND) -> Breaker:
    for number in entries:
        breaker = breaker.refused(number, kind, f"{kind} for {number}")
    return breaker


def test_it_opens_after_enough_different_entries_failed() -> None:
    """Going on would spend every entry's budget on an outage."""
    assert FRESH.failed(1, "x").failed(2, "x").is_closed
    opened = _opened()
    assert opened.state is BreakerState.OPEN
    assert opened.cause is not None
    assert (opened.cause.count, opened.cause.reason, opened.cause.kind) == (3, "entry 2: 503", None)


def test_the_same_entries_failing_again_say_nothing_about_the_host() -> None:
    """Two poison entries that are retried in turn must not stop the account."""
    breaker = FRESH
    for number in range(40):
        breaker = breaker.failed(number % 2, "x")
    assert breaker.is_closed


def test_a_delivery_in_between_starts_the_count_anew() -> None:
    """In a row means in a row."""
    assert FRESH.failed(1, "x").failed(2, "x").delivered().failed(3, "x").is_closed
    assert _refused(_refused(FRESH, 1, 2).delivered(), 3, 4).is_closed


def test_a_host_that_answers_no_read_either_is_broken_at_once() -> None:
    """With three entries in the outbox there are never enough of them to notice."""
    assert not FRESH.failed(1, "x").unanswered("groups: 503").is_closed


def test_failed_probes_double_the_pause_up_to_the_cap() -> None:
    """A host that is down for a day is asked now and then, not every few seconds."""
    breaker, pauses = _opened(), []
    for _ in range(4):
        pauses.append(breaker.opening_pause_s)
        breaker = breaker.probing().probed(is_well=False)
    assert pauses == [5, 10, 15, 15]


def test_failures_while_open_are_not_counted() -> None:
    """What was under way when it opened belongs to the same incident."""
    assert _opened().failed(99, "x") == _opened()
    assert _refused(_opened(), 7, 8, 9, 10) == _opened()


def test_a_late_success_does_not_close_it() -> None:
    """An answer that was under way when the host went down says nothing about the host now."""
    assert _opened().delivered() == _opened()


def test_one_failure_on_trial_opens_it_again_for_longer() -> None:
    """Reads may work and writes not: to find that out with eight entries each time would be to hammer."""
    trial = _opened().probing().probed(is_well=True)
    assert (trial.is_closed, trial.is_on_trial) == (True, True)
    again = trial.failed(50, "x")
    assert (again.state, again.opening_pause_s) == (BreakerState.OPEN, 10)


def test_a_delivery_ends_the_trial() -> None:
    """From then on it takes as many failures as ever."""
    well = _opened().probing().probed(is_well=True).delivered()
    assert well.failed(50, "x").failed(51, "x").is_closed
    assert not well.is_on_trial


def test_refusals_that_are_alike_open_it_and_others_do_not() -> None:
    """A host in maintenance says the same to everybody; fifty mistakes of fifty kinds are fifty people's."""
    assert _refused(FRESH, 1, 2, 3).state is BreakerState.OPEN
    breaker = FRESH
    for number in range(30):
        breaker = _refused(breaker, number, kind=f"400 mistake {chr(97 + number)}")
    assert breaker.is_closed


def test_kinds_of_refusal_in_turns_are_counted_side_by_side() -> None:
    """Two operations of a host in maintenance may word it in two ways."""
    breaker = FRESH
    for number in range(5):
        breaker = _refused(breaker, number, kind=KIND if number % 2 == 0 else "400 closed")
    assert not breaker.is_closed


def test_a_kind_that_was_looked_into_often_enough_is_believed() -> None:
    """Fifty edits with a tag that does not exist must not stop the account for ever."""
    breaker = _refused(FRESH, 1, 2, 3)
    breaker = _refused(breaker.probing().probed(is_well=True), 9)
    assert not breaker.is_closed, "one of the same kind on trial is enough"
    breaker = _refused(breaker.probing().probed(is_well=True), *range(20))
    assert breaker.is_closed
    assert breaker.is_believed(KIND)
    assert not _refused(breaker, 1, 2, 3, kind="400 another").is_closed


def test_another_kind_of_refusal_does_not_fail_the_trial() -> None:
    """The first entry after an outage may well be a wrong one; that is no sign of the outage."""
    trial = _opened().probing().probed(is_well=True)
    assert _refused(trial, 50).is_closed


def test_rounds_for_one_kind_wait_longer_each_time() -> None:
    """Even when deliveries come in between: the host may be ill now and then for writes."""
    first = _refused(FRESH, 1, 2, 3)
    second = _refused(first.probing().probed(is_well=True).delivered(), 4, 5, 6)
    assert (first.opening_pause_s, second.opening_pause_s) == (5, 10)


def test_a_streak_of_an_earlier_process_is_gone_on_with() -> None:
    """A daemon that is killed after every second refusal would else kill the outbox two by two."""
    breaker = FRESH.remembering({KIND: frozenset({1, 2, 3, 4, 5})})
    assert breaker.is_closed, "what it left does not open it by itself"
    assert not _refused(breaker, 9).is_closed
    assert FRESH.remembering({KIND: frozenset({1})}).delivered() == FRESH
