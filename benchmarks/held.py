"""How deliveries fare while somebody's transaction stays open.

Two daemons deliver in turns, and only one of them has such a transaction beside it; of the ratios of all rounds the
median counts. A busy machine disturbs both alike, and what grows with time is seen. Each has a server of its own, an
embedded one with the settings of every user: a transaction that has written keeps the dead rows of every database of
its server, because the snapshots of all of them begin at it. The CRM answers in no time.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from sqlalchemy import text

from benchmarks.claims import CAPTURE, Ground, Wire, ground
from benchmarks.figures import Figure, note, peak_mb
from syncd.store.embedded import EmbeddedPostgres


@dataclass(slots=True)
class Live:
    """A daemon at work."""

    ground: Ground
    wire: Wire = field(default_factory=Wire)
    captured: int = 0

    async def turn(self, lanes: int) -> float:
        """Have it deliver one new entry of each lane; return deliveries a second."""
        began, sent = time.perf_counter(), len(self.wire.sent)
        await self.ground.capture(1, lanes, tag=self.captured)  # never the same tag: nothing folds
        self.captured += lanes
        await self.wire.until(self.captured)
        return (len(self.wire.sent) - sent) / (time.perf_counter() - began)


async def measure(given: argparse.Namespace) -> None:
    """Let one transaction stay open until its daemon has delivered for so long."""
    async with AsyncExitStack() as stack:
        lives = [Live(await stack.enter_async_context(apart(given.lanes))) for _ in range(2)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for live in lives:
                group.create_task(live.ground.drainer(live.wire).run(stop))
            await in_turns(lives, given.lanes, given.seconds / 10)
            async with somebody(lives[0].ground):
                found = await in_turns(lives, given.lanes, given.seconds)
            stop.set()
    tell(f"live, a transaction open {given.seconds:.0f} s, all of it", found, 0.9)
    tell(f"live, a transaction open {given.seconds:.0f} s, last fifth", found[-max(1, len(found) // 5) :])
    print(f"peak memory                       {peak_mb():8.0f} MB")


@asynccontextmanager
async def apart(relations: int) -> AsyncIterator[Ground]:
    """Yield a database on a server of its own."""
    with TemporaryDirectory(prefix="syncd-bench-") as directory:
        await asyncio.to_thread(Path(directory).chmod, 0o755)  # the server may be another user's
        async with EmbeddedPostgres(Path(directory) / "data") as url, ground(relations, url) as place:
            yield place


async def in_turns(lives: list[Live], lanes: int, seconds: float) -> list[tuple[float, float]]:
    """Let two daemons deliver in turns until the first has done so for some seconds; return the rates of each round.

    They change places each round: what comes second in it, or disturbs the machine for long, favours neither.
    """
    found: list[tuple[float, float]] = []
    spent_s = 0.0
    while spent_s < seconds or not found:
        first, second = (0, 1) if len(found) % 2 else (1, 0)
        rates = {first: await lives[first].turn(lanes), second: await lives[second].turn(lanes)}
        found.append((rates[0], rates[1]))
        spent_s += lanes / rates[0]
    return found


@asynccontextmanager
async def somebody(ground: Ground) -> AsyncIterator[None]:
    """Hold a transaction open that has read and has edited: the one keeps what is deleted, the other has a low id."""
    async with ground.store.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        # It is an application's, not ours.
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await connection.execute(text("SELECT count(*) FROM crm.relations"))
        await connection.execute(CAPTURE, ground.captures(1, 1))
        yield
        await connection.rollback()


def tell(what: str, found: list[tuple[float, float]], target: float | None = None) -> None:
    held, free = (median(column) for column in zip(*found, strict=True))
    ratio = median(one / other for one, other in found)
    print(f"{what:46s} {held:6.0f} deliveries/s, beside it none open {free:6.0f}   ratio {ratio:.2f}")
    note(Figure(what, f"{held:.0f} deliveries/s", f"{free:.0f} without", ratio, target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long is delivered beside an open transaction")
    parser.add_argument("--lanes", type=int, default=2000, help="lanes, each with one entry a round")
    parser.add_argument("--short", action="store_true", help="small sizes: shows that it works, measures little")
    given = parser.parse_args()
    if given.short:
        given.seconds, given.lanes = 0.5, 50
    asyncio.run(measure(given))


if __name__ == "__main__":
    main()
