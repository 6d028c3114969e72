"""Commits a second of an application, with capture and without: what the outbox costs those who edit.

Clients edit the mirror as applications do: one row a transaction (a name changed, a tag added, a name, a tag taken
away), each client its own relations. The least that an application can do is one such statement and nothing else: there
capture weighs most. As a rule it also reads the relation first and writes a row of its own, in one transaction: that is
measured too. Capture is switched on and off between short rounds of one run, so that what else the machine does falls
on both alike; the ratio is of their sums, and the spread is that of neighbouring rounds. "Off" disables the capture
triggers alone: the guards, which refuse impossible edits, stay. Once more with a stager beside it in a process of its
own, which takes its share of the processors. Then one bulk UPDATE.

Last, the floor: the same bare edits with triggers that do nothing but insert one constant row: what any trigger costs
that writes a capture at all. Counted in instructions of the server (callgrind, a single-user server, prepared
statements, each its own transaction), a single-row UPDATE of a relation takes 245,000; 62,000 more with the constant
row, and 115,000 more with capture (207,000 before capture_004.sql). The 53,000 between them: to read the old and the
new row, who edits and why, to compare, and the owner's rights. Adding a tag takes 228,000, 60,000 and 102,000 more. The
target is missed by bare edits, and nearly by the floor itself (0.82 and 0.88 in one run on two busy processors).

Beside the rates stands the processor time of the sessions' own server processes, per commit: on a busy machine it
moves less than rates do. It is read from ``/proc``, where there is one. Needs ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import fmean

import asyncpg

from benchmarks.databases import beside, connected, database, mirrored, told
from benchmarks.figures import Figure, note, peak_mb
from syncd.store import Store
from syncd.store.outbox import stage

TARGET = 0.9
EACH = 500  # relations a client
TRIGGERS = {
    "relations": ("capture_insert", "capture_update"),
    "relation_tags": ("capture_insert", "capture_delete"),
    "relation_fields": ("capture_insert", "capture_update"),
    "group_members": ("capture_insert", "capture_delete"),
}


# The least that a capture can be.
FLOOR = "".join(
    f"""
    CREATE OR REPLACE FUNCTION syncd.{function}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
        VALUES (1, 1, 'update_profile', 'profile', '{{"old": {{"first_name": "a"}}, "new": {{"first_name": "b"}}}}');
        RETURN NULL;
    END $$;
    """
    for function in ("capture_relation_update", "capture_relation_tags")
)


@dataclass(frozen=True, slots=True)
class Terms:
    round_s: float
    pairs: int
    bulk: int


@dataclass(frozen=True, slots=True)
class Scene:
    """``is_whole``: a read, a row of the application's own and the edit in one transaction, not the edit alone."""

    clients: int
    is_whole: bool = False
    is_staged: bool = False

    @property
    def name(self) -> str:
        kind = "transactions" if self.is_whole else "bare edits"
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{kind} of {clients}{' with a stager' if self.is_staged else ''}"

    @property
    def target(self) -> float | None:
        return TARGET if self.clients == 16 and not self.is_staged else None


SCENES = (Scene(1), Scene(16), Scene(1, is_whole=True), Scene(16, is_whole=True))
STAGED = (Scene(16, is_staged=True), Scene(16, is_whole=True, is_staged=True))


@dataclass(frozen=True, slots=True)
class Round:
    """Commits a second, and what each took of the processors in the server; 0 where that cannot be read."""

    rate: float
    server_us: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """Round by round, without capture and with it."""

    off: tuple[Round, ...]
    on: tuple[Round, ...]

    @property
    def ratio(self) -> float:
        return sum(each.rate for each in self.on) / sum(each.rate for each in self.off)

    @property
    def spread(self) -> tuple[float, float]:
        ratios = [on.rate / off.rate for off, on in zip(self.off, self.on, strict=True)]
        return min(ratios), max(ratios)


async def measure(terms: Terms) -> None:
    async with database() as (url, account):
        await fill(url, account.id, max(16 * EACH, terms.bulk))
        for scene in SCENES:
            tell(scene.name, await alternate(url, scene, terms), scene.target)
        with beside(stager, url) as pipe:
            await told(pipe)
            for scene in STAGED:
                tell(scene.name, await alternate(url, scene, terms))
        await bulk(url, terms.bulk)
        await floor(url, terms)
    print(f"peak memory {peak_mb():.0f} MB")


async def fill(url: str, account_id: int, relations: int) -> None:
    await mirrored(url, account_id, relations)
    async with connected(url) as connection:
        await connection.execute("CREATE TABLE public.visits (id bigserial PRIMARY KEY, relation_id bigint, said text)")
        await connection.execute("VACUUM ANALYZE")


def stager(pipe: Pipe, url: str) -> None:
    """Stage whatever is captured, as a drainer of an unreachable CRM would, until killed."""

    async def run() -> None:
        store = Store.open(url)
        pipe.send("ready")
        while True:
            async with store.begin() as connection:
                staged = await stage(connection)
            if not staged:
                await asyncio.sleep(0.05)

    asyncio.run(run())


async def alternate(url: str, scene: Scene, terms: Terms) -> Rounds:
    """Measure off, on, on, off and so on: a machine that slowly gets slower favours neither."""
    rounds: dict[bool, list[Round]] = {False: [], True: []}
    await one_round(url, scene, terms.round_s / 4)
    for pair in range(terms.pairs):
        for is_captured in (False, True) if pair % 2 == 0 else (True, False):
            await switch(url, is_captured)
            rounds[is_captured].append(await one_round(url, scene, terms.round_s))
    await switch(url, True)
    return Rounds(tuple(rounds[False]), tuple(rounds[True]))


async def switch(url: str, is_captured: bool) -> None:
    """Switch the capture triggers, and begin with as little to carry as the last round did."""
    async with connected(url) as connection:
        for table, triggers in TRIGGERS.items():
            for trigger in triggers:
                verb = "ENABLE" if is_captured else "DISABLE"
                await connection.execute(f"ALTER TABLE crm.{table} {verb} TRIGGER {trigger}")
        await connection.execute("TRUNCATE syncd.captures")
        await connection.execute("CHECKPOINT")


async def one_round(url: str, scene: Scene, seconds: float) -> Round:
    """Let so many clients edit at once."""
    connections = [await asyncpg.connect(url, server_settings={"jit": "off"}) for _ in range(scene.clients)]
    try:
        editors = [await Editor.of(connection, place) for place, connection in enumerate(connections)]
        spent_us, started = server_us(connections), time.perf_counter()
        done = sum(await asyncio.gather(*(editor.work(started + seconds, scene.is_whole) for editor in editors)))
        return Round(done / (time.perf_counter() - started), (server_us(connections) - spent_us) / done)
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


def server_us(connections: Sequence[asyncpg.Connection]) -> float:
    """Return the processor time that the server processes of these sessions have taken, or 0 where it is not told."""
    places = [Path("/proc", str(connection.get_server_pid())) for connection in connections]
    try:
        if any("postgres" not in (place / "comm").read_text() for place in places):
            return 0.0  # the server is elsewhere, and these are processes of somebody else
        return sum(int((place / "schedstat").read_text().split()[0]) for place in places) / 1000
    except OSError:
        return 0.0


@dataclass(frozen=True, slots=True)
class Editor:
    """One client: its statements, prepared, and the first of its relations."""

    connection: asyncpg.Connection
    edits: tuple[asyncpg.prepared_stmt.PreparedStatement, ...]
    read: asyncpg.prepared_stmt.PreparedStatement
    write: asyncpg.prepared_stmt.PreparedStatement
    first: int

    @classmethod
    async def of(cls, connection: asyncpg.Connection, place: int) -> Editor:
        rename = await connection.prepare(
            "UPDATE crm.relations SET first_name = 'name ' || $2::bigint WHERE id = $1::bigint"
        )
        tag = await connection.prepare(
            "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT $1::bigint, 1 WHERE $2::bigint > 0"
        )
        untag = await connection.prepare(
            "DELETE FROM crm.relation_tags WHERE relation_id = $1::bigint AND tag_id = 1 AND $2::bigint > 0"
        )
        read = await connection.prepare("SELECT * FROM crm.relations WHERE id = $1")
        write = await connection.prepare("INSERT INTO public.visits (relation_id, said) VALUES ($1, 'hello')")
        return cls(connection, (rename, tag, rename, untag), read, write, place * EACH + 1)

    async def work(self, until: float, is_whole: bool) -> int:
        """Edit until then; return how many transactions were committed. What was tagged is untagged again."""
        commits = 0
        while time.perf_counter() < until:
            relation = self.first + commits // len(self.edits) % EACH
            for edit in self.edits:
                commits += 1
                if is_whole:
                    await self._whole(edit, relation, commits)
                else:
                    await edit.fetch(relation, commits)
        return commits

    async def _whole(self, edit: asyncpg.prepared_stmt.PreparedStatement, relation: int, number: int) -> None:
        async with self.connection.transaction():
            await self.read.fetch(relation)
            await self.write.fetch(relation)
            await edit.fetch(relation, number)


def tell(name: str, rounds: Rounds, target: float | None = None) -> None:
    off, on = (fmean(each.rate for each in side) for side in (rounds.off, rounds.on))
    off_us, on_us = (fmean(each.server_us for each in side) for side in (rounds.off, rounds.on))
    least, most = rounds.spread
    both = f"capture on {on:7.0f}/s {on_us:4.0f} us   off {off:7.0f}/s {off_us:4.0f} us"
    print(f"{name:40} {both}   ratio {rounds.ratio:.2f} ({least:.2f} to {most:.2f})", flush=True)
    note(Figure(name, f"{on:.0f} commits/s", f"{off:.0f} without capture", rounds.ratio, target))


async def floor(url: str, terms: Terms) -> None:
    """Measure what the mere writing of a row costs. It spoils the database's capture: nothing comes after it."""
    async with connected(url) as connection:
        await connection.execute(FLOOR)
    tell("floor: a constant row, 16 clients", await alternate(url, Scene(16), terms))


async def bulk(url: str, rows: int) -> None:
    """Time one UPDATE of many rows, the best of two each way."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    async with connected(url) as connection:
        for turn in range(2):
            for is_captured in (False, True):
                await switch(url, is_captured)
                started = time.perf_counter()
                await connection.execute(
                    "UPDATE crm.relations SET last_name = $1 WHERE id <= $2", f"{turn}{is_captured}", rows
                )
                taken[is_captured].append(time.perf_counter() - started)
                await connection.execute("VACUUM crm.relations")
    off, on = min(taken[False]), min(taken[True])
    print(f"one UPDATE of {rows} relations: {on:.2f} s captured, {off:.2f} s not, {on / off:.2f} times")
    note(Figure(f"one UPDATE of {rows} relations", f"{on:.2f} s", f"{off:.2f} s without capture", off / on))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round")
    parser.add_argument("--pairs", type=int, default=6, help="rounds without and with capture")
    parser.add_argument("--bulk", type=int, default=100_000, help="rows of the bulk UPDATE")
    parser.add_argument("--short", action="store_true", help="a small size: shows that it works, measures little")
    given = parser.parse_args()
    asyncio.run(measure(Terms(0.1, 1, 1_000) if given.short else Terms(given.seconds, given.pairs, given.bulk)))


if __name__ == "__main__":
    main()
