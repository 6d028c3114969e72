"""The law of the low-water mark: whatever transactions take ids and commit when, each is seen, and in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.policy.lowwater import LAG_S, WHOLE, LowWater, Sight, rest_after_s

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


@dataclass
class _Writer:
    """A transaction that takes an id when it begins and shows it when it commits. ``number``: None for one that takes
    its own only then."""

    id_: int
    began: float
    commits: float
    number: int | None


_SPANS = st.lists(
    st.tuples(st.floats(0, 15), st.one_of(st.floats(0, LAG_S * 0.9), st.floats(0, 15)), st.booleans()),
    min_size=1,
    max_size=20,
)


@given(spans=_SPANS, step=st.sampled_from([0.05, 0.1]), cost=st.floats(0, 3))
def test_every_commit_is_seen_in_time(spans: list[tuple[float, float, bool]], step: float, cost: float) -> None:
    """Whoever commits within the lag is seen by the next look, whose number was told open as soon as may be afforded,
    everybody else in the end."""
    writers = [
        _Writer(id_, began, began + took, id_ if is_told else None)
        for id_, (began, took, is_told) in enumerate(sorted(spans), 1)
    ]
    water, at, waiting = LowWater(), 0.0, list(writers)
    while waiting:
        start = water.reads_from(at)
        seen = [w for w in waiting if w.commits <= at and w.id_ >= start.capture_id]
        ended = at + (cost if start == WHOLE else 0.0)
        water = water.seen(_sight(writers, seen, at), start, at, ended)
        for writer in seen:
            assert at - writer.commits <= _allowed_s(writer, step, cost)
            if writer.id_ >= water.mark.capture_id:  # the stage that follows reads from the mark
                waiting.remove(writer)
        at = ended + step


def _sight(writers: list[_Writer], seen: list[_Writer], at: float) -> Sight:
    lowest = min((w.id_ for w in seen), default=None)
    given_out = sum(w.began <= at for w in writers)
    told = frozenset(w.number for w in writers if w.number is not None and w.began <= at < w.commits)
    return Sight(lowest, given_out + 1, None, NOON + timedelta(seconds=at), told)


def _allowed_s(writer: _Writer, step: float, cost: float) -> float:
    if writer.commits - writer.began <= LAG_S * 0.9 - step:
        return step + cost
    measured = cost + 1e-9  # the difference of two times, which may round up
    return rest_after_s(measured, is_owed=writer.number is not None) + cost + 3 * step
