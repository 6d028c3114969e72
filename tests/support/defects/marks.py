"""Defects of the marks that staging and looking begin at, which must spare what is over and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from syncd.policy.lowwater import LowWater, Sight
from syncd.policy.stagemark import StageMark, Took
from syncd.store import Connection, outbox_stage
from syncd.store.outbox import Sightings, Stager
from tests.support.defects.planting import Defect, in_class, in_sql, instead


class _Blind(Stager):
    """Begins where it is told to, and asks nobody."""

    above: int = 0

    def begins(self, *_: Any) -> StageMark:
        return StageMark(self.above)


def _drain_by_id(sound: Callable[..., Any]) -> Callable[..., Any]:
    """What is above the last id of a database is asked for, and nothing else."""
    last = dict[str, int]()

    async def stage(connection: Connection, stager: Stager | None = None, **named: Any) -> int | None:
        database = str((await connection.exec_driver_sql("SELECT current_database()")).scalar_one())
        highest = (await connection.exec_driver_sql("SELECT max(id) FROM syncd.captures")).scalar_one()
        blind = _Blind(stager.sightings if stager else Sightings())
        blind.above = last.get(database, 0) + 1
        staged: int | None = await sound(connection, blind, **named)
        if staged is not None and highest is not None:
            last[database] = max(last.get(database, 0), highest)
        return staged

    return stage


def _never_whole(_: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now: self.mark


def _untold(sound: Callable[..., LowWater]) -> Callable[..., LowWater]:
    def seen(self: LowWater, sight: Sight, *given: Any) -> LowWater:
        return sound(self, replace(sight, open_xacts=frozenset()), *given)

    return seen


def _of_the_listed(_: object) -> property:
    def mark(self: Took) -> StageMark | None:
        return None if self.xact is None else StageMark(self.below(self.next_capture_id), self.open_xacts)

    return property(mark)


def _beyond_what_was_taken(_: Callable[..., int]) -> Callable[..., int]:
    return lambda self, capture_id: capture_id


def _at_once(sound: Callable[..., None]) -> Callable[..., None]:
    def took(self: Stager, took: Took | None) -> None:
        sound(self, took)
        self.committed(0.0)

    return took


_STAGEMARK = "tests/store/test_outbox_stagemark.py::"
_LOWWATER = "tests/store/test_outbox_lowwater.py::"

MARKS: dict[str, Defect] = {
    "drained_by_id": Defect(
        "The stager asks for captures above the last id that it saw: what commits late is never seen.",
        "tests/store/test_outbox_stage.py::test_a_change_that_commits_late_is_staged_late_and_not_lost",
        instead(outbox_stage, "stage", _drain_by_id),
        seeds=(10, 5, 3, 4, 9, 21),
    ),
    "mark_unasked": Defect(
        "The stager begins at its mark without asking who has ended: an edit goes out before an older one of its name.",
        _STAGEMARK + "test_the_last_of_two_edits_is_staged_last_however_long_the_first_took",
        in_sql(
            outbox_stage, "_STAGE", (r"WHERE pg_visible_in_snapshot\(o\.xact, pg_current_snapshot\(\)\)", "WHERE false")
        ),
    ),
    "mark_of_the_listed": Defect(
        "A mark knows of the transactions that its snapshot lists, and of none that began after the last one to end.",
        _STAGEMARK + "test_a_transaction_that_no_snapshot_lists_is_known_too",
        in_class(Took, "mark", _of_the_listed),
    ),
    "mark_beyond_the_batch": Defect(
        "A stage that is cut short leaves its mark at the end of all captures.",
        _STAGEMARK + "test_a_stage_that_is_cut_short_goes_on_where_it_stopped",
        in_class(Took, "below", _beyond_what_was_taken),
    ),
    "mark_of_a_rollback": Defect(
        "A stage is taken for done before its transaction has committed.",
        _STAGEMARK + "test_a_stage_that_is_rolled_back_leaves_no_mark",
        in_class(Stager, "took", _at_once),
    ),
    "mark_of_an_older_number": Defect(
        "A stage leaves a mark although its transaction wrote before it: it may name too few who were open.",
        _STAGEMARK + "test_a_stage_that_is_not_the_first_of_its_transaction_leaves_no_mark",
        in_sql(outbox_stage, "_ALONE", (r"pg_current_xact_id_if_assigned\(\) IS NULL", "true")),
    ),
    "mark_of_another_server": Defect(
        "A mark is gone on from when another server has taken over, which was never told what was staged last.",
        _STAGEMARK + "test_a_server_that_took_over_is_read_from_the_lowest",
        in_sql(outbox_stage, "_ALONE", (r"CAST\(pg_postmaster_start_time\(\) AS text\)", "'the one before'")),
    ),
    "mark_ignored": Defect(
        "The stager walks over all that a held transaction keeps: it reads from the start whatever its mark says.",
        _STAGEMARK + "test_a_stage_does_not_walk_over_what_a_held_transaction_keeps",
        in_sql(outbox_stage, "_STAGE", (r"ELSE CAST\(:capture_id AS bigint\)", "ELSE 0 * CAST(:capture_id AS bigint)")),
    ),
    "mark_never_left": Defect(
        "The low-water mark is a cursor: nothing ever looks below it again.",
        _LOWWATER + "test_a_lane_that_is_woken_below_the_mark_is_claimed_after_the_next_whole_look",
        in_class(LowWater, "reads_from", _never_whole),
    ),
    "mark_untold": Defect(
        "Nobody is told that a transaction below the low-water mark has ended: its changes wait for half a minute.",
        _LOWWATER + "test_a_capture_that_commits_below_the_mark_is_seen_by_the_next_whole_look",
        in_class(LowWater, "seen", _untold),
    ),
}
