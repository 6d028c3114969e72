"""Guarding: saying which mass-change guard an account has, for whoever stages its changes.

One stager works for all accounts, whoever it is, so that an account's guard stands in its row. A daemon keeps it there:
it says so at its start and again and again, however long its rounds take, and whoever drains beside it, from a shell
perhaps that knows nothing of the daemon's settings, works under the daemon's guard. Without a daemon the last drain's
counts. Commands that send nothing say nothing, except of an account of which nobody has said anything: whoever drains
another one stages for it as well.
"""

from __future__ import annotations

from contextlib import suppress

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import InfrastructureError
from syncd.log import get
from syncd.policy.guard import Guard
from syncd.store import Store
from syncd.store.outbox import set_guard

log = get("syncd.outbound")

# A daemon that was killed keeps its account's guard for so long.
KEPT_S = 60.0
_AGAIN_S = 15.0


class Guarding:
    """One account's guard as this process wants it."""

    def __init__(self, store: Store, account: Account, guard: Guard | None, clock: Clock) -> None:
        self._store = store
        self._account = account
        self._guard = guard
        self._clock = clock
        self._stated_at = float("-inf")
        self._told: Guard | None = guard

    async def keep(self) -> None:
        """State it for ever; a database that is away is told of by others."""
        while True:
            with suppress(InfrastructureError):
                await self.state(is_kept=True)
            await self._clock.sleep(_AGAIN_S)

    async def state(self, *, is_kept: bool) -> None:
        """Set the guard where that is due, and keep it if ``is_kept``; another's is left in force and told of, once.

        Raises InfrastructureError.
        """
        if self._clock.monotonic() - self._stated_at < _AGAIN_S:
            return
        async with self._store.begin() as connection:
            in_force = await set_guard(connection, self._account.id, self._guard, kept_s=KEPT_S if is_kept else 0.0)
        self._stated_at = self._clock.monotonic()
        if in_force not in (self._guard, self._told):
            reason = f"a daemon keeps another mass-change guard than the settings here name: {_said(in_force)}"
            log.warning("guard.kept", account=self._account.name, reason=reason)
        self._told = in_force


def _said(guard: Guard | None) -> str:
    if guard is None:
        return "none"
    share = f", {guard.share:.0%} of all" if guard.share else ""
    return f"{guard.relations} relations{share} within {guard.window_s:g} s"
