"""The lease that makes this replica the one that pulls for an account.

It is taken and renewed by the database's clock. Between renewals we believe in it for a little less than its length,
measured from before we asked on a clock that cannot jump: a replica that slept wakes up knowing that it holds nothing.
"""

from __future__ import annotations

import asyncio

from syncd import log
from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.store import Store
from syncd.store.leases import release_lease, take_lease

_TRUST = 0.9  # of the lease's length: clocks run at slightly different rates


class Lease:
    """One account's lease, as one replica holds it or not."""

    def __init__(self, store: Store, clock: Clock, account: Account, owner: str, lease_s: float) -> None:
        self._store, self._clock, self._account = store, clock, account
        self._owner, self._lease_s = owner, lease_s
        self._trusted_until = 0.0
        self._was_held = False
        self.taken = asyncio.Event()

    @property
    def is_held(self) -> bool:
        return self._clock.monotonic() < self._trusted_until

    async def keep(self) -> None:
        """Take and renew the lease until cancelled; a database that is away is somebody else's to report."""
        while True:
            try:
                await self.renew()
            except (InfrastructureError, ConfigurationError):
                self._tell()
            await self._clock.sleep(self._lease_s / 3)

    async def renew(self) -> None:
        """Take or renew the lease once."""
        asked_at = self._clock.monotonic()
        async with self._store.begin() as connection:
            epoch = await take_lease(connection, self._account.id, self._owner, self._lease_s)
        self._trusted_until = asked_at + self._lease_s * _TRUST if epoch is not None else 0.0
        self._tell()

    async def release(self) -> None:
        """Give it back at once, so that another replica need not wait; an absent database gives it back by itself."""
        self._trusted_until = 0.0
        try:
            async with asyncio.timeout(5), self._store.begin() as connection:
                await release_lease(connection, self._account.id, self._owner)
        except (InfrastructureError, ConfigurationError, TimeoutError):
            return

    def _tell(self) -> None:
        """Log the edges alone."""
        is_held = self.is_held
        if is_held != self._was_held:
            event = "lease.taken" if is_held else "lease.lost"
            log.get("syncd.service").info(event, account=self._account.name, replica=self._owner)
        if is_held:
            self.taken.set()
        self._was_held = is_held
