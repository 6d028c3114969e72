"""The law of the stage mark: whatever transactions do, nothing is staged while anything lower shows and is not."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.policy.stagemark import LOWEST, StageMark, StageMarks, Took
from tests.support.laws import many


@dataclass
class _Database:
    """Numbers as Postgres gives them: a snapshot's end is one beyond the last that completed, whoever began since."""

    last_xact: int = 100
    last_completed: int = 100
    last_capture: int = 0
    open: dict[int, list[int]] = field(default_factory=dict)
    shown: set[int] = field(default_factory=set)

    def begin(self) -> int:
        self.last_xact += 1
        self.open[self.last_xact] = []
        return self.last_xact

    def capture(self, xact: int) -> None:
        self.last_capture += 1
        self.open[xact].append(self.last_capture)

    def commit(self, xact: int) -> None:
        self.shown.update(self.open.pop(xact))
        self.last_completed = max(self.last_completed, xact)

    @property
    def in_snapshot(self) -> frozenset[int]:
        return frozenset(xact for xact in self.open if xact <= self.last_completed)

    def has_ended(self, xact: int) -> bool:
        return xact <= self.last_completed and xact not in self.open


def _staged(db: _Database, start: StageMark, most: int, writes_meanwhile: int) -> tuple[list[int], Took]:
    """What the statement does, with whoever begins between the read of the sequence and our own number."""
    next_id = db.last_capture + 1
    first_id = 0 if any(map(db.has_ended, start.open_xacts)) else start.capture_id
    seen = sorted(id_ for id_ in db.shown if id_ >= first_id)[:most]
    snapshot = (db.last_completed + 1, db.in_snapshot)
    for _ in range(writes_meanwhile):
        db.capture(db.begin())
    xact = None
    if seen:
        xact = db.begin()
        db.shown.difference_update(seen)
    last_id = seen[-1] if len(seen) == most else None
    if xact is not None:
        db.commit(xact)
    return seen, Took(first_id, next_id, *snapshot, xact, last_id)


_WHICH = st.integers(0, 4)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), _WHICH),
        st.tuples(st.just("open"), _WHICH),
        st.tuples(st.just("more"), _WHICH),
        st.tuples(st.just("commit"), _WHICH),
        st.tuples(st.sampled_from(["stage", "stage", "stage", "fail"]), st.integers(0, 2)),
    ),
    min_size=4,
    max_size=60,
)


@settings(max_examples=many(1000))
@given(steps=_STEPS, most=st.sampled_from([1, 3, 100]), pace=st.sampled_from([0.1, 0.3]))
def test_nothing_is_staged_past_what_shows_below_it(steps: list[tuple[str, int]], most: int, pace: float) -> None:
    """A stage takes the lowest that show, all if they fit, whatever its mark: that is the order of each lane."""
    db, now = _Database(), 0.0
    marks = StageMarks(whole_at=now)  # no stage is whole by its age
    for name, number in steps:
        if name in ("stage", "fail"):
            now += pace
            before = sorted(db.shown)
            seen, took = _staged(db, marks.starts_from(now), most, number)
            assert seen == before[:most]
            if name == "stage":
                marks = marks.took(took, now)
            else:  # its transaction is rolled back, and its marks with it
                db.shown.update(seen)
        else:
            _write(db, name, number)


def _write(db: _Database, name: str, which: int) -> None:
    begun = sorted(db.open)
    match name:
        case "edit" | "open":
            xact = db.begin()
            db.capture(xact)
            if name == "edit":
                db.commit(xact)
        case "more" if begun:
            db.capture(begun[which % len(begun)])
        case "commit" if begun:
            db.commit(begun[which % len(begun)])


def test_a_mark_spares_what_is_over() -> None:
    """The law alone would be kept by a stager that always reads from the lowest."""
    db, marks = _Database(), StageMarks()
    held = db.begin()
    short = db.begin()
    for turn in range(20):
        writer = db.begin()
        db.capture(writer)
        db.commit(writer)
        seen, took = _staged(db, marks.starts_from(float(turn)), 100, 0)
        assert seen == [turn + 1]
        marks = marks.took(took, float(turn))
        db.commit(short)
        short = db.begin()
    assert marks.starts_from(19.1) == StageMark(20, frozenset({held})), "the newest is not old enough"
    assert marks.starts_from(20.0).capture_id == 21
    db.commit(held)
    assert marks.starts_from(50.0) == LOWEST
