"""Planted bugs: protocol defects that a drainer in a child process can be given, to see that the proofs catch them.

Test code only: a defect replaces a function of the running process, and the process is thrown away. ``plant`` fails
when what it replaces is not there any more, so that a defect cannot go out of date in silence. Each is written around
the function that it breaks, by calling it and undoing a part, rather than by a changed copy that would grow old.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.outbound import intents, lane, settler, shift
from syncd.store import outbox_claim, outbox_settle
from syncd.store.engine import Connection


@dataclass(frozen=True, slots=True)
class Defect:
    """``says`` is one sentence for the table of planted bugs: what the drainer does wrong."""

    says: str
    plant: Callable[[], None]


def _replace(module: ModuleType, name: str, broken: Callable[[Any], Callable[..., Any]]) -> None:
    """Replace a function by a broken one, built around the sound one."""
    sound = getattr(module, name)
    assert callable(sound), f"{module.__name__}.{name} is no function"
    setattr(module, name, broken(sound))


async def _commit_here(connection: Connection) -> None:
    """End the transaction behind the back of everybody and begin another."""
    await connection.exec_driver_sql("COMMIT")
    await connection.exec_driver_sql("BEGIN")


def _after_claim(statement: str) -> Callable[[], None]:
    """A claim that spoils one column of the lanes it has just taken."""

    def broken(sound: Callable[..., Any]) -> Callable[..., Any]:
        async def claim(connection: Connection, *given: Any, **named: Any) -> Any:
            claimed = await sound(connection, *given, **named)
            lane_ids = [each.lane_id for each in claimed.lanes]
            await connection.execute(
                text(f"UPDATE syncd.lanes SET {statement} WHERE id = ANY (CAST(:ids AS bigint[]))"), {"ids": lane_ids}
            )
            return claimed

        return claim

    return lambda: _replace(shift, "claim", broken)


def _intent_dropped() -> None:
    def broken(_: Any) -> Callable[..., Any]:
        async def write_begun(*_: Any, **__: Any) -> bool:
            return True

        return write_begun

    _replace(intents, "write_begun", broken)


def _doubt_ignored() -> None:
    def broken(_: Any) -> Callable[..., Any]:
        async def doubt(*_: Any, **__: Any) -> None:
            return None

        return doubt

    _replace(outbox_claim, "doubt", broken)


def _barrier_sent_unread() -> None:
    def broken(sound: Callable[..., Any]) -> Callable[..., Any]:
        return lambda remote_id, email, scope, is_repeat, *rest: sound(remote_id, email, scope, False, *rest)

    _replace(lane, "Target", broken)


def _settle_in_two_transactions() -> None:
    def broken(sound: Callable[..., Any]) -> Callable[..., Any]:
        async def advance(connection: Connection, *given: Any, **named: Any) -> Any:
            alive = await sound(connection, *given, **named)
            await _commit_here(connection)
            return alive

        return advance

    _replace(outbox_settle, "_advance", broken)


_COLUMNS = "id, account_id, relation_id, operation, facet, payload, actor, reason, xact, captured_at"


def _stage_copies() -> None:
    def broken(sound: Callable[..., Any]) -> Callable[..., Any]:
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
            await _commit_here(connection)
            await connection.execute(
                text("DELETE FROM syncd.captures WHERE id = ANY (CAST(:ids AS bigint[]))"), {"ids": ids}
            )
            return staged

        return stage

    _replace(shift, "stage", broken)


def _bind_apart() -> None:
    def broken(sound: Callable[..., Any]) -> Callable[..., Any]:
        async def settle(
            connection: Connection, account_id: Any, worker: str, settlements: Sequence[Any], *given: Any, **named: Any
        ) -> Any:
            unbound = [msgspec.structs.replace(each, bind_remote_id=None) for each in settlements]
            settled = await sound(connection, account_id, worker, unbound, *given, **named)
            born = [each for each in settlements if each.bind_remote_id is not None]
            if born:
                await _commit_here(connection)
                await connection.execute(text("SELECT set_config('syncd.origin', 'remote', true)"))
            for each in born:
                await connection.execute(
                    text("UPDATE crm.relations SET remote_id = :number WHERE id = :id"),
                    {"number": each.bind_remote_id, "id": each.relation_id},
                )
            return settled

        return settle

    _replace(settler, "settle", broken)


DEFECTS: dict[str, Defect] = {
    "intent_dropped": Defect("A call that is not repeat-safe begins without being written down.", _intent_dropped),
    "lane_asleep_while_claimed": Defect(
        "The claim sets no lease: a lane whose drainer dies is never looked at again.", _after_claim("ready_at = NULL")
    ),
    "lease_over_at_once": Defect(
        "The claim leaves the lane due, so that it is claimed twice.", _after_claim("ready_at = now()")
    ),
    "cursor_set_back": Defect("The claim counts the cursor anew from the start.", _after_claim("acked_seq = 0")),
    "doubt_ignored": Defect("A dropped claim's call is not marked as perhaps applied.", _doubt_ignored),
    "barrier_sent_unread": Defect(
        "A call that may have been applied is sent again without reading back.", _barrier_sent_unread
    ),
    "settle_in_two_transactions": Defect(
        "The lane is settled and committed before its entries are.", _settle_in_two_transactions
    ),
    "stage_copies": Defect("Captures are copied in one transaction and deleted in the next.", _stage_copies),
    "bind_apart": Defect("A new relation's remote id is written after the settle's commit.", _bind_apart),
}
