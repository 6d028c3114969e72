"""The promises made to the CRM's host, over all sequences of events: rate, width, and silence while it is ill."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.policy.breaker import Breaker, BreakerState
from syncd.policy.limiter import Concurrency, TokenBucket
from tests.support.clock import ManualClock

RATES = st.floats(0.5, 50)
STEPS = st.lists(st.tuples(st.floats(0, 0.5), st.booleans(), RATES), min_size=1, max_size=80)


@given(STEPS, RATES)
def test_no_window_holds_more_than_the_burst_and_what_its_time_earned(
    steps: list[tuple[float, bool, float]], rate: float
) -> None:
    """Over every window between any two requests, also when the share of the rate changes in between."""
    bucket, now, sent_at, most = TokenBucket.full(rate, 0.0), 0.0, [], rate
    for step, is_change, new_rate in steps:
        now += step
        if is_change:
            bucket, most = bucket.at_rate(new_rate, now), max(most, new_rate)
        bucket, wait_s = bucket.take(now)
        sent_at.append(now + wait_s)
    burst = max(1.0, most / 10)
    for first in range(len(sent_at)):
        for last in range(first, len(sent_at)):
            assert last - first + 1 <= 1 + burst + most * (sent_at[last] - sent_at[first]) + 1e-6


@given(STEPS, RATES, st.integers(2, 5))
def test_replicas_that_share_a_rate_keep_it_together(
    steps: list[tuple[float, bool, float]], rate: float, replicas: int
) -> None:
    """Each takes its share: all of them together are one client to the CRM."""
    buckets = [TokenBucket.full(rate, 0.0).at_rate(rate / replicas, 0.0) for _ in range(replicas)]
    now, sent_at = 0.0, []
    for index, (step, _, _) in enumerate(steps):
        now += step
        buckets[index % replicas], wait_s = buckets[index % replicas].take(now)
        sent_at.append(now + wait_s)
    sent_at.sort()
    burst = sum(max(1.0, rate / replicas / 10) for _ in range(replicas))
    for first in range(len(sent_at)):
        for last in range(first, len(sent_at)):
            assert last - first + 1 <= replicas + burst + rate * (sent_at[last] - sent_at[first]) + 1e-6


@given(st.integers(1, 64), st.lists(st.sampled_from(["succeeded", "strained", "restarted"]), max_size=200))
def test_width_stays_between_one_and_the_most(most: int, events: list[str]) -> None:
    """The setting is a promise; and with less than one nothing would ever be sent again."""
    width = Concurrency.widest(most)
    for event in events:
        before = width.allowed
        width = getattr(width, event)()
        assert 1 <= width.allowed <= most
        if event == "restarted":
            assert width.allowed == 1
        if event == "succeeded":
            assert before <= width.allowed <= before + 1


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["delivered", "failed", "refused", "unanswered", "probing", "well", "ill", "followed", "freed"]
        ),
        st.integers(1, 12),
    ),
    max_size=120,
)


@given(EVENTS)
def test_only_a_probe_or_another_replica_closes_an_open_breaker(events: list[tuple[str, int]]) -> None:
    """No delivery, however successful, and no failure closes it; and what it counts is bounded."""
    breaker = Breaker(threshold=4, pause_s=1, pause_cap_s=60, rounds=3)
    for event, number in events:
        before, breaker = breaker, _after(breaker, event, number)
        if not before.is_closed and breaker.is_closed:
            assert event in ("well", "freed")
        if before.is_closed and not breaker.is_closed:
            assert event in ("failed", "refused", "unanswered", "followed")
            assert event == "followed" or breaker.cause is not None
        assert len(breaker.failing) < breaker.threshold
        assert all(len(entries) < breaker.threshold for entries in breaker.refusing.values())
        assert 1 <= breaker.opening_pause_s <= 60
        assert all(rounds <= breaker.rounds for rounds in breaker.suspicions.values())


def _after(breaker: Breaker, event: str, number: int) -> Breaker:
    match event:
        case "delivered":
            return breaker.delivered()
        case "failed":
            return breaker.failed(number, "x")
        case "refused":
            return breaker.refused(number, f"kind {number % 2}", "x")
        case "unanswered":
            return breaker.unanswered("x")
        case "probing":
            return breaker if breaker.is_closed else breaker.probing()
        case "followed":
            return breaker.following(is_broken=True, is_on_trial=False, openings=number)
        case "freed":
            return breaker.following(is_broken=False, is_on_trial=bool(number % 2), openings=number)
        case _ if breaker.state is not BreakerState.HALF_OPEN:
            return breaker
        case _:
            return breaker.probed(is_well=event == "well")


@given(EVENTS, st.integers(1, 16))
def test_nothing_is_sent_unless_the_breaker_is_closed_and_after_it_one_at_a_time(
    events: list[tuple[str, int]], most: int
) -> None:
    """``is_open`` is what every worker asks before every conversation."""
    clock = ManualClock()
    pace = Pace(DrainLimits(concurrency=most, breaker_failures=4), clock)
    for event, number in events:
        was_open = pace.is_open
        _acts(pace)[event](number)
        if not pace.breaker.is_closed:
            assert not pace.is_open
        if pace.is_open and not was_open:
            assert pace.allowed == 1
        assert 1 <= pace.allowed <= most


def _acts(pace: Pace) -> dict[str, Callable[[int], None]]:
    return {
        "delivered": lambda n: pace.delivered("add_tag"),
        "failed": lambda n: pace.failed(n, "x"),
        "refused": lambda n: pace.declined(n, 400, "x"),
        "unanswered": lambda n: pace.move(pace.breaker.unanswered("x")),
        "probing": lambda n: pace.move(_after(pace.breaker, "probing", n)),
        "well": lambda n: pace.move(_after(pace.breaker, "well", n)),
        "ill": lambda n: pace.move(_after(pace.breaker, "ill", n)),
        "followed": lambda n: pace.move(_after(pace.breaker, "followed", n)),
        "freed": lambda n: pace.hold() if n % 2 else pace.reopen(is_lifted=True),
    }
