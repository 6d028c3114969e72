"""The puller that is killed: every stream once, as a daemon pulls when it has just become the holder of the lease.

Time stands still for it as it does for the CRM, so that what it asks for and what it proves is the same each time.
Small batches, so that a window has several and a sweep writes in several transactions.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from syncd.domain.account import Account
from syncd.domain.ids import AccountId
from syncd.inbound import Puller, PullPolicy
from syncd.policy.windows import WindowRule
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth, ProviderOptions
from syncd.store import Store
from syncd.transport import Transport
from tests.support.clock import ManualClock

POLICY = PullPolicy(window=WindowRule(horizon_s=3650 * 86400.0), sweep_batch=3, batch_rows=4)


async def pull(order: dict[str, Any]) -> None:
    """Close what a process before left open, and pull everything; whatever does not succeed ends the process."""
    clock = ManualClock(datetime.fromisoformat(order["now"]))
    store = Store.open(order["database"], pool_size=4)
    crm = provider(ProviderOptions(administration=order["admin"]))
    transport = Transport.open(order["crm"], Auth(query={"admin": order["admin"], "key": order["key"]}), clock=clock)
    account = Account(AccountId(order["account"]), "default", crm.name)
    try:
        policy = replace(POLICY, files=Path(order["files"]))
        puller = Puller(store, crm, transport, clock, account, policy, lambda _: None)
        await puller.recover()
        for report in await puller.pull_all("schedule"):
            if not report.is_success:
                raise RuntimeError(f"{report.stream}: {report.reason}")
    finally:
        await transport.close()
        await store.close()
