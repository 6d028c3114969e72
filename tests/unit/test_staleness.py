"""What is promised and what it costs: arithmetic that people plan by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncd.policy.staleness import Pace, Size, costs, load, per_hour, promises
from syncd.service.outlook import pace
from syncd.settings import PullSettings

DEFAULTS = pace(PullSettings(), rate_per_s=2)
TEN_THOUSAND = Size(relations=10_000, ungrouped=600, unsettled=800, groups=12, invoices_per_h=5)


def within(kind: str, of: Pace = DEFAULTS, size: Size = TEN_THOUSAND) -> float | None:
    (found,) = [row.within_s for row in promises(of, size) if row.kind.startswith(kind)]
    return found


def test_the_default_cadences_cost_an_account_of_ten_thousand_less_than_half_of_the_rate() -> None:
    """Deliveries share the rate: pulling must leave most of it to them."""
    by_stream = {cost.stream: round(cost.per_hour) for cost in costs(DEFAULTS, TEN_THOUSAND)}
    assert (by_stream["orders"], by_stream["invoices"], by_stream["group_members"]) == (60, 12, 12)
    assert (by_stream["relation_tags"], by_stream["relation_orders"]) == (1000, 1000)
    assert per_hour(DEFAULTS, TEN_THOUSAND) == pytest.approx(sum(by_stream.values()), abs=1)
    assert 0.4 < load(DEFAULTS, TEN_THOUSAND) < 0.5


def test_a_sweep_takes_as_many_rounds_as_its_budget_says() -> None:
    """Ten thousand relations, five hundred every half hour, a tenth of them for the recently active: the others wait
    eleven and a half hours, and a little for the jitter and the turn."""
    found = within("tags of a relation")
    assert found is not None
    assert 11.5 * 3600 < found < 13 * 3600
    twice = within("tags of a relation", replace(DEFAULTS, sweep_budget=1000))
    assert twice is not None
    assert twice < 0.6 * found


def test_older_time_is_promised_by_the_rung_that_reaches_it() -> None:
    """A wider rung that is read more often keeps the narrower promise too."""
    assert within("new order") == pytest.approx(60 + 6 + sum(_quick_calls()) / 2)
    three_days = within("payment, invoice number or lines of an order, up to 3 d")
    ninety = within("payment, invoice number or lines of an order, up to 90 d")
    assert three_days is not None
    assert ninety is not None
    assert 3600 < three_days < 3600 + 120
    assert 86400 < ninety < 86400 + 120


def test_what_nothing_reads_again_is_not_promised() -> None:
    """A number that looks like a promise and is none is worse than none."""
    assert within("settled order, older than that") is None
    off = replace(DEFAULTS, every_s={**DEFAULTS.every_s, "relation_orders": 0.0, "orders": 0.0})
    assert within("unpaid order", off) is None
    assert within("payment, invoice number or lines of an order, up to 3 d", off) is None
    assert {cost.per_hour for cost in costs(off, TEN_THOUSAND) if cost.stream == "relation_orders"} == {0.0}


def test_an_account_can_be_imagined_larger() -> None:
    """To know what a thousand more cost before they come; an empty account is taken for a usual one."""
    larger = TEN_THOUSAND.scaled(20_000)
    assert (larger.ungrouped, larger.unsettled, larger.groups) == (1200, 1600, 12)
    empty = Size(0, 0, 0, 0, 0).scaled(10_000)
    assert (empty.relations, empty.unsettled, empty.ungrouped) == (10_000, 1000, 500)


def _quick_calls() -> list[int]:
    quick = ("administration", "fields", "tags", "groups", "lists", "orders", "invoices")
    return [1 for stream in quick if DEFAULTS.every_s[stream] > 0]
