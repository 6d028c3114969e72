"""Defects about what may have been applied: said too early, not remembered, not looked at, not said again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text

from syncd.outbound import lane
from syncd.policy import fold, landing, outcome
from syncd.policy.landing import Landing
from syncd.policy.outcome import Circumstances, Ending, Verdict
from syncd.policy.states import EntryStatus
from syncd.store import (
    Connection,
    outbox_claim,
    outbox_doubt,
    outbox_intent,
    outbox_landing,
    outbox_lease,
    outbox_reassert,
)
from syncd.store.outbox_claim import ClaimedLane
from syncd.store.outbox_landing import NOTHING, Late
from tests.support.crashing.danger import Danger
from tests.support.defects.planting import Defect, in_class, in_sql, instead

_SETTLED = text(
    """
    UPDATE syncd.entries e SET status = 'accepted', settled_at = now()
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[])) AS s (lane_id, seq)
    WHERE e.lane_id = s.lane_id AND e.seq = s.seq
    """
)


def _settle_first(sound: Callable[..., Any]) -> Callable[..., Any]:
    """What is about to be sent is written down as delivered, with the intent to send it."""

    async def take(connection: Connection, lanes: Sequence[ClaimedLane], *given: Any, **named: Any) -> Any:
        taken = await sound(connection, lanes, *given, **named)
        sent = [(one.lane_id, step.carrier.seq) for one in lanes for step in one.plan.steps]
        binds = {"lane_ids": [lane_id for lane_id, _ in sent], "seqs": [seq for _, seq in sent]}
        await connection.execute(_SETTLED, binds)
        return taken

    return take


def _silent(_: Callable[..., Any]) -> Callable[..., Any]:
    async def nothing(*_: Any, **__: Any) -> None:
        return None

    return nothing


def _undoubted(_: Callable[..., Any]) -> Callable[..., Any]:
    async def doubt(*_: Any, **__: Any) -> dict[int, Late]:
        return {}

    return doubt


def _unwritten(_: Callable[..., Any]) -> Callable[..., Any]:
    async def write_begun(*_: Any, **__: Any) -> bool:
        return True

    return write_begun


def _none_settled(_: Callable[..., Any]) -> Callable[..., Any]:
    async def already_settled(*_: Any, **__: Any) -> frozenset[int]:
        return frozenset()

    return already_settled


def _unread(sound: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **named: sound(*given, **{**named, "is_repeat": False})


def _once_again(sound: Callable[..., Verdict]) -> Callable[..., Verdict]:
    def verdict(ending: Ending, now: Circumstances) -> Verdict:
        return Verdict(EntryStatus.PENDING) if ending is Ending.UNKNOWN and now.is_once else sound(ending, now)

    return verdict


def _certain(sound: Callable[..., Verdict]) -> Callable[..., Verdict]:
    def verdict(ending: Ending, now: Circumstances) -> Verdict:
        said = sound(ending, now)
        return Verdict(said.status, said.is_tried) if ending is Ending.UNKNOWN and not now.is_barrier else said

    return verdict


def _landed(*, profile: bool = False, address: bool = False) -> Callable[[Any], Callable[..., Landing]]:
    """Nobody waits for a call that may still land: one about a profile, or one about an address."""

    def broken(sound: Callable[..., Landing]) -> Callable[..., Landing]:
        def may_land(*given: Any) -> Landing:
            said = sound(*given)
            return Landing(None if profile else said.profile_until, None if address else said.address_until)

        return may_land

    return broken


_CRASHES = "tests/pipelines/test_drain_crashes.py::"
_FAULTS = "tests/pipelines/test_drain_faults.py::"
_LATE = "tests/pipelines/test_drain_late.py::"

DOUBT: dict[str, Defect] = {
    "settled_before_the_reply": Defect(
        "Entries are settled as delivered when their request is begun, not when it is answered.",
        _CRASHES + "test_a_stalled_drainer_is_fenced_and_changes_nothing",
        instead(outbox_claim, "take", _settle_first),
        dies=Danger.CALLED,
    ),
    "moved_under_a_late_call": Defect(
        "An address is changed while a call that finds by the old one may still land: it makes a second relation.",
        _LATE + "test_an_address_does_not_change_under_a_call_that_may_still_land",
        instead(landing, "may_land", _landed(profile=True)),
    ),
    "edited_under_a_late_address": Defect(
        "A profile is edited while its address may still change between the look at it and the edit.",
        _LATE + "test_a_profile_is_not_edited_while_its_address_may_still_change",
        instead(landing, "may_land", _landed(address=True)),
    ),
    "held_edit_passed": Defect(
        "A barrier passes a profile edit that waits for an address: a mail goes out with the old name.",
        "tests/unit/test_fold.py::test_a_barrier_waits_for_a_profile_edit_before_it_that_waits_for_an_address",
        in_class(fold._Walk, "_held_until", lambda _: lambda self, entry, is_identity: None),
    ),
    "late_try_unknown": Defect(
        "An entry that was not delivered does not say that a try of it may still land.",
        _LATE + "test_an_address_does_not_change_under_an_edit_that_was_not_delivered_and_may_land",
        in_class(lane._LaneWork, "_expect", lambda _: lambda self, step: None),
    ),
    "dropped_try_unknown": Defect(
        "What a dead drainer may have sent is in doubt, yet nobody expects it to land.",
        _LATE + "test_an_address_does_not_change_under_an_edit_that_a_dead_drainer_may_have_sent",
        instead(outbox_landing, "late_of", lambda _: lambda tried, lane, lands_s: NOTHING),
    ),
    "shown_otherwise_left": Defect(
        "What the CRM showed otherwise waits for a person, though its value has been said once more.",
        _LATE + "test_a_late_call_that_is_seen_in_place_of_the_newer_value_leaves_nobody_to_ask",
        instead(fold, "_step", lambda sound: lambda trail, passed: sound(fold._upto_pending(trail), ())),
    ),
    "intent_dropped": Defect(
        "A call that is not repeat-safe begins without being written down.",
        _CRASHES + "test_a_drainer_that_dies_in_mid_subscription_never_mails_twice",
        instead(outbox_intent, "write_begun", _unwritten),
        dies=Danger.CALLED,
    ),
    "doubt_ignored": Defect(
        "A dropped claim's call is not marked as perhaps applied.",
        "tests/store/test_outbox_claim.py::test_a_dropped_barrier_is_marked_uncertain_before_anybody_sends_again",
        instead(outbox_doubt, "doubt", _undoubted),
        dies=Danger.CALLED,
    ),
    "doubt_within_the_window": Defect(
        "What a dropped claim may have sent is looked for in one window of its lane, and it had read further.",
        "tests/store/test_outbox_claim.py::test_what_a_dropped_claim_sent_from_beyond_the_window_is_not_forgotten",
        instead(outbox_claim, "_is_short", lambda _: lambda *given: False),
    ),
    "barrier_sent_unread": Defect(
        "A call that may have been applied is sent again without reading back.",
        _FAULTS + "test_a_lost_answer_to_a_subscription_is_read_back_and_not_repeated",
        lambda: ((lane, "Target", _unread(lane.Target)),),
        dies=Danger.CALLED,
    ),
    "unknown_subscribe_retried_blindly": Defect(
        "A subscription whose answer was lost is taken for one that never was, and sent again.",
        _FAULTS + "test_a_subscription_that_reading_cannot_decide_is_parked_with_the_evidence",
        instead(outcome, "verdict", _once_again),
        seeds=(10, 4, 19, 23, 31),
    ),
    "lost_answer_forgotten": Defect(
        "That a repeat-safe call's answer was lost is forgotten as soon as it is sent again.",
        _LATE + "test_a_reassertion_whose_own_answer_is_lost_is_followed_by_another",
        instead(outcome, "verdict", _certain),
    ),
    "reassertion_off": Defect(
        "A value is not said again after a try of it that may still land behind a newer one.",
        _LATE + "test_with_reassertion_the_last_value_stands",
        in_class(lane._LaneWork, "_reassert_later", lambda _: lambda self, step: None),
    ),
    "reassertion_of_the_old_value": Defect(
        "What is said again is the doubtful value itself, not what its facet was delivered since.",
        _LATE + "test_with_reassertion_the_last_value_stands",
        instead(outbox_reassert, "bring_up", _silent),
    ),
    "reassertion_before_a_newer_doubt": Defect(
        "A value is said again while a newer one that may have been applied waits behind another call.",
        _LATE + "test_an_old_value_is_not_said_again_before_a_newer_one_that_a_retried_call_holds_up",
        in_class(fold._Walk, "_may_send", lambda _: lambda self, trail: fold._is_sendable(trail)),
    ),
    "skipped_in_doubt_forgotten": Defect(
        "What a person skips while it may still land is forgotten, and may undo what is delivered after it.",
        _LATE + "test_a_value_that_was_given_up_may_land_and_does_not_stay",
        instead(outbox_reassert, "remember", _silent),
    ),
    "skipped_said_again": Defect(
        "What a person skipped in doubt is said again, as if it had been delivered.",
        _LATE + "test_a_value_that_was_given_up_is_never_said_again_itself",
        in_sql(outbox_reassert, "_SINCE", (r"d\.status = 'skipped'", "false")),
    ),
    "settle_not_recognised": Defect(
        "A settle whose commit was not answered is never looked for: it counts as another drainer's.",
        "tests/pipelines/test_drain_doubt.py::"
        "test_a_settle_whose_commit_is_in_doubt_is_neither_lost_nor_counted_as_fenced",
        instead(outbox_lease, "already_settled", _none_settled),
    ),
}
