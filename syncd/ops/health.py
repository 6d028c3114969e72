"""Is syncd ready, and if not, what is it waiting for?

Ready means: the database answers and its schema is the one this program was written for. A paused account is shown
and does not make the process unready: restarting or routing away would not mend a refused key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from syncd.domain.errors import SyncdError
from syncd.ops.metrics import Metrics
from syncd.store import Store
from syncd.store.incidents import count_incidents
from syncd.store.status import AccountStatus, read_accounts, read_outbox, read_streams

PATIENCE_S = 5.0
IN_ORDER = "in order"


@dataclass(frozen=True, slots=True)
class Readiness:
    """``waiting_for`` is None when ready, else one clause; ``accounts`` maps each name to its state in words."""

    waiting_for: str | None
    accounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.waiting_for is None


class Health:
    """What the pages ask. The service tells it the store once it has one, and what it is waiting for until then."""

    def __init__(self, metrics: Metrics, replica: str, horizon_days: int) -> None:
        self.metrics = metrics
        self._replica = replica
        self._horizon_days = horizon_days
        self._store: Store | None = None
        self._waiting_for: str | None = "starting"

    def wait_for(self, reason: str) -> None:
        """Say what start-up or stopping is busy with; not ready until ``serve`` is called."""
        self._waiting_for = reason

    def serve(self, store: Store) -> None:
        """Start-up is over: from now on the database decides."""
        self._store, self._waiting_for = store, None

    async def readiness(self) -> Readiness:
        """Ask the database, within ``PATIENCE_S``."""
        if self._store is None or self._waiting_for is not None:
            return Readiness(self._waiting_for or "starting")
        try:
            async with asyncio.timeout(PATIENCE_S), self._store.begin() as connection:
                accounts = await read_accounts(connection)
        except (SyncdError, TimeoutError):
            return Readiness("the database")
        return Readiness(None, {account.name: state_in_words(account) for account in accounts})

    async def refresh_metrics(self) -> bytes:
        """Fill the gauges from the database and return all metrics; counters alone while it is away."""
        self.metrics.show_database(False)
        if self._store is not None:
            try:
                async with asyncio.timeout(PATIENCE_S), self._store.begin() as connection:
                    self.metrics.show_accounts(await read_accounts(connection), self._replica)
                    self.metrics.show_streams(await read_streams(connection, self._horizon_days))
                    self.metrics.show_outbox(await read_outbox(connection))
                    self.metrics.show_incidents(await count_incidents(connection))
                self.metrics.show_database(True)
            except (SyncdError, TimeoutError):
                pass
        return self.metrics.text()


def state_in_words(account: AccountStatus) -> str:
    """Return an account's state as one short clause for a person."""
    if account.paused_at is not None:
        by = "paused by an operator" if account.is_paused_by_operator else "paused"
        return f"{by}: {account.pause_reason or 'no reason given'}"
    if account.breaker_state != "closed":
        return "the CRM does not answer well; probing"
    if account.throttled_s > 0:
        return f"asked to slow down for {account.throttled_s:.0f} s"
    return IN_ORDER
