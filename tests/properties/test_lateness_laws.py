"""The learned overlap over all histograms: bounded, sufficient, and never narrowed by bad news."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from syncd.policy.lateness import EDGES_S, Histogram, OverlapRule, overlap_s, residue

BUCKETS = st.lists(st.tuples(st.integers(0, len(EDGES_S)), st.integers(0, 10_000)), max_size=12)
RULES = st.builds(OverlapRule, floor_s=st.floats(0, 604_800), ceiling_s=st.floats(0, 2_592_000), risk=st.floats(0, 1))


@given(BUCKETS, RULES)
def test_the_overlap_keeps_to_its_bounds(buckets: list[tuple[int, int]], rule: OverlapRule) -> None:
    """A floor is what witnesses need, a ceiling what an answer may cost; where they cross the floor wins."""
    assert rule.floor_s <= overlap_s(Histogram.of(buckets), rule) <= max(rule.floor_s, rule.ceiling_s)


@given(BUCKETS, RULES)
def test_below_the_ceiling_no_more_come_later_than_is_accepted(
    buckets: list[tuple[int, int]], rule: OverlapRule
) -> None:
    """That is what the risk in the settings promises."""
    seen = Histogram.of(buckets)
    left = residue(seen, rule)
    assume(left.overlap_s < rule.ceiling_s)
    assert left.later <= seen.rows * rule.risk


@given(BUCKETS, RULES)
def test_it_is_no_wider_than_it_must_be(buckets: list[tuple[int, int]], rule: OverlapRule) -> None:
    """Each minute of overlap is read again at every pull: the edge below must have been too narrow."""
    seen = Histogram.of(buckets)
    found = overlap_s(seen, rule)
    narrower = [edge for edge in EDGES_S if edge < found]
    if found > rule.floor_s and narrower:
        assert seen.later_than(narrower[-1]) > seen.rows * rule.risk


@given(BUCKETS, RULES, st.integers(1, 100_000))
def test_rows_on_time_never_widen_it_and_late_ones_never_narrow_it(
    buckets: list[tuple[int, int]], rule: OverlapRule, more: int
) -> None:
    """Otherwise good weeks would cost requests, or a bad day would hide the next."""
    seen = Histogram.of(buckets)
    assert overlap_s(Histogram.of([*buckets, (0, more)]), rule) <= overlap_s(seen, rule)
    assert overlap_s(Histogram.of([*buckets, (len(EDGES_S), more)]), rule) >= overlap_s(seen, rule)


@given(BUCKETS, BUCKETS, st.floats(0, 1e8))
def test_histograms_add_up(one: list[tuple[int, int]], other: list[tuple[int, int]], seconds: float) -> None:
    """Months and replicas are counted apart and read together."""
    both = Histogram.of([*one, *other])
    assert both.rows == Histogram.of(one).rows + Histogram.of(other).rows
    assert both.later_than(seconds) == Histogram.of(one).later_than(seconds) + Histogram.of(other).later_than(seconds)


def test_a_single_late_row_among_few_counts_and_among_many_does_not() -> None:
    """One of a hundred orders that was six hours late must be expected again; one of a hundred thousand is a risk."""
    six_hours = next(n for n, edge in enumerate(EDGES_S) if edge > 6 * 3600)
    assert overlap_s(Histogram.of([(0, 99), (six_hours, 1)]), OverlapRule()) == EDGES_S[six_hours] > 6 * 3600
    left = residue(Histogram.of([(0, 99_999), (six_hours, 1)]), OverlapRule(), 86400)
    assert (left.overlap_s, left.later, left.beyond) == (7200, 1, 0)
