"""Giving way: a backfill's requests wait while live traffic has something to ask or to send.

While a round of the daemon is under way, or changes wait to be delivered, a backfill sends at most one request in
``MOST_S`` seconds: enough never to starve beside a daemon that is never idle, too little to be noticed by it. When the
CRM asked to be left alone it sends none. Live traffic itself never looks here, so nothing here can hold it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncd.clock import Clock
from syncd.domain.ids import AccountId
from syncd.store import Store, live

MOST_S, LOOK_S = 10.0, 0.5


@dataclass(frozen=True, slots=True)
class GiveWay:
    """Awaited before each request of one account's backfill."""

    store: Store
    clock: Clock
    account_id: AccountId

    async def __call__(self) -> None:
        """Wait until nothing live is under way, at most ``MOST_S``; and as long as the CRM asked us to wait."""
        ends_at = self.clock.monotonic() + MOST_S
        while True:
            async with self.store.begin() as connection:
                traffic = await live.look(connection, self.account_id)
            if traffic.throttled_s > 0:
                await self.clock.sleep(traffic.throttled_s)
            elif not traffic.is_heavy or self.clock.monotonic() >= ends_at:
                return
            else:
                await self.clock.sleep(LOOK_S)
