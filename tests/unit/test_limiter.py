"""Limiter: a token bucket and AIMD concurrency as values."""

from hypothesis import given
from hypothesis import strategies as st

from syncd.policy.limiter import Concurrency, TokenBucket


def test_a_bucket_lets_its_rate_through_and_no_more() -> None:
    """Two requests a second is the default towards an API whose limit nobody knows."""
    bucket, waits = TokenBucket.full(2, now=0.0, burst=1), []
    for _ in range(4):
        bucket, wait_s = bucket.take(0.0)
        waits.append(wait_s)
    assert waits == [0.0, 0.5, 1.0, 1.5]


def test_idle_time_is_saved_up_to_the_burst_only() -> None:
    """A night without traffic is no licence for a storm in the morning."""
    bucket, _ = TokenBucket.full(10, now=0.0, burst=3).take(0.0)
    waits = []
    for _ in range(4):
        bucket, wait_s = bucket.take(3600.0)
        waits.append(wait_s)
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[3] > 0


def test_a_clock_that_stands_still_or_goes_back_gives_no_tokens() -> None:
    """Monotonic time should not go back; if it does, the limit still holds."""
    bucket, _ = TokenBucket.full(1, now=100.0, burst=1).take(100.0)
    _, wait_s = bucket.take(50.0)
    assert wait_s == 1.0


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=50), st.floats(1, 50))
def test_no_window_holds_more_than_burst_and_rate(steps: list[float], rate: float) -> None:
    """Whoever waits as told never sends more than the burst plus what the time earned."""
    bucket, now, sent_at = TokenBucket.full(rate, 0.0, burst=2), 0.0, []
    for step in steps:
        now += step
        bucket, wait_s = bucket.take(now)
        sent_at.append(now + wait_s)
    for index, at in enumerate(sent_at):
        assert index + 1 <= 2 + rate * at + 1e-6


def test_strain_halves_and_success_widens_one_place_a_round() -> None:
    """Fast down, slow up: the backlog after an outage drains without a storm."""
    width = Concurrency.widest(8).strained().strained()
    assert width.allowed == 2
    for _ in range(3):
        width = width.succeeded()
    assert width.allowed == 3
    assert Concurrency(8, 1.0).strained().allowed == 1


def test_after_an_outage_it_begins_with_one_and_doubles_until_half() -> None:
    """Slow start: what piled up must not come all at once, and a wide account must not take all night to widen."""
    width, widths = Concurrency.widest(16).restarted(), []
    for _ in range(16):
        widths.append(width.allowed)
        width = width.succeeded()
    assert widths == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8]


def test_a_share_of_the_rate_takes_effect_at_once() -> None:
    """Two replicas with the whole rate each would be twice what the CRM was promised."""
    bucket, _ = TokenBucket.full(10, now=0.0, burst=1).take(0.0)
    _, wait_s = bucket.at_rate(5, 0.0).take(0.0)
    assert wait_s == 0.2


def test_places_that_were_given_away_come_before_those_at_a_new_rate() -> None:
    """Whoever waits already would else be overtaken, and both rates would be sent together."""
    bucket = TokenBucket.full(1, now=0.0, burst=1)
    for _ in range(4):
        bucket, last_s = bucket.take(0.0)
    _, next_s = bucket.at_rate(100, 0.0).take(0.0)
    assert (last_s, next_s) == (3.0, 3.01)


def test_width_never_passes_the_most() -> None:
    """The setting is a promise to the CRM."""
    width = Concurrency(2, 1.9)
    for _ in range(50):
        width = width.succeeded()
    assert width.allowed == 2
    assert width.is_widest
