"""Decisions: what a person decided about an entry, a hold, a held pull or an account, who it was and why.

Written once and never changed, in the transaction that takes the decision, so that there is none without its record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

_RECORD = text(
    """
    INSERT INTO syncd.decisions (account_id, verb, entry_id, hold_id, run_hold_id, conflict_id, actor, reason)
    VALUES (:account_id, :verb, :entry_id, :hold_id, :run_hold_id, :conflict_id, :actor, :reason)
    """
)

_OF_ENTRY = text(
    """
    SELECT d.verb, d.actor, d.reason, d.decided_at FROM syncd.decisions d WHERE d.entry_id = :entry_id
    UNION ALL
    SELECT d.verb, d.actor, d.reason, d.decided_at
    FROM syncd.entries e JOIN syncd.decisions d ON d.hold_id = e.hold_id AND d.account_id = e.account_id
    WHERE e.id = :entry_id
    ORDER BY decided_at
    """
)

_OF_HOLD = text(
    """
    SELECT verb, actor, reason, decided_at FROM syncd.decisions
    WHERE hold_id = :hold_id ORDER BY decided_at DESC LIMIT 1
    """
)


@dataclass(frozen=True, slots=True)
class Decision:
    """``verb`` is the command that was given: retry, skip, approve, reject, pause, resume, resolve,
    accept."""

    account_id: AccountId
    verb: str
    actor: str
    reason: str | None = None
    entry_id: int | None = None
    hold_id: int | None = None
    run_hold_id: int | None = None
    conflict_id: int | None = None


@dataclass(frozen=True, slots=True)
class PastDecision:
    """One decision as ``outbox show`` and ``outbox holds`` tell it."""

    verb: str
    actor: str
    reason: str | None
    decided_at: datetime


async def record(connection: Connection, decision: Decision) -> None:
    """Write a decision down."""
    await connection.execute(
        _RECORD,
        {
            "account_id": decision.account_id,
            "verb": decision.verb,
            "entry_id": decision.entry_id,
            "hold_id": decision.hold_id,
            "run_hold_id": decision.run_hold_id,
            "conflict_id": decision.conflict_id,
            "actor": decision.actor,
            "reason": decision.reason,
        },
    )


async def decisions_about(connection: Connection, entry_id: int) -> tuple[PastDecision, ...]:
    """Return what was decided about an entry or about the hold that it was in, in order."""
    rows = await connection.execute(_OF_ENTRY, {"entry_id": entry_id})
    return tuple(PastDecision(**row) for row in rows.mappings())


async def decision_about_hold(connection: Connection, hold_id: int) -> PastDecision | None:
    """Return what was decided about a mass change, or None where nobody has decided."""
    row = (await connection.execute(_OF_HOLD, {"hold_id": hold_id})).mappings().one_or_none()
    return None if row is None else PastDecision(**row)
