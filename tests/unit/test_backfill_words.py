"""What a backfill shows while it runs, and how its sweeps share their calls."""

from __future__ import annotations

import pytest

from syncd.cli.progress import share_of, speed_of, words_of
from syncd.inbound import Progress
from syncd.policy.sweeping import active_calls, rounds


def test_what_is_asked_for_one_by_one_has_a_rate_and_a_time_left() -> None:
    """Two in a second, and 720 of 1,000 to go: six minutes."""
    progress = Progress("relation_tags", rows=900, bytes=0, done=280, total=1000)
    speed = speed_of(progress, 140.0)
    assert (speed.per_s, round(speed.left_s or 0)) == (2.0, 360)
    assert words_of(progress, speed) == "relation_tags: 280 of 1 000, 2.0/s, 6.0 min left"


def test_an_answer_that_is_still_coming_has_a_rate_alone() -> None:
    """Nobody says how long it will be, and a time left that is guessed is worse than none."""
    progress = Progress("orders", rows=0, bytes=31_000_000, is_receiving=True)
    assert words_of(progress, speed_of(progress, 10.0)) == "orders: 31 MB received, 3.1 MB/s"


def test_an_answer_that_is_here_has_a_time_left() -> None:
    """A quarter of its bytes in ten seconds: thirty more. How many rows there will be is not known."""
    progress = Progress("orders", rows=50_000, bytes=31_000_000, share_read=0.25)
    assert words_of(progress, speed_of(progress, 10.0)) == "orders: 50 000 rows of 31 MB, 5 000/s, 30 s left"


def test_an_empty_sweep_is_done() -> None:
    assert share_of(Progress("invoice_relations", 0, 0, done=0, total=0)) == 1.0


@pytest.mark.parametrize("elapsed_s", [0.0, 5.0])
def test_nothing_done_yet_is_no_division(elapsed_s: float) -> None:
    assert speed_of(Progress("tags", 0, 0, 0, 10), elapsed_s).left_s is None


def test_the_last_parent_has_its_turn_in_the_rounds_that_are_promised() -> None:
    """Even if the active took their share in each of them."""
    for budget in (1, 3, 8, 500):
        for parents in (0, 1, budget, budget + 1, 10 * budget + 3):
            by_age = budget if parents <= budget else budget - active_calls(budget)
            assert rounds(parents, budget) * by_age >= parents
            assert (rounds(parents, budget) - 1) * by_age < max(parents, 1)
