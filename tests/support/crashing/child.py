"""Who is killed: a warm process that imports everything once and forks a drainer or a puller per order.

It reads one JSON line per order, ``{"drain": {...}}``, ``{"pull": {...}}`` or ``{"kill": pid}``, and prints one line
per event: ``forked``, ``ended``. Only this process knows which children are still its own, so only it may signal them.
A forked drainer does what ``syncd drain`` does, with small times, a puller what a daemon does at its start; they say
nothing, for what it came to is read from the database and the CRM.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from syncd.clock import SystemClock
from syncd.domain.account import Account
from syncd.domain.ids import AccountId
from syncd.outbound import Drainer, DrainLimits
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth, ProviderOptions
from syncd.store import Store
from syncd.transport import Transport
from tests.support.crashing.pulls import pull
from tests.support.defects import DEFECTS
from tests.support.outbox import GUARDED


def limits(concurrency: int) -> DrainLimits:
    """Small times: what is waited out is waited out quickly, and a lease never ends by itself."""
    return DrainLimits(
        concurrency=concurrency,
        lease_s=60.0,
        timeout_s=10.0,
        poll_interval_s=0.01,
        patience_s=1.0,
        read_back_share=1e-9,  # as good as never by chance: what is due to be read back is prepared
        backoff_s=0.01,
        backoff_max_s=0.05,
        throttle_s=0.05,
        probe_s=0.05,
        breaker_pause_s=0.05,
        breaker_pause_max_s=0.1,
    )


async def drain(order: dict[str, Any]) -> None:
    """Drain once, through the doors."""
    clock = SystemClock()
    store = Store.open(order["database"], pool_size=4)
    auth = Auth(query={"admin": order["admin"], "key": order["key"]})
    transport = Transport.open(order["crm"], auth, clock=clock)
    account = Account(AccountId(order["account"]), "default", "autorespond")
    options = ProviderOptions(allowed_operations=GUARDED)
    try:
        drainer = Drainer(store, provider(options), transport, clock, account, limits(order["concurrency"]))
        await drainer.drain()
    finally:
        await transport.close()
        await store.close()


WORK: Mapping[str, Callable[[dict[str, Any]], Coroutine[Any, Any, None]]] = {"drain": drain, "pull": pull}


def _fork(work: str, order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(order["longest_s"])  # a drainer that hangs must not outlive its proof
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for name in order["defects"]:
            DEFECTS[name].plant()
        asyncio.run(WORK[work](order))
    except BaseException:  # noqa: BLE001 - the last line of a process: whatever it is, it is said and the process ends
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def serve() -> None:
    """Take orders until nobody gives any more; then end whoever still runs."""
    children: set[int] = set()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    _warm_up()
    _say("ready", 0)
    with open(0, "rb", buffering=0) as orders:
        pending = b""
        while True:
            ready, _, _ = select.select([orders, woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                _reap(children)
            if orders in ready:
                piece = orders.read(65536)
                if not piece:
                    break
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    _obey(json.loads(line), children)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Have done what every drainer would do first, and leave its memory alone: a page that is not written is shared."""
    Store.open("postgresql://nobody@127.0.0.1/nothing")
    gc.collect()
    gc.disable()
    gc.freeze()


def _obey(order: dict[str, Any], children: set[int]) -> None:
    ((work, given),) = order.items()
    if work in WORK:
        pid = _fork(work, given)
        children.add(pid)
        _say("forked", pid)
    elif given in children:
        os.kill(given, signal.SIGKILL)


def _reap(children: set[int]) -> None:
    for pid in tuple(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            _say("ended", pid, os.waitstatus_to_exitcode(status))


def _say(event: str, pid: int, code: int = 0) -> None:
    sys.stdout.write(json.dumps({"event": event, "pid": pid, "code": code}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
