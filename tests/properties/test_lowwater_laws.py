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
    """A transaction that takes an id when it begins and shows it when it commits."""

    id_: int
    began: float
    commits: float


_SPANS = st.lists(
    st.tuples(st.floats(0, 15), st.one_of(st.floats(0, LAG_S * 0.9), st.floats(0, 15))), min_size=1, max_size=20
)


@given(spans=_SPANS, step=st.sampled_from([0.1, 0.25]), cost=st.floats(0, 3))
def test_every_commit_is_seen_in_time(spans: list[tuple[float, float]], step: float, cost: float) -> None:
    """Whoever commits within the lag is seen by the next look, everybody else by the next whole one."""
    writers = [_Writer(id_, *span) for id_, span in enumerate(sorted(spans), 1)]
    for writer in writers:
        writer.commits += writer.began
    water, at, waiting = LowWater(), 0.0, list(writers)
    allowed_s = rest_after_s(cost) + cost + 2 * step
    while waiting:
        start = water.reads_from(at)
        seen = [w for w in waiting if w.commits <= at and w.id_ >= start.capture_id]
        lowest = min((w.id_ for w in seen), default=None)
        given_out = sum(w.began <= at for w in writers)
        ended = at + (cost if start == WHOLE else 0.0)
        water = water.seen(Sight(lowest, given_out + 1, None, NOON + timedelta(seconds=at)), start, at, ended)
        for writer in seen:
            is_short = writer.commits - writer.began <= LAG_S * 0.9 - step
            assert at - writer.commits <= (step + cost if is_short else allowed_s)
            if writer.id_ >= water.mark.capture_id:  # the stage that follows reads from the mark
                waiting.remove(writer)
        at = ended + step
