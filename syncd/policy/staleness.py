"""Staleness: how old the mirror's word may be, per kind of data, and what keeping it so costs the CRM in requests.

Both are computed from the settings and the size of an account, in this one place: what is promised here is what the
tests hold the pipeline to. A promise holds while the CRM answers and the rate allows what the cadences ask for;
``None`` is no promise at all: only a backfill would notice.

A window's rungs stand on its cadence, so a wide read costs nothing extra. A sweep asks each of its parents in turn, a
budget of them a round; the slower turn's rounds wait for each other, and so may any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

from syncd.policy.ladder import Rung
from syncd.policy.sweeping import rounds

JITTER_SHARE, JITTER_MAX_S = 0.1, 60.0  # of every cadence, so that accounts do not ask in step
SWEPT = ("group_members", "relation_details", "relation_tags", "relation_subscriptions", "relation_orders")
ONE_EACH = ("invoice_details", "invoice_files", "invoice_relations")


@dataclass(frozen=True, slots=True)
class Pace:
    """What the settings say: seconds between rounds by stream (0: switched off), the rungs above those of windows, the
    calls that one sweep may make, the rate, and how long unpaid orders are watched."""

    every_s: Mapping[str, float]
    rungs: tuple[Rung, ...]
    sweep_budget: int
    rate_per_s: float
    unpaid_days: int
    overlap_s: float


@dataclass(frozen=True, slots=True)
class Size:
    """An account: relations with an id, of those in no group, of those with something unsettled; groups; new invoices
    an hour that want a detail."""

    relations: int
    ungrouped: int
    unsettled: int
    groups: int
    invoices_per_h: float

    def scaled(self, relations: int) -> Size:
        """Return the same account with so many relations; an empty one is taken for a usual one."""
        if not self.relations:
            return Size(relations, relations // 20, relations // 10, 12, relations / 5000)
        share = relations / self.relations
        return replace(
            self,
            relations=relations,
            ungrouped=round(self.ungrouped * share),
            unsettled=round(self.unsettled * share),
            invoices_per_h=self.invoices_per_h * share,
        )

    def parents_of(self, stream: str) -> int:
        """Return how many calls it takes to ask a sweep's every parent once."""
        match stream:
            case "group_members":
                return self.groups
            case "relation_details":
                return self.ungrouped
            case "relation_orders":
                return self.unsettled
            case _:
                return self.relations


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stream asks for: ``calls`` a round, and over an hour. ``cycle_s`` is how long it takes to have asked for
    everything once."""

    stream: str
    every_s: float
    calls: float
    per_hour: float
    cycle_s: float | None


@dataclass(frozen=True, slots=True)
class Promise:
    """A kind of data, and within how many seconds what happens to it at the CRM is right in the mirror; ``by`` names
    the streams that see to it."""

    kind: str
    within_s: float | None
    by: str


def costs(pace: Pace, size: Size) -> tuple[Cost, ...]:
    """Return what each stream costs, the dearest first."""
    found = (_cost(stream, every_s, pace, size) for stream, every_s in pace.every_s.items())
    return tuple(sorted(found, key=lambda cost: -cost.per_hour))


def per_hour(pace: Pace, size: Size) -> float:
    """Return the requests an hour that all streams together make of the CRM."""
    return sum(cost.per_hour for cost in costs(pace, size))


def load(pace: Pace, size: Size) -> float:
    """Return the share of the allowed rate that this is; above 1 every promise is late by so much."""
    return per_hour(pace, size) / (pace.rate_per_s * 3600)


def promises(pace: Pace, size: Size) -> tuple[Promise, ...]:
    """Return every kind of data with its staleness."""
    return tuple(_Promises(pace, size).all())


def _cost(stream: str, every_s: float, pace: Pace, size: Size) -> Cost:
    if every_s <= 0:
        return Cost(stream, 0.0, 0.0, 0.0, None)
    an_hour = 3600 / every_s
    if stream in ONE_EACH:
        calls = min(pace.sweep_budget, size.invoices_per_h / an_hour)
        return Cost(stream, every_s, calls, calls * an_hour, every_s)
    if stream not in SWEPT:
        return Cost(stream, every_s, 1, an_hour, every_s)
    parents = size.parents_of(stream)
    calls = min(pace.sweep_budget, parents)
    return Cost(stream, every_s, calls, calls * an_hour, every_s * _rounds(stream, parents, pace.sweep_budget))


def _rounds(stream: str, parents: int, budget: int) -> int:
    """The unsettled go by age alone; of the others the recently active go first, and the rest wait the longer."""
    if stream in ("group_members", "relation_orders"):
        return max(1, ceil(parents / budget))
    return rounds(parents, budget)


class _Promises:
    """Spells the promises of one account."""

    def __init__(self, pace: Pace, size: Size) -> None:
        self._pace = pace
        self._costs = {cost.stream: cost for cost in costs(pace, size)}
        slow = [cost for cost in self._costs.values() if cost.stream in (*SWEPT, *ONE_EACH)]
        quick = [cost for cost in self._costs.values() if cost not in slow]
        self._turn_s = {cost.stream: sum(each.calls for each in slow) / pace.rate_per_s for cost in slow}
        self._turn_s |= {cost.stream: sum(each.calls for each in quick) / pace.rate_per_s for cost in quick}

    def all(self) -> Iterator[Promise]:
        yield Promise("new order", self._within("orders"), "orders")
        yield from self._old("orders", "late or back-dated order", is_new=True)
        yield from self._old("orders", "payment, invoice number or lines of an order", is_new=False)
        swept = self._within("relation_orders")
        yield Promise(f"unpaid order, up to {self._pace.unpaid_days} d old", swept, "relation_orders")
        yield Promise("running subscription, however old its order", swept, "relation_orders")
        yield Promise("settled order, older than that", None, "backfill")
        yield Promise("new invoice", self._within("invoices"), "invoices")
        yield from self._old("invoices", "change of an invoice", is_new=False)
        yield Promise("lines of an invoice", self._after("invoices", "invoice_details"), "invoice_details")
        if (files := self._after("invoices", "invoice_files")) is not None:
            yield Promise("PDF of an invoice", files, "invoice_files")
        yield Promise(
            "relation that an invoice alone names", self._after("invoices", "invoice_relations"), "invoice_relations"
        )
        for kind, stream in _ONE_BY_ONE:
            yield Promise(kind, self._within(stream), stream)

    def _old(self, stream: str, kind: str, *, is_new: bool) -> Iterator[Promise]:
        """Say how soon older time is read again: by the overlap at each round, then rung by rung."""
        base = self._within(stream)
        if is_new:
            yield Promise(f"{kind}, up to {_span(self._pace.overlap_s)}", base, f"{stream}, overlap")
        for rung in sorted(self._pace.rungs):
            as_wide = [each.every_s for each in self._pace.rungs if each.reach_s >= rung.reach_s and each.every_s > 0]
            within = None if base is None or not as_wide else min(as_wide) + base
            yield Promise(f"{kind}, up to {_span(rung.reach_s)} old", within, f"{stream}, wider read")

    def _after(self, first: str, then: str) -> float | None:
        one, two = self._within(first), self._within(then)
        return None if one is None or two is None else one + two

    def _within(self, stream: str) -> float | None:
        """A full cycle of rounds, each with its jitter, after a wait for whatever else has its turn."""
        cost = self._costs.get(stream)
        if cost is None or cost.cycle_s is None:
            return None
        jitter_s = min(JITTER_MAX_S, cost.every_s * JITTER_SHARE) * cost.cycle_s / cost.every_s
        return cost.cycle_s + jitter_s + self._turn_s[stream]


_ONE_BY_ONE = (
    ("members of a group, and their names", "group_members"),
    ("names of a relation in no group", "relation_details"),
    ("tags of a relation", "relation_tags"),
    ("list subscriptions of a relation", "relation_subscriptions"),
    ("tag, new or renamed", "tags"),
    ("group, new or renamed", "groups"),
    ("free field, new or renamed", "fields"),
    ("list, new or renamed", "lists"),
    ("the administration itself", "administration"),
)


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
