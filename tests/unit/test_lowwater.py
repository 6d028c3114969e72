"""Low water: reading from a mark saves walking over the dead, and must never lose the living."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from syncd.policy.lowwater import DEAR_SHARE, LAG_S, MOST_S, WHOLE, LowWater, Sight

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _looked(
    water: LowWater, at: float, *, id_: int | None = None, next_id: int = 1, ready: float | None = None, cost: float = 0
) -> LowWater:
    sight = Sight(id_, next_id, None if ready is None else _at(ready), _at(at))
    return water.seen(sight, water.reads_from(at), at, at + cost)


def test_the_first_look_is_whole() -> None:
    """Nothing is known yet: a daemon that starts after a long outage must find everything."""
    assert LowWater().reads_from(0.0) == WHOLE


def test_a_cheap_whole_look_is_taken_each_time() -> None:
    """In ordinary times nothing that commits late is late."""
    water = _looked(LowWater(), 0.0, cost=0.001)
    assert water.reads_from(0.05) == WHOLE


def test_a_dear_whole_look_is_taken_for_a_small_share_of_the_time() -> None:
    """What it costs bounds how often it is taken, and so how late a late commit is found."""
    water = _looked(LowWater(), 0.0, cost=0.2)
    water = _looked(_looked(water, 1.0, next_id=10), 2.5, next_id=10)
    assert water.reads_from(0.2 + 0.2 / DEAR_SHARE - 0.01) == water.mark != WHOLE
    assert water.reads_from(0.2 + 0.2 / DEAR_SHARE) == WHOLE


def test_a_whole_look_is_taken_in_the_end_whatever_it_costs() -> None:
    """The bound on being late must not grow with the dead."""
    water = _looked(LowWater(), 0.0, cost=60.0)
    assert water.reads_from(60.0 + MOST_S - 0.01) != WHOLE
    assert water.reads_from(60.0 + MOST_S) == WHOLE


def test_the_mark_follows_behind_what_was_seen() -> None:
    """A transaction of ordinary length may still commit an id below what others were given meanwhile."""
    water = _looked(LowWater(), 0.0, next_id=100, cost=9.0)
    water = _looked(water, 10.0, next_id=500)
    assert water.mark.capture_id == 100
    water = _looked(water, 10.0 + LAG_S, next_id=900)
    assert water.mark.capture_id == 500
    assert water.mark.ready_at == _at(10.0)


def test_the_mark_knows_from_which_transaction_on_none_reaches_below_it() -> None:
    """The first that began after the mark's ids were given out: the look that saw them cannot tell, the next can."""
    water = LowWater()
    for at, next_id, next_xact in ((0.0, 100, 7), (0.5, 200, 8), (1.2, 300, 9), (1.8, 400, 10)):
        water = water.seen(Sight(None, next_id, None, _at(at), next_xact), WHOLE, at, at)
    assert (water.mark.capture_id, water.mark.xact) == (200, 9)


def test_the_mark_never_passes_what_waits() -> None:
    """A capture that no stager could take yet, a lane that somebody keeps locked: both must be seen again."""
    water = _looked(LowWater(), 0.0, id_=7, next_id=900, ready=-60.0, cost=9.0)
    for at in (10.0, 20.0, 30.0):
        water = _looked(water, at, id_=7, next_id=900, ready=-60.0)
        assert water.mark.capture_id <= 7
        assert water.mark.ready_at <= _at(-60.0)


def test_a_late_commit_pulls_the_mark_down() -> None:
    """Found by a whole look, it must be in reach of the very next stage."""
    water = _looked(LowWater(), 0.0, next_id=100, cost=0.5)
    water = _looked(_looked(water, 2.0, next_id=500), 4.0, next_id=900)
    assert water.mark.capture_id == 500
    water = _looked(water, 11.0, id_=42, next_id=1000)
    assert water.mark.capture_id == 42


def test_ids_that_begin_again_are_found() -> None:
    """A database restored from a backup gives ids out again that lie far below the mark."""
    water = _looked(LowWater(), 0.0, next_id=10**6, cost=0.5)
    water = _looked(water, 2.0, next_id=10**6)
    water = _looked(water, 11.0, id_=3, next_id=4)
    assert water.mark.capture_id == 3
