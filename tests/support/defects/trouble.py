"""Defects about whose trouble a failure is: the entry's, its facet's, the account's, or nobody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from syncd.domain.changes import IDENTITY
from syncd.outbound import lane
from syncd.outbound.pace import Pace
from syncd.policy import fold as folding
from syncd.policy import outcome
from syncd.policy.breaker import Breaker
from syncd.policy.fold import Entry, Plan
from syncd.policy.limiter import Concurrency
from syncd.policy.outcome import Circumstances, Ending, Verdict
from syncd.policy.states import EntryStatus
from syncd.providers.autorespond.judgement import Judge, Reply, Said
from syncd.providers.contract import Answer, Effect, Endpoint, Rejected
from tests.support.defects.planting import Changes, Defect, in_class, instead, together


def _judged(is_meant: Callable[[Rejected], bool]) -> Changes:
    """Some refusals of writes are taken for a yes."""

    def broken(sound: Callable[[Judge, Answer, Endpoint], Reply]) -> Callable[..., Reply]:
        def reply(self: Judge, answer: Answer, row: Endpoint) -> Reply:
            said = sound(self, answer, row)
            is_wrong = isinstance(said, Rejected) and row.effect is not Effect.SAFE and is_meant(said)
            return Said(b"true") if is_wrong else said

        return reply

    return in_class(Judge, "reply", broken)


def _tried(*meant: Ending) -> Changes:
    """Some endings use up a try."""

    def broken(sound: Callable[..., Verdict]) -> Callable[..., Verdict]:
        def verdict(ending: Ending, now: Circumstances) -> Verdict:
            return Verdict(EntryStatus.PENDING) if ending in meant else sound(ending, now)

        return verdict

    return instead(outcome, "verdict", broken)


def _folded(kept: Callable[[Sequence[Entry]], Sequence[Entry]]) -> Changes:
    """The fold sees some of a lane's entries only."""

    def broken(sound: Callable[..., Plan]) -> Callable[..., Plan]:
        def fold(entries: Sequence[Entry], *given: Any) -> Plan:
            return sound(kept(entries), *given)

        return fold

    return instead(folding, "fold", broken)


def _up_to_the_dead(entries: Sequence[Entry]) -> Sequence[Entry]:
    places = [place for place, entry in enumerate(entries) if entry.status == EntryStatus.DEAD]
    return entries[: places[0]] if places else entries


def _without_dead_identities(entries: Sequence[Entry]) -> Sequence[Entry]:
    return [entry for entry in entries if entry.facet != IDENTITY or entry.status != EntryStatus.DEAD]


def _ends_with_a_refusal(sound: Callable[..., bool]) -> Callable[..., bool]:
    def note(self: Any, step: Any, talk: Any, came_of_it: Any) -> bool:
        return sound(self, step, talk, came_of_it) and not isinstance(came_of_it, Rejected)

    return note


_FAULTS = "tests/pipelines/test_drain_faults.py::"
_OUTAGES = "tests/pipelines/test_drain_outages.py::"

TROUBLE: dict[str, Defect] = {
    "absent_is_delivered": Defect(
        "A 404 on a write counts as done: there is nothing left to do it to.",
        _OUTAGES + "test_one_refused_entry_is_dead_after_a_read_that_works",
        _judged(lambda no: no.is_absent),
        seeds=(2, 10, 8, 23),
    ),
    "no_is_delivered": Defect(
        "A false on a write counts as done.",
        "tests/unit/test_autorespond_quirks.py::test_false_is_a_no",
        _judged(lambda no: "answered false" in no.reason),
        seeds=(4, 1, 10, 23),
    ),
    "throttle_uses_up_tries": Defect(
        "Each 429 uses up one of the entry's tries.",
        _FAULTS + "test_a_throttle_holds_the_account_and_costs_no_attempt",
        _tried(Ending.THROTTLED),
    ),
    "retry_after_unheeded": Defect(
        "How long the CRM asks to be left alone is not listened to.",
        _FAULTS + "test_a_throttle_longer_than_ones_patience_ends_a_one_shot_drain",
        in_class(Pace, "throttled", lambda sound: lambda self, for_s: sound(self, 0.0)),
    ),
    "refused_key_uses_up_tries": Defect(
        "Refused credentials use up the tries of every entry that meets them.",
        _FAULTS + "test_refused_credentials_pause_the_account_and_cost_no_attempt",
        _tried(Ending.UNAUTHORISED),
    ),
    "refusal_blocks_the_lane": Defect(
        "One refused entry holds back everything behind it in its lane.",
        _FAULTS + "test_a_rejected_tag_blocks_its_own_facet_only",
        together(_folded(_up_to_the_dead), in_class(lane._LaneWork, "_note", _ends_with_a_refusal)),
    ),
    "dead_identity_blocks_nobody": Defect(
        "What stands behind a refused change of address is sent all the same.",
        _FAULTS + "test_a_dead_identity_blocks_its_lane_and_says_why",
        _folded(_without_dead_identities),
    ),
    "breaker_never_opens": Defect(
        "However many entries fail in a row, each is tried on its own until it is dead.",
        _FAULTS + "test_an_outage_opens_the_breaker_and_spends_few_attempts",
        in_class(Breaker, "_open", lambda _: lambda self, cause: self),
    ),
    "sent_while_open": Defect(
        "Deliveries go on while the breaker is open, and use up tries.",
        _OUTAGES + "test_a_long_outage_spends_neither_tries_nor_age",
        in_class(Pace, "is_broken", lambda _: property(lambda self: False)),
    ),
    "storm_after_a_pause": Defect(
        "After a pause all workers begin at once.",
        _OUTAGES + "test_after_a_throttle_it_begins_again_with_one",
        in_class(Concurrency, "restarted", lambda _: lambda self: self),
    ),
}
