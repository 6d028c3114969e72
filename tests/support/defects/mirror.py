"""Defects between the outbox, the mirror and people: what must be asked about, what is an echo, what a read proves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from syncd.store import Connection, engine, outbox_awaited, outbox_guard
from syncd.store.mirror import membership, undelivered
from tests.support.defects.planting import Defect, in_sql, instead

_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_ORIGIN = text("SELECT set_config('syncd.origin', :origin, true)")


def _judges_nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    async def guard_staged(*_: Any, **__: Any) -> None:
        return None

    return guard_staged


def _judges_what_it_moved(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def guard_staged(*given: Any, **named: Any) -> None:
        await sound(*given, **{**named, "unread": None})

    return guard_staged


def _as_an_application(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def write(connection: Connection, *given: Any, **named: Any) -> Any:
        await connection.execute(_ORIGIN, {"origin": ""})
        written = await sound(connection, *given, **named)
        await connection.execute(_ORIGIN, {"origin": "remote"})
        return written

    return write


def _protects_nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    async def nothing(*_: Any, **__: Any) -> dict[int, tuple[Any, ...]]:
        return {}

    return nothing


_HELD_WHOLE = "tests/store/test_outbox_guard.py::test_a_transaction_above_the_limit_is_held_whole"
_LOCAL = "tests/pipelines/test_pull_local_changes.py::"

MIRROR: dict[str, Defect] = {
    "guard_holds_nothing": Defect(
        "A mass change is sent without asking anybody.",
        _HELD_WHOLE,
        instead(outbox_guard, "guard_staged", _judges_nothing),
    ),
    "guard_sees_a_batch": Defect(
        "The guard judges a transaction by what one batch of it was staged, so that the first batches go out.",
        _HELD_WHOLE,
        instead(outbox_guard, "guard_staged", _judges_what_it_moved),
    ),
    "echo_captured": Defect(
        "What a pull writes is captured as a local change, and sent back.",
        "tests/pipelines/test_pull.py::test_our_own_writes_are_not_captured",
        instead(membership, "_insert", _as_an_application),
    ),
    "remote_mark_lingers": Defect(
        "A connection that a pull has used takes an application's edits for the CRM's, and captures none.",
        "tests/store/test_capture.py::test_edit_after_a_remote_transaction_on_the_same_connection_is_captured",
        in_sql(engine, "_SET_ORIGIN", (", true", ", false")),
    ),
    "proof_from_before": Defect(
        "A read that was asked for before the delivery counts as its proof.",
        "tests/pipelines/test_drain_proof.py::test_a_pull_asked_for_before_the_delivery_proves_nothing",
        instead(outbox_awaited, "_asked", lambda sound: lambda reading: {**sound(reading), "asked_at": _LATEST}),
    ),
    "pull_undoes_a_delivery": Defect(
        "An answer that was asked for before a delivery puts the old value back into the mirror.",
        _LOCAL + "test_an_answer_asked_for_before_the_delivery_does_not_undo_it",
        in_sql(undelivered, "_CHANGES", (r"OR \(e\.status <> 'skipped' AND e\.settled_at >= :asked_at\)", "")),
    ),
    "pull_overwrites_edits": Defect(
        "A pull overwrites local changes that are not delivered yet.",
        _LOCAL + "test_a_captured_change_stays_and_everything_else_of_the_row_moves",
        instead(undelivered, "undelivered", _protects_nothing),
    ),
}
