"""Low water: reading from a mark saves walking over the dead, and must never lose the living."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from syncd.policy.lowwater import DEAR_SHARE, LAG_S, MOST_S, SHARE, WHOLE, LowWater, Sight

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _looked(
    water: LowWater, at: float, *, id_: int | None = None, next_id: int = 1, ready: float | None = None, cost: float = 0
) -> LowWater:
    sight = Sight(id_, next_id, None if ready is None else _at(ready), _at(at))
    return water.seen(sight, water.reads_from(at), at, at + cost)


def _dear(cost: float) -> LowWater:
    """What two looks from the very start have left, the second of which cost so much and ended at 1 s."""
    water = LowWater().seen(Sight(None, 10, None, _at(-cost - 5)), WHOLE, -cost - 5, -cost - 5)
    return water.seen(Sight(None, 10, None, _at(1.0 - cost)), WHOLE, 1.0 - cost, 1.0)


def test_the_first_look_is_whole() -> None:
    """Nothing is known yet: a daemon that starts after a long outage must find everything."""
    assert LowWater().reads_from(0.0) == WHOLE


def test_a_cheap_whole_look_is_taken_each_time() -> None:
    """In ordinary times nothing that commits late is late."""
    water = _looked(LowWater(), 0.0, cost=0.001)
    assert water.reads_from(0.05) == WHOLE


def test_a_dear_whole_look_is_taken_for_a_small_share_of_the_time() -> None:
    """What it costs bounds how often it is taken, and so how late a late commit is found."""
    water = _dear(0.1)
    water = _looked(water, 2.5, next_id=10)
    assert water.reads_from(1.0 + 0.1 / DEAR_SHARE - 0.01) == water.mark != WHOLE
    assert water.reads_from(1.0 + 0.1 / DEAR_SHARE) == WHOLE


def test_the_end_of_a_transaction_that_was_open_when_the_mark_was_seen_is_looked_after_at_once() -> None:
    """Else a long transaction's changes would wait for half a minute because somebody else's is still open."""
    water = LowWater()
    looks = ((0.0, {5, 7}), (1.0, {5, 7}), (2.0, {5, 7, 9}), (3.0, {5, 7}), (4.0, {5}))
    for at, open_xacts in looks:
        sight = Sight(None, 100, None, _at(at), frozenset(open_xacts))
        water = water.seen(sight, water.reads_from(at), at, at + (0.15 if at <= 1 else 0))
        assert water.is_owed == (at == 4.0), "9 was never open for as long as the mark is old"
    assert water.reads_from(1.15 + 0.15 / SHARE) == WHOLE
    water = water.seen(Sight(None, 100, None, _at(5.0), frozenset({5, 11})), WHOLE, 5.0, 5.15)
    assert water.reads_from(5.15 + 0.15 / SHARE + 1) == water.mark != WHOLE, "seen is seen"


def test_the_end_of_a_transaction_is_remembered_until_a_whole_look_may_be_paid_for() -> None:
    """Whole looks are dear: a second end must not make the first one forgotten, nor either be paid for at once."""
    water = LowWater()
    for at, open_xacts in ((0.0, {5, 7}), (1.0, {5, 7}), (2.0, {5, 7}), (3.0, {5}), (4.0, {5}), (5.0, set())):
        sight = Sight(None, 100, None, _at(at), frozenset(open_xacts))
        water = water.seen(sight, water.reads_from(at), at, at + (0.5 if at <= 1 else 0))
    assert water.is_owed
    assert water.reads_from(1.5 + 0.5 / SHARE - 0.01) == water.mark
    assert water.reads_from(1.5 + 0.5 / SHARE) == WHOLE


def test_a_whole_look_is_taken_in_the_end_whatever_it_costs() -> None:
    """The bound on being late must not grow with the dead."""
    water = _dear(60.0)
    assert water.reads_from(1.0 + MOST_S - 0.01) != WHOLE
    assert water.reads_from(1.0 + MOST_S) == WHOLE


def test_the_mark_follows_behind_what_was_seen() -> None:
    """A transaction of ordinary length may still commit an id below what others were given meanwhile."""
    water = _looked(LowWater(), 0.0, next_id=100, cost=9.0)
    water = _looked(water, 10.0, next_id=500)
    assert water.mark.capture_id == 100
    water = _looked(water, 10.0 + LAG_S, next_id=900)
    assert water.mark.capture_id == 500
    assert water.mark.ready_at == _at(10.0)


def test_ids_and_times_of_a_mark_are_those_of_one_look() -> None:
    """A later time would let a lane pass below that a transaction wrote which the mark does not know of."""
    water = _looked(LowWater(), 0.0, next_id=100, cost=9.0)
    water = _looked(water, 10.0, next_id=500)
    water = _looked(water, 10.0 + 5 * LAG_S, next_id=900)
    assert (water.mark.capture_id, water.mark.ready_at) == (500, _at(10.0))


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
