"""Account states: is an account paused or throttled, and what is there to do for it? (``account_pace``: the breaker.)

One row per account, written on edges only. A pause by refused credentials is lifted by a canary read at growing
intervals; a pause by an operator is lifted by an operator alone. All times are the database's.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.lowwater import WHOLE, Mark, Sight
from syncd.store.engine import Connection


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that an idle drainer wants to know, in one cheap query.

    ``ready_in_s`` is how long until the first lane is due (zero or less: now; None: none within the time looked at).
    ``paused`` is the reason if the account is paused; ``probe_in_s`` is None when no probe may lift the pause.
    ``limits`` is JSON text for ``account_pace.read_limits``, ``at`` the database's time in seconds since 1970 by which
    to read it. ``has_contest``: a conflict asks for an edit to be withheld.
    """

    sight: Sight
    paused: str | None = None
    probe_in_s: float | None = None
    throttled_s: float = 0.0
    breaker_state: str = "closed"
    limits: str = "{}"
    at: float = 0.0
    has_contest: bool = False

    @property
    def ready_in_s(self) -> float | None:
        first = self.sight.ready_at
        return None if first is None else (first - self.sight.now).total_seconds()

    @property
    def has_work(self) -> bool:
        return self.sight.capture_id is not None or (self.ready_in_s is not None and self.ready_in_s <= 0)


# By the index, not EXISTS: that would read through everything staged since the last vacuum. Bounded on both sides:
# below by the mark (``policy.lowwater``), above because the ends of leases, too, are dead as soon as they are settled.
# The sequence is read after the snapshot is taken: an id that is taken later is higher.
_LOOK = text(
    """
    SELECT (SELECT id FROM syncd.captures WHERE id >= :capture_id ORDER BY id LIMIT 1) AS capture_id,
           coalesce(pg_sequence_last_value('syncd.captures_id_seq'), 0) + 1 AS next_capture_id,
           (SELECT min(ready_at) FROM syncd.ready
            WHERE account_id = :account_id AND ready_at >= :ready_at
              AND ready_at <= now() + make_interval(secs => :within_s)) AS ready_at,
           now() AS now,
           ARRAY(SELECT CAST(CAST(xact AS text) AS bigint) FROM pg_snapshot_xip(pg_current_snapshot()) AS xact)
               AS open_xacts,
           CASE WHEN s.paused_at IS NOT NULL THEN coalesce(s.pause_reason, 'paused') END AS paused,
           CASE WHEN s.paused_at IS NOT NULL AND NOT s.is_paused_by_operator
                THEN coalesce(CAST(extract(epoch FROM s.next_probe_at - now()) AS double precision), 0) END
               AS probe_in_s,
           coalesce(CAST(extract(epoch FROM s.throttled_until - now()) AS double precision), 0) AS throttled_s,
           coalesce(s.breaker_state, 'closed') AS breaker_state, coalesce(CAST(s.limits AS text), '{}') AS limits,
           CAST(extract(epoch FROM now()) AS double precision) AS at,
           EXISTS (SELECT FROM syncd.conflicts c WHERE c.account_id = :account_id AND c.status = 'open'
                   AND c.withheld_at IS NULL) AS has_contest
    FROM (SELECT 1) AS one LEFT JOIN syncd.account_states s ON s.account_id = :account_id
    """
)

_PAUSE = text(
    """
    INSERT INTO syncd.account_states AS s (account_id, paused_at, pause_reason, is_paused_by_operator, next_probe_at)
    VALUES (:account_id, now(), :reason, :by_operator, now() + make_interval(secs => :probe_in_s))
    ON CONFLICT (account_id) DO UPDATE
        SET paused_at = coalesce(s.paused_at, now()),
            pause_reason = CASE WHEN s.is_paused_by_operator AND NOT :by_operator THEN s.pause_reason
                                ELSE excluded.pause_reason END,
            is_paused_by_operator = s.is_paused_by_operator OR :by_operator,
            next_probe_at = coalesce(s.next_probe_at, excluded.next_probe_at), updated_at = now()
    """
)

_RESUME = text(
    """
    UPDATE syncd.account_states
    SET paused_at = NULL, pause_reason = NULL, is_paused_by_operator = false, next_probe_at = NULL, updated_at = now()
    WHERE account_id = :account_id AND paused_at IS NOT NULL AND (:by_operator OR NOT is_paused_by_operator)
    RETURNING account_id
    """
)

# The longer the pause has lasted, the longer the next wait: it doubles, between a floor and a cap.
_POSTPONE = text(
    """
    UPDATE syncd.account_states
    SET next_probe_at = now() + LEAST(make_interval(secs => :most_s),
                                      GREATEST(make_interval(secs => :least_s), now() - paused_at)),
        pause_reason = coalesce(:reason, pause_reason), updated_at = now()
    WHERE account_id = :account_id AND paused_at IS NOT NULL AND NOT is_paused_by_operator
    """
)

_THROTTLE = text(
    """
    INSERT INTO syncd.account_states AS s (account_id, throttled_until)
    VALUES (:account_id, now() + make_interval(secs => :for_s))
    ON CONFLICT (account_id) DO UPDATE
        SET throttled_until = GREATEST(s.throttled_until, excluded.throttled_until), updated_at = now()
    """
)

# Clocks drift slowly: a second's difference, or a day, is news.
_CLOCK = text(
    """
    INSERT INTO syncd.account_states AS s (account_id, clock_skew_s, clock_skew_at)
    VALUES (:account_id, :skew_s, now())
    ON CONFLICT (account_id) DO UPDATE
        SET clock_skew_s = excluded.clock_skew_s, clock_skew_at = now(), updated_at = now()
        WHERE s.clock_skew_s IS NULL OR abs(s.clock_skew_s - excluded.clock_skew_s) >= 1
           OR s.clock_skew_at < now() - interval '1 day'
    """
)


async def look(connection: Connection, account_id: AccountId, start: Mark = WHOLE, *, within_s: float = 0.0) -> Outlook:
    """Return what there is to do for an account from a mark on, now or ``within_s``, and what forbids it."""
    where: dict[str, object] = {"capture_id": start.capture_id, "ready_at": start.ready_at}
    binds = {"account_id": account_id, "within_s": within_s, **where}
    capture_id, next_id, ready_at, now, open_xacts, *rest = (await connection.execute(_LOOK, binds)).one()
    return Outlook(Sight(capture_id, next_id, ready_at, now, frozenset(open_xacts)), *rest)


async def pause(
    connection: Connection, account_id: AccountId, reason: str, *, by_operator: bool = False, probe_in_s: float = 30.0
) -> None:
    """Stop sending for an account. An operator's pause is never weakened by a later automatic one."""
    await connection.execute(
        _PAUSE,
        {"account_id": account_id, "reason": reason, "by_operator": by_operator, "probe_in_s": probe_in_s},
    )


async def resume(connection: Connection, account_id: AccountId, *, by_operator: bool = False) -> bool:
    """Lift a pause; without ``by_operator`` only one that no operator made. Return whether one was lifted."""
    row = await connection.execute(_RESUME, {"account_id": account_id, "by_operator": by_operator})
    return row.scalar_one_or_none() is not None


async def postpone_probe(
    connection: Connection, account_id: AccountId, *, least_s: float, most_s: float, reason: str | None = None
) -> None:
    """Set the time of the next canary read after one that failed, and keep what it said."""
    binds = {"account_id": account_id, "least_s": least_s, "most_s": most_s, "reason": reason}
    await connection.execute(_POSTPONE, binds)


async def throttle(connection: Connection, account_id: AccountId, for_s: float) -> None:
    """Hold the whole account, every replica included, for as long as the CRM asked."""
    await connection.execute(_THROTTLE, {"account_id": account_id, "for_s": for_s})


async def note_clock(connection: Connection, account_id: AccountId, skew_s: float) -> None:
    """Write down how far the CRM's clock is ahead of ours, when that is news."""
    await connection.execute(_CLOCK, {"account_id": account_id, "skew_s": skew_s})
