"""Bugs to plant: each breaks one rule of the protocol, in the tests' own process, and some test must notice.

A defect replaces what a module holds by something wrong; it fails to be planted when what it would break has changed,
because a defect that breaks nothing proves nothing. ``plant`` returns how to take it out again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import TextClause, text

from syncd.outbound import lane, shift
from syncd.policy import fold as folding
from syncd.policy.fold import Entry, Plan, RepeatSafe
from syncd.policy.outcome import Circumstances, Ending, Verdict, verdict
from syncd.policy.states import EntryStatus
from syncd.providers.autorespond.judgement import Judge, Reply, Said
from syncd.providers.contract import Answer, Effect, Endpoint, Rejected
from syncd.store import Connection, outbox_bind, outbox_claim, outbox_settle, outbox_stage

Undo: TypeAlias = Callable[[], None]
Changes: TypeAlias = Sequence[tuple[object, str, object]]


@dataclass(frozen=True, slots=True)
class Defect:
    """``sentence`` says what is wrong with it in; ``changes`` computes what to put where."""

    sentence: str
    changes: Callable[[], Changes]

    def plant(self) -> Undo:
        """Break it, here and now."""
        made = [(holder, name, getattr(holder, name), wrong) for holder, name, wrong in self.changes()]
        for holder, name, _, wrong in made:
            setattr(holder, name, wrong)

        def undo() -> None:
            for holder, name, right, _ in made:
                setattr(holder, name, right)

        return undo


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a defect for the length of the block."""
    undo = DEFECTS[name].plant()
    try:
        yield
    finally:
        undo()


def without(clause: TextClause | str, *swaps: tuple[str, str]) -> str:
    """Return a statement with each pattern replaced; AssertionError when one does not occur."""
    sql = clause if isinstance(clause, str) else clause.text
    for pattern, instead in swaps:
        sql, count = re.subn(pattern, instead, sql)
        assert count, f"nothing to break: {pattern!r} does not occur in {sql}"
    return sql


# The fence -----------------------------------------------------------------------------------------------------------

_GUARD = r"l\.epoch = g\.epoch AND l\.claimed_by = :worker"


def _epoch_unchecked() -> Changes:
    unguarded = (_GUARD, "CAST(:worker AS text) IS NOT NULL")
    advance = without(outbox_settle._ADVANCE, unguarded, (r"RETURNING l\.id, l\.epoch", "RETURNING l.id, g.epoch"))
    lock = without(outbox_bind._LOCK_LANES, unguarded, (r"SELECT l\.id, l\.epoch", "SELECT l.id, g.epoch"))
    return ((outbox_settle, "_ADVANCE", text(advance)), (outbox_bind, "_LOCK_LANES", text(lock)))


def _lease_ignored() -> Changes:
    due = without(outbox_claim._DUE, (r"ready_at <= \w+\(\)", "ready_at IS NOT NULL"))
    return ((outbox_claim, "_DUE", text(due)),)


# The order -----------------------------------------------------------------------------------------------------------


def _folded_across_a_barrier() -> Changes:
    def fold(entries: Sequence[Entry], is_repeat_safe: RepeatSafe, now: datetime) -> Plan:
        plan = folding.fold(entries, lambda change: True, now)
        steps = [
            msgspec.structs.replace(step, is_barrier=step.is_barrier or not is_repeat_safe(step.change))
            for step in plan.steps
        ]
        return msgspec.structs.replace(plan, steps=tuple(steps))

    return ((outbox_claim, "fold", fold),)


def _drained_by_id() -> Changes:
    right, last = outbox_stage.stage, dict[str, int]()
    statement = outbox_stage._STAGE
    after = without(
        statement,
        (r"(FROM syncd\.captures WHERE id >= :capture_id|FROM syncd\.captures)( ORDER BY id)", r"\1{after}\2"),
    )

    async def stage(connection: Connection, *given: Any, **named: Any) -> int | None:
        database = str((await connection.exec_driver_sql("SELECT current_database()")).scalar_one())
        highest = (await connection.exec_driver_sql("SELECT max(id) FROM syncd.captures")).scalar_one()
        word = "AND" if ":capture_id" in after else "WHERE"
        outbox_stage._STAGE = after.replace("{after}", f" {word} id > {last.get(database, 0)}")
        try:
            staged = await right(connection, *given, **named)
        finally:
            outbox_stage._STAGE = statement
        if staged is not None and highest is not None:
            last[database] = max(last.get(database, 0), highest)
        return staged

    return ((shift, "stage", stage),)


# What an answer means ------------------------------------------------------------------------------------------------


def _unknown_subscribe_retried_blindly() -> Changes:
    def blind(ending: Ending, now: Circumstances) -> Verdict:
        return Verdict(EntryStatus.PENDING) if ending is Ending.UNKNOWN and now.is_once else verdict(ending, now)

    return ((lane, "verdict", blind),)


def _judged(is_meant: Callable[[Rejected], bool]) -> Changes:
    right = Judge.reply

    def reply(self: Judge, answer: Answer, row: Endpoint) -> Reply:
        said = right(self, answer, row)
        is_wrong = isinstance(said, Rejected) and row.effect is not Effect.SAFE and is_meant(said)
        return Said(b"true") if is_wrong else said

    return ((Judge, "reply", reply),)


DEFECTS: dict[str, Defect] = {
    "epoch_unchecked": Defect(
        "A settle is written whether or not the lane is still ours: no epoch, no worker is looked at.", _epoch_unchecked
    ),
    "lease_ignored": Defect("A claim takes lanes whose lease still runs, and such as back off.", _lease_ignored),
    "folded_across_a_barrier": Defect(
        "Changes before and after a subscription become one call, as if it were not between them.",
        _folded_across_a_barrier,
    ),
    "drained_by_id": Defect(
        "The stager asks for captures above the last id that it saw: what commits late is never seen.", _drained_by_id
    ),
    "unknown_subscribe_retried_blindly": Defect(
        "A subscription whose answer was lost is sent again without looking.", _unknown_subscribe_retried_blindly
    ),
    "absent_is_delivered": Defect(
        "A 404 on a write counts as done: there is nothing left to do it to.", lambda: _judged(lambda no: no.is_absent)
    ),
    "no_is_delivered": Defect(
        "A false on a write counts as done.", lambda: _judged(lambda no: "answered false" in no.reason)
    ),
}
