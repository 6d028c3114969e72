"""Operate: what a person may do to an entry or an account while the daemon runs. Nothing here can break order.

Retry and skip lock the lane first. If a worker holds it, the epoch is raised: what that worker brings back is dropped,
and the lane is looked at when its lease ends, with the intent still written on it, so that a call which may have gone
out is read back and not repeated. A call that is not repeat-safe and had not begun (its intent is negative) cannot
begin any more: the raised epoch forbids it. A lane that nobody holds is woken at once.

No older value may follow a newer one of its facet, even where nobody can tell whether the newer one was applied. So
a retry is refused when a later change of the facet was delivered, may have been applied, is being sent or was given up;
and a facet is given up oldest first, because the older change may be folded into the newer one that is under way, and
would be sent after it alone. Whoever wants the older value edits the row again. What is given up while it may have
been applied may land behind the next value: that one is said once more (``outbox_reassert``).

Every decision is recorded with who took it and why, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import text

from syncd.domain.changes import read_change
from syncd.domain.errors import UserError
from syncd.domain.ids import AccountId
from syncd.policy.states import EntryStatus, may_move
from syncd.store import account_states
from syncd.store.accounts import chosen_accounts
from syncd.store.decisions import Decision, record
from syncd.store.engine import Connection
from syncd.store.outbox_address import wake_takers
from syncd.store.outbox_incidents import close_for_entries
from syncd.store.outbox_reassert import remember, was_said_again

# What the settings say where nothing is set.
SETTLE_WINDOW_S = 180.0

# In the order in which all others lock them.
_LOCK = text(
    """
    SELECT id FROM syncd.lanes
    WHERE id IN (SELECT lane_id FROM syncd.entries WHERE id = ANY (CAST(:entry_ids AS bigint[])))
    ORDER BY relation_id FOR UPDATE
    """
)
_READ = text(
    """
    SELECT e.id, e.account_id, e.lane_id, e.seq, e.facet, e.status, e.reasserts IS NOT NULL AS is_again,
           e.status = 'pending' AND e.seq <= coalesce(l.sending_upto, 0) AS is_in_hand, e.is_uncertain, e.operation,
           CAST(e.payload AS text) AS payload, coalesce(e.reasserts, e.id) AS root,
           CASE WHEN l.claimed_by IS NOT NULL
                THEN GREATEST(0.0, CAST(EXTRACT(EPOCH FROM l.ready_at - now()) AS double precision)) ELSE 0.0 END
               AS lease_s
    FROM syncd.entries e JOIN syncd.lanes l ON l.id = e.lane_id WHERE e.id = :entry_id
    """
)

# A re-assertion has said again what was delivered before, or what stands here itself. One that is not delivered was
# certainly not applied only if no worker has it and every answer to it was a no. Two
# profile edits undo each other in the columns that both name, and nowhere else; what was folded into a delivered
# profile edit was delivered with it. (CASE, because only of a profile edit "new" is certainly an object.)
_LATER = text(
    f"""
    SELECT e.id, CASE WHEN e.status = 'pending' AND e.seq <= l.sending_upto THEN 'in_hand' ELSE e.status END AS status
    FROM syncd.entries this
    JOIN syncd.entries e ON e.lane_id = this.lane_id AND e.facet = this.facet AND e.seq > this.seq
    JOIN syncd.lanes l ON l.id = e.lane_id
    WHERE this.id = :entry_id
      AND CASE WHEN this.facet = 'profile'
               THEN jsonb_exists_any(e.payload -> 'new', ARRAY(SELECT jsonb_object_keys(this.payload -> 'new')))
               ELSE true END
      AND ((e.status IN ('verified', 'accepted', 'diverged', 'skipped') AND e.reasserts IS NULL)
           OR (e.status = 'superseded' AND this.facet = 'profile')
           OR (e.reasserts IS NULL AND {was_said_again("e")})
           OR (e.status = 'pending' AND e.seq <= l.sending_upto)
           OR (e.status IN ('pending', 'dead', 'parked') AND (e.is_uncertain OR EXISTS (
                  SELECT FROM syncd.attempts a
                  WHERE a.entry_id = e.id AND a.outcome NOT IN ('rejected', 'throttled', 'unauthorised')))))
    ORDER BY e.seq LIMIT 1
    """
)
_WHY_NOT = {
    "skipped": "was given up; edit the row again",
    "in_hand": "is being sent at this moment; look again when that is settled",
    "pending": "may have been applied, and is tried again; look again when that is settled",
    "dead": "may have been applied; retry that one, or edit the row again",
    "parked": "may have been applied; retry that one, or edit the row again",
}

# A re-assertion says an older value again, whatever its place.
_EARLIER = text(
    """
    SELECT id FROM syncd.entries
    WHERE lane_id = :lane_id AND facet = :facet AND (seq < :seq OR (reasserts IS NOT NULL AND seq > :seq))
      AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')
    ORDER BY seq LIMIT 1
    """
)

_RETRY = text(
    """
    UPDATE syncd.entries
    SET status = 'pending', attempts = 0, next_attempt_at = NULL, settled_at = NULL,
        is_uncertain = NOT :as_new AND (is_uncertain OR status = 'parked')
    WHERE id = :entry_id
    """
)

_SKIP = text("UPDATE syncd.entries SET status = 'skipped', settled_at = now() WHERE id = :entry_id")

_WAKE = text(
    """
    UPDATE syncd.lanes
    SET epoch = epoch + CASE WHEN claimed_by IS NULL THEN 0 ELSE 1 END,
        ready_at = CASE WHEN claimed_by IS NULL THEN clock_timestamp() ELSE ready_at END,
        failures = 0, block_reason = NULL
    WHERE id = :lane_id
    """
)


async def retry_entries(
    connection: Connection,
    entry_ids: Collection[int],
    *,
    as_new: bool = False,
    actor: str = "unknown",
    reason: str | None = None,
) -> None:
    """Send dead, parked, diverged or held entries again, all or none, with a fresh budget.

    A call that may have been applied is read back before it is repeated, and parked again if that cannot tell;
    ``as_new`` says that a person has looked: it was not applied, send it. Of one facet the newest comes first: it
    carries the older ones. Their lanes are locked before anything else and in the order in which all others lock them.

    Raises UserError when there is nothing to retry, or when sending an older value now could undo a later one.
    """
    await _lock(connection, entry_ids)
    for entry_id in sorted(set(entry_ids), reverse=True):
        await _retry(connection, entry_id, as_new=as_new, actor=actor, reason=reason)


async def skip_entries(
    connection: Connection,
    entry_ids: Collection[int],
    *,
    actor: str = "unknown",
    reason: str | None = None,
    settle_window_s: float = SETTLE_WINDOW_S,
) -> list[int]:
    """Give up entries that are not delivered, all or none; what waits behind them goes on.

    Returns those that a worker had in hand: they may reach, or have reached, the CRM all the same. What may is
    remembered: a value of its facet that is delivered within ``settle_window_s`` (0: none) is said once more after
    them; what a worker has in hand may begin until its lease is over, and is remembered for so much longer. Raises
    UserError when one is settled, or when an older change of its facet is not: that one could be sent after this one.

    Their lanes are locked before anything else and in the order in which all others lock them, and who waits for an
    address is woken last.
    """
    await _lock(connection, entry_ids)
    in_hand = [
        entry_id
        for entry_id in sorted(set(entry_ids))
        if await _skip(connection, entry_id, actor, reason, settle_window_s)
    ]
    await wake_takers(connection, entry_ids)
    return in_hand


async def pause_accounts(
    connection: Connection, account: str | None, *, actor: str = "unknown", reason: str | None = None
) -> tuple[str, ...]:
    """Stop sending to, and pulling from, one account or all; return their names. Lasts until ``resume_accounts``."""
    chosen = await chosen_accounts(connection, account)
    for account_id in chosen.values():
        await account_states.pause(connection, account_id, reason or f"by {actor}", by_operator=True)
        await record(connection, Decision(account_id, "pause", actor, reason))
    return tuple(chosen)


async def resume_accounts(
    connection: Connection, account: str | None, *, actor: str = "unknown", reason: str | None = None
) -> tuple[str, ...]:
    """Lift the pauses of one account or all, by whomever they were made; return the names of those that were paused.

    What was paused because its credentials were refused is tried again, and paused again if they still are.
    """
    lifted = []
    for name, account_id in (await chosen_accounts(connection, account)).items():
        if await account_states.resume(connection, account_id, by_operator=True):
            await record(connection, Decision(account_id, "resume", actor, reason))
            lifted.append(name)
    return tuple(lifted)


async def _retry(connection: Connection, entry_id: int, *, as_new: bool, actor: str, reason: str | None) -> None:
    entry = await _read(connection, entry_id)
    if not may_move(EntryStatus(entry.status), EntryStatus.PENDING):
        raise UserError(f"entry {entry_id} is {entry.status}; only dead, parked, diverged and held ones can be retried")
    later = (await connection.execute(_LATER, {"entry_id": entry_id})).one_or_none()
    if later is not None:
        why = _WHY_NOT.get(later.status, "was delivered; skip this one, or edit the row again")
        raise UserError(
            f"entry {entry_id} cannot be retried: entry {later.id} changed {entry.facet} after it and {why}"
        )
    await connection.execute(_RETRY, {"entry_id": entry_id, "as_new": as_new})
    await close_for_entries(connection, [entry_id])
    await connection.execute(_WAKE, {"lane_id": entry.lane_id})
    verb = "retry as new" if as_new else "retry"
    await record(connection, Decision(AccountId(entry.account_id), verb, actor, reason, entry_id=entry_id))


async def _skip(connection: Connection, entry_id: int, actor: str, reason: str | None, settle_window_s: float) -> bool:
    entry = await _read(connection, entry_id)
    if not may_move(EntryStatus(entry.status), EntryStatus.SKIPPED):
        raise UserError(f"entry {entry_id} is {entry.status} already; there is nothing to skip")
    binds = {"lane_id": entry.lane_id, "facet": entry.facet, "seq": entry.seq}
    earlier = (await connection.execute(_EARLIER, binds)).scalar_one_or_none()
    if earlier is not None and not entry.is_again:
        raise UserError(
            f"entry {entry_id} cannot be skipped alone: entry {earlier} changed {entry.facet} before it and could be"
            " sent after it; skip that one as well"
        )
    await connection.execute(_SKIP, {"entry_id": entry_id})
    change, _ = read_change(entry.operation, entry.payload)
    if change is not None and (entry.is_uncertain or entry.is_in_hand):
        lease_s = entry.lease_s if entry.is_in_hand and settle_window_s > 0 else 0.0
        await remember(connection, entry.lane_id, change, entry.root, settle_window_s + lease_s)
    await close_for_entries(connection, [entry_id])
    await connection.execute(_WAKE, {"lane_id": entry.lane_id})
    await record(connection, Decision(AccountId(entry.account_id), "skip", actor, reason, entry_id=entry_id))
    return bool(entry.is_in_hand)


async def _lock(connection: Connection, entry_ids: Collection[int]) -> None:
    """Lock the lanes of these entries: they cannot change from here on."""
    await connection.execute(_LOCK, {"entry_ids": list(entry_ids)})


async def _read(connection: Connection, entry_id: int) -> Any:
    entry = (await connection.execute(_READ, {"entry_id": entry_id})).one_or_none()
    if entry is None:
        raise UserError(f"there is no entry {entry_id}; `syncd outbox list` shows what there is")
    return entry
