"""What one-shot commands run on: the same parts as the daemon, without schedule, lease and pages.

No lease is taken: a pull beside the daemon's own asks twice and harms nothing, because every run writes in one
transaction that believes no older answer than the rows it meets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from syncd.clock import SystemClock
from syncd.service.accounts import AccountRuntime, Reports, opened_accounts
from syncd.service.database import make_ready, opened
from syncd.settings import AccountConfig, Settings


@asynccontextmanager
async def opened_runtimes(
    settings: Settings, configs: Sequence[AccountConfig], reports: Reports
) -> AsyncIterator[tuple[AccountRuntime, ...]]:
    """Open the database, see to its schema, and build every account's runtime."""
    async with opened(settings) as database:
        await make_ready(database, may_migrate=settings.migrate_on_start)
        async with opened_accounts(configs, database.store, SystemClock(), reports) as runtimes:
            yield runtimes
