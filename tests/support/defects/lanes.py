"""Defects of lanes: who may send and settle one, in which order its changes go, and what wakes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.outbound.leases import Lease, Leases
from syncd.policy import fold as folding
from syncd.policy.fold import Entry, Plan, RepeatSafe
from syncd.policy.landing import Landing
from syncd.store import (
    Connection,
    outbox_address,
    outbox_bind,
    outbox_claim,
    outbox_overtaken,
    outbox_settle,
    outbox_stage,
)
from tests.support.crashing.danger import Danger
from tests.support.defects.planting import Defect, in_class, in_sql, instead, together

# The fence and the lease ---------------------------------------------------------------------------------------------

_GUARD = (r"l\.epoch = g\.epoch AND l\.claimed_by = :worker", "CAST(:worker AS text) IS NOT NULL")
_EPOCH_UNCHECKED = together(
    in_sql(outbox_settle, "_LOCK", _GUARD),
    in_sql(outbox_settle, "_ADVANCE", _GUARD, (r"RETURNING l\.id, l\.epoch", "RETURNING l.id, g.epoch")),
    in_sql(outbox_bind, "_LOCK_LANES", _GUARD, (r"SELECT l\.id, l\.epoch", "SELECT l.id, g.epoch")),
)
_LEASE = r"now\(\) \+ make_interval\(secs => :lease_s\)"
_INTENT = r"sending_upto = c\.sending_upto"


def _losing_goes_on(sound: Callable[..., None]) -> Callable[..., None]:
    def lose(self: Leases, leases: Sequence[Lease], lost: frozenset[int]) -> None:
        sound(self, leases, lost)
        for lease in leases:
            lease.is_lost = False

    return lose


# The order -----------------------------------------------------------------------------------------------------------


def _fold_across_barriers(sound: Callable[..., Plan]) -> Callable[..., Plan]:
    def fold(entries: Sequence[Entry], is_repeat_safe: RepeatSafe, now: datetime, *_: Landing) -> Plan:
        plan = sound(entries, lambda change: True, now)
        steps = [
            msgspec.structs.replace(step, is_barrier=step.is_barrier or not is_repeat_safe(step.change))
            for step in plan.steps
        ]
        return msgspec.structs.replace(plan, steps=tuple(steps))

    return fold


def _do_nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    async def nothing(*_: Any, **__: Any) -> None:
        return

    return nothing


# One transaction for each step ---------------------------------------------------------------------------------------


async def commit_here(connection: Connection) -> None:
    """End the transaction behind the back of everybody and begin another."""
    await connection.exec_driver_sql("COMMIT")
    await connection.exec_driver_sql("BEGIN")


def _advance_apart(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def advance(connection: Connection, *given: Any, **named: Any) -> Any:
        alive = await sound(connection, *given, **named)
        await commit_here(connection)
        return alive

    return advance


_COLUMNS = "id, account_id, relation_id, operation, facet, payload, actor, reason, xact, captured_at, before, after"


def _stage_copies(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def stage(connection: Connection, *given: Any, **named: Any) -> Any:
        await connection.exec_driver_sql("DROP TABLE IF EXISTS copied")
        await connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE copied ON COMMIT DROP AS SELECT {_COLUMNS} FROM syncd.captures"
        )
        staged = await sound(connection, *given, **named)
        ids = list((await connection.exec_driver_sql("SELECT id FROM copied")).scalars())
        await connection.exec_driver_sql(
            f"INSERT INTO syncd.captures ({_COLUMNS}) SELECT {_COLUMNS} FROM copied c "
            "WHERE NOT EXISTS (SELECT FROM syncd.captures s WHERE s.id = c.id)"
        )
        await commit_here(connection)
        await connection.execute(
            text("DELETE FROM syncd.captures WHERE id = ANY (CAST(:ids AS bigint[]))"), {"ids": ids}
        )
        return staged

    return stage


def _bind_apart(sound: Callable[..., Any]) -> Callable[..., Any]:
    """By the same statement as the sound settle: a drainer dies before it at the same point in both."""

    async def settle(
        connection: Connection, account_id: Any, worker: str, settlements: Sequence[Any], *given: Any, **named: Any
    ) -> Any:
        unbound = [msgspec.structs.replace(each, bind_remote_id=None) for each in settlements]
        settled = await sound(connection, account_id, worker, unbound, *given, **named)
        born = [each for each in settlements if each.bind_remote_id is not None]
        if born:
            await commit_here(connection)
            await connection.execute(text("SELECT set_config('syncd.origin', 'remote', true)"))
            await outbox_bind._tried(connection, born)
        return settled

    return settle


# What wakes a lane ---------------------------------------------------------------------------------------------------

_EXISTS = "EXISTS (SELECT FROM syncd.entries e WHERE e.lane_id = l.id AND e.status = 'pending' AND e.seq > g.seen_seq)"


async def _without_triggers(connection: Connection) -> None:
    await connection.execute(text("SELECT set_config('session_replication_role', 'replica', true)"))


def _wake_the_claimed(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def stage(connection: Connection, *given: Any, **named: Any) -> Any:
        tails = {row.id: row.tail_seq for row in await connection.execute(text("SELECT id, tail_seq FROM syncd.lanes"))}
        staged = await sound(connection, *given, **named)
        longer = text(
            "UPDATE syncd.lanes l SET ready_at = LEAST(l.ready_at, clock_timestamp()) "
            "FROM unnest(CAST(:ids AS bigint[]), CAST(:tails AS bigint[])) AS b (id, tail_seq) "
            "WHERE l.id = b.id AND l.tail_seq > b.tail_seq"
        )
        await connection.execute(longer, {"ids": list(tails), "tails": list(tails.values())})
        return staged

    return stage


def _take_unread(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def take(connection: Connection, lanes: Sequence[Any], *given: Any) -> tuple[Any, ...]:
        await sound(connection, lanes, *given)
        return tuple(lanes)

    return take


_CRASHES = "tests/process/test_crash_points.py::test_a_drainer_may_die_before_and_after_each_of_its_messages"
_SETTLE = "tests/store/test_outbox_settle.py::"
_STAGE = "tests/store/test_outbox_stage.py::"
_CLAIM = "tests/store/test_outbox_claim.py::"
_LEFT = "tests/store/test_outbox_left.py::"
_READY = "tests/store/test_outbox_ready.py::"
_ADDRESSES = "tests/pipelines/test_drain_addresses.py::"
_GIVEN_UP = "tests/pipelines/test_drain_addresses_given_up.py::"

LANES: dict[str, Defect] = {
    "epoch_unchecked": Defect(
        "A settle is written whether or not the lane is still ours: no epoch, no worker is looked at.",
        _SETTLE + "test_an_old_epoch_settles_nothing",
        _EPOCH_UNCHECKED,
        seeds=(38, 45, 57, 91),
    ),
    "lease_ignored": Defect(
        "A claim takes lanes whose lease still runs, and such as back off.",
        _CLAIM + "test_a_lane_that_somebody_has_locked_is_skipped_and_not_waited_for",
        in_sql(outbox_claim, "_DUE", (r"ready_at <= \w+\(\)", "ready_at IS NOT NULL")),
        seeds=(10, 4, 3, 5),
    ),
    "lease_over_at_once": Defect(
        "The claim leaves the lane due, so that it is claimed twice.",
        _CLAIM + "test_a_claim_raises_the_epoch_sets_the_lease_and_records_the_intent",
        in_sql(outbox_claim, "_TAKE", (_LEASE, "now()")),
        dies=Danger.CALLED,
    ),
    "lane_asleep_while_claimed": Defect(
        "The claim sets no lease: a lane whose drainer dies is never looked at again.",
        "tests/pipelines/test_drain_crashes.py::"
        "test_a_drainer_that_dies_in_mid_tag_is_followed_by_one_that_sends_again",
        in_sql(outbox_claim, "_TAKE", (_LEASE, "CAST(NULL AS timestamptz)")),
        dies=Danger.CALLED,
    ),
    "lease_not_covering": Defect(
        "A request is begun however little is left of the lease.",
        "tests/pipelines/test_drain_leases.py::test_no_request_is_started_that_its_lease_cannot_cover",
        in_class(Lease, "covers", lambda _: lambda self, until: not self.is_lost),
    ),
    "lost_lease_unheeded": Defect(
        "A drainer that learns that its lane is somebody else's goes on sending.",
        "tests/pipelines/test_drain_leases.py::test_a_drainer_that_finds_its_lane_taken_stops_sending_at_once",
        in_class(Leases, "_lose", _losing_goes_on),
    ),
    "claimed_lane_woken": Defect(
        "Staging a change makes its lane due although somebody is sending it.",
        _STAGE + "test_an_idle_lane_is_woken_and_a_claimed_one_keeps_its_lease",
        instead(outbox_stage, "stage", _wake_the_claimed),
    ),
    "cursor_set_back": Defect(
        "The claim counts the cursor anew from the start.",
        _SETTLE + "test_the_cursor_never_goes_back",
        in_sql(outbox_claim, "_TAKE", (_INTENT, r"sending_upto = c.sending_upto, acked_seq = 0")),
        dies=Danger.CALLED,
    ),
    "cursor_past_what_waits": Defect(
        "The cursor goes to the end of what was read, past what waits for its back-off: no claim reads that again.",
        "tests/unit/test_fold.py::test_the_cursor_passes_dead_and_parked_entries_and_stops_before_pending_and_held_ones",
        instead(folding, "watermark", lambda _: lambda entries, settled, tail_seq: tail_seq),
    ),
    "left_behind_unread": Defect(
        "The claim reads beyond the cursor alone: what waits there for a person is never met again.",
        _LEFT + "test_what_is_parked_behind_the_cursor_keeps_its_facet",
        in_sql(outbox_claim, "_ENTRIES", (r"AND seq <= l\.acked_seq", "AND false")),
    ),
    "folded_across_a_barrier": Defect(
        "Changes before and after a subscription become one call, as if it were not between them.",
        "tests/unit/test_fold.py::test_nothing_is_folded_across_a_barrier_that_waits",
        instead(folding, "fold", _fold_across_barriers),
        seeds=(5, 2, 14, 20, 22),
    ),
    "address_taken_early": Defect(
        "A relation takes an address while another one has it in the CRM: the one is written over the other.",
        _ADDRESSES + "test_a_new_relation_under_an_address_that_another_one_left_waits_for_it",
        instead(outbox_address, "note_addresses", _do_nothing),
    ),
    "address_given_up_taken": Defect(
        "Once a change of an address is given up, whoever takes the address is sent onto the relation that has it.",
        _GIVEN_UP + "test_an_address_whose_leaving_was_given_up_is_not_taken_from_who_has_it",
        in_sql(outbox_address, "_FATES", (r"CASE WHEN l\.is_over THEN r\.remote_id END", "CAST(NULL AS text)")),
    ),
    "takers_not_woken": Defect(
        "Whoever waits for an address is left to look again by itself.",
        _ADDRESSES + "test_who_waits_is_sent_right_after_the_other_one",
        instead(outbox_address, "wake_takers", _do_nothing),
    ),
    "overtaken_lent": Defect(
        "A dead profile edit lends a later one all its columns, also those that were delivered in a newer edit.",
        "tests/pipelines/test_drain_operators.py::test_a_retry_takes_no_older_value_along_over_a_newer_one",
        instead(outbox_overtaken, "leave_out_overtaken", _do_nothing),
    ),
    "busy_lane_first": Defect(
        "The claim takes the lane that was woken last, so that a busy one starves those that wait.",
        _CLAIM + "test_a_lane_with_more_to_send_goes_behind_those_that_wait",
        in_sql(outbox_claim, "_DUE", (r"ORDER BY ready_at", "ORDER BY ready_at DESC")),
    ),
    "settle_in_two_transactions": Defect(
        "The lane is settled and committed before its entries are.",
        _CRASHES,
        instead(outbox_settle, "_advance", _advance_apart),
        dies=Danger.CALLED,
    ),
    "stage_copies": Defect(
        "Captures are copied in one transaction and deleted in the next.",
        _CRASHES,
        instead(outbox_stage, "stage", _stage_copies),
        dies=Danger.CLAIMING,
    ),
    "bind_apart": Defect(
        "A new relation's remote id is written after the settle's commit.",
        _CRASHES,
        instead(outbox_settle, "settle", _bind_apart),
        dies=Danger.BINDING,
    ),
    "exists_wake_up": Defect(
        "Whether a lane sleeps is decided by whether entries exist: one that is being staged is not seen.",
        _SETTLE + "test_a_lane_that_grows_while_its_settle_waits_is_looked_at_again",
        # It needs a wait between reading the entries and writing the lane: they were locked in one statement once.
        together(
            in_sql(outbox_settle, "_LOCK", (r"FOR UPDATE", "")),
            in_sql(outbox_settle, "_ADVANCE", (r"l\.tail_seq > g\.seen_seq", _EXISTS), (r"l\.ctid = g\.place AND", "")),
        ),
    ),
    "staged_untold": Defect(
        "Staging wakes the lane, and not the table that the claim searches: as if no trigger kept the two equal.",
        _READY + "test_a_lane_that_is_staged_is_claimed_at_once",
        in_sql(outbox_stage, "_ALONE", (r"'enable_seqscan', 'off'", "'session_replication_role', 'replica'")),
    ),
    "settled_untold": Defect(
        "A settle wakes a lane that grew meanwhile, and not the table that the claim searches.",
        _READY + "test_a_lane_that_its_settle_wakes_is_claimed_at_once",
        lambda: ((outbox_settle, "plan_by_index", _without_triggers),),
    ),
    "due_unconfirmed": Defect(
        "The claim believes the table that it searches, whatever the lane itself says.",
        _READY + "test_a_time_that_its_lane_does_not_confirm_is_not_believed",
        in_sql(outbox_claim, "_DUE", (r"AND ready_at = r\.ready_at", "")),
    ),
    "taken_unread": Defect(
        "A lane is sent whether or not the claim found it where it had been locked.",
        _READY + "test_a_lane_that_is_not_where_it_was_locked_is_not_taken",
        instead(outbox_claim, "take", _take_unread),
    ),
    "oldest_version_first": Defect(
        "A lane is looked up as by any key: along all versions that a held transaction keeps.",
        _READY + "test_a_held_transaction_does_not_lengthen_the_look_ups_of_a_lane",
        together(
            in_sql(outbox_claim, "_DUE", (r"id BETWEEN r\.lane_id AND r\.lane_id", "id = r.lane_id")),
            in_sql(outbox_settle, "_LOCK", (r"l\.id BETWEEN g\.lane_id AND g\.lane_id", "l.id = g.lane_id")),
        ),
    ),
}
