"""Defects of the merge: what both sides last agreed on, what of them is an echo, what is written down of the loser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from syncd.outbound import intents
from syncd.policy import merge, windows
from syncd.policy.coverage import Interval
from syncd.policy.merge import Trail
from syncd.store.mirror import membership
from tests.support.defects.planting import Defect, in_class, instead


def _never(_: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *_: False


def _of_the_undelivered(sound: Callable[..., Mapping[str, Trail]]) -> Callable[..., Mapping[str, Trail]]:
    return lambda edits: sound(edit for edit in edits if not edit.is_delivered)


def _protects_nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    async def nothing(*_: Any) -> tuple[frozenset[Any], tuple[str, ...]]:
        return frozenset(), ()

    return nothing


def _goes_unwritten(_: Callable[..., Any]) -> Callable[..., Any]:
    async def overwrite(*_: Any) -> bool:
        return True

    return overwrite


def _reaches_further_back(sound: Callable[..., Interval | None]) -> Callable[..., Interval | None]:
    def proven_by(*given: Any) -> Interval | None:
        proven = sound(*given)
        return proven and Interval(proven.lower - timedelta(hours=5), proven.upper)

    return proven_by


_TABLE = "tests/pipelines/test_merge_table.py::test_every_row_of_the_table_is_what_happens"

MERGING: dict[str, Defect] = {
    "base_taken_from_the_crm": Defect(
        "What both sides last agreed on is taken to be what the CRM shows now: whoever loses is told of nowhere.",
        _TABLE,
        instead(merge, "is_contested", _never),
    ),
    "links_replaced": Defect(
        "An answer's tags and members replace those of the mirror, instead of being merged with what was done here.",
        _TABLE,
        instead(membership, "_protected", _protects_nothing),
    ),
    "stale_answer_accepted": Defect(
        "An edit protects its field until it is delivered, and not from answers that were asked for before that.",
        "tests/pipelines/test_pull_stale_answers.py::test_a_slow_answer_does_not_undo_what_was_delivered_meanwhile",
        instead(merge, "trails", _of_the_undelivered),
    ),
    "overwritten_unwritten": Defect(
        "What a call overwrites is not written down before it goes out.",
        "tests/pipelines/test_conflicts.py::test_what_was_overwritten_is_told_though_the_answer_to_it_was_lost",
        in_class(intents.Intents, "overwrite", _goes_unwritten),
    ),
    "coverage_claims_unread": Defect(
        "A run claims hours as read that lie before what it asked for.",
        "tests/unit/test_windows.py::test_proof_ends_a_margin_before_the_request_began",
        instead(windows, "proven_by", _reaches_further_back),
    ),
}
