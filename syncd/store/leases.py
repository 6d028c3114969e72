"""The lease that makes one replica the puller of an account.

All times are the database's, so replicas whose clocks disagree still agree on who holds what. ``lease_epoch`` rises
whenever the holder changes; a holder that renews keeps its epoch. Draining needs no lease: lanes have fences of
their own.
"""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.ids import AccountId, Epoch
from syncd.store.engine import Connection

_TAKE = text("""
    INSERT INTO syncd.account_states AS state (account_id, lease_owner, lease_until, lease_epoch)
    VALUES (:account_id, :owner, clock_timestamp() + make_interval(secs => :lease_s), 1)
    ON CONFLICT (account_id) DO UPDATE SET
        lease_epoch = state.lease_epoch
            + CASE WHEN state.lease_owner = :owner AND state.lease_until > clock_timestamp() THEN 0 ELSE 1 END,
        lease_owner = :owner,
        lease_until = clock_timestamp() + make_interval(secs => :lease_s),
        updated_at = clock_timestamp()
    WHERE state.lease_owner IS NULL OR state.lease_owner = :owner OR state.lease_until <= clock_timestamp()
    RETURNING lease_epoch
""")

_RELEASE = text("""
    UPDATE syncd.account_states
    SET lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()
    WHERE account_id = :account_id AND lease_owner = :owner
""")


async def take_lease(connection: Connection, account_id: AccountId, owner: str, lease_s: float) -> Epoch | None:
    """Take or renew the lease; return its epoch, or None while another replica holds it."""
    binds = {"account_id": account_id, "owner": owner, "lease_s": lease_s}
    epoch = (await connection.execute(_TAKE, binds)).scalar_one_or_none()
    return None if epoch is None else Epoch(epoch)


async def release_lease(connection: Connection, account_id: AccountId, owner: str) -> None:
    """Give the lease back at once, if ``owner`` still holds it."""
    await connection.execute(_RELEASE, {"account_id": account_id, "owner": owner})
