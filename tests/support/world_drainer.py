"""A drainer as a process of its own: it drains until SIGTERM, and tells each delivery in a line of JSON.

Its one argument is a JSON object: the database's URL, the simulator's base URL and credentials, the limits.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import fields
from typing import Any

from syncd.clock import SystemClock
from syncd.domain.reports import DeliveryReport
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth, ProviderOptions
from syncd.store import Store
from syncd.transport import Transport
from tests.support.outbox import GUARDED, new_account


def told(report: DeliveryReport) -> None:
    print(json.dumps({"lane": report.lane_id, "outcome": report.outcome, "is_fenced": report.is_fenced}), flush=True)


async def drain(given: dict[str, Any]) -> None:
    stop, clock = asyncio.Event(), SystemClock()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store = Store.open(given["url"], pool_size=2, application_name=given["name"])
    auth = Auth(query={"admin": given["admin"], "key": given["key"]})
    transport = Transport.open(given["base_url"], auth, clock=clock)
    options = ProviderOptions(allowed_operations=GUARDED, verify_writes=given["verifies"])
    try:
        account = await new_account(store)
        drainer = Drainer(
            store, provider(options), transport, clock, account, DrainLimits(**given["limits"]), report=told
        )
        print(json.dumps({"worker": drainer._worker}), flush=True)
        await drainer.run(stop)
    finally:
        await transport.close()
        await store.close()


def argument(limits: DrainLimits, **given: Any) -> str:
    """Return what this process wants to be told; owners stay as they are by default, for a mapping has no JSON here."""
    plain = {limit.name: getattr(limits, limit.name) for limit in fields(limits) if limit.name != "owners"}
    return json.dumps({"limits": plain, "verifies": False, "name": "drainer", **given})


if __name__ == "__main__":
    asyncio.run(drain(json.loads(sys.argv[1])))
