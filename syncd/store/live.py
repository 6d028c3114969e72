"""Live traffic: whether a daemon has work for an account now. Whoever can wait (a backfill) looks here first."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

# What a killed daemon left behind is nobody's: only while the lease is held is somebody at work.
_LOOK = text("""
    SELECT coalesce(s.lease_until > clock_timestamp(), false) AS is_alive,
           EXISTS (SELECT FROM syncd.runs WHERE account_id = :account_id AND status = 'running'
                   AND trigger IN ('start', 'schedule')) AS is_pulling,
           EXISTS (SELECT FROM syncd.ready WHERE account_id = :account_id AND ready_at <= now()) AS has_deliveries,
           coalesce(CAST(extract(epoch FROM s.throttled_until - now()) AS double precision), 0) AS throttled_s
    FROM (SELECT 1) AS one LEFT JOIN syncd.account_states s ON s.account_id = :account_id
""")


@dataclass(frozen=True, slots=True)
class Traffic:
    """``is_alive``: a daemon runs. ``is_pulling``: a round of it is under way. ``has_deliveries``: changes wait to be
    sent now. ``throttled_s``: for how long the CRM asked all of us to wait."""

    is_alive: bool
    is_pulling: bool
    has_deliveries: bool
    throttled_s: float

    @property
    def is_heavy(self) -> bool:
        return self.is_alive and (self.is_pulling or self.has_deliveries)


async def look(connection: Connection, account_id: AccountId) -> Traffic:
    """Return what goes on for an account at this moment."""
    row = (await connection.execute(_LOOK, {"account_id": account_id})).one()
    return Traffic(row.is_alive, row.is_pulling, row.has_deliveries, max(0.0, row.throttled_s))
