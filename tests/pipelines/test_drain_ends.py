"""How a drain ends: it says "try again later" exactly when a later drain gets further without a person's help.

Small worlds of relations that take each other's addresses, whose calls are refused and whose answers are lost, and in
which a person gives up some of what failed. A drain that ends counts what it leaves; then its word is tried.
"""

from __future__ import annotations

import random

from syncd.domain.reports import DrainReport
from syncd.store import Store
from tests.support.addresses import MAKE, give_up, move
from tests.support.outbox import QUICK, Circle, circle, rows
from tests.support.proving import Say, is_long
from tests.support.throwaway import cloned_store

SEEDS = range(1, 401) if is_long() else range(1, 21)
_LEFT = "SELECT id FROM syncd.entries WHERE status = 'pending' AND reasserts IS NULL"


async def test_try_again_later_is_said_exactly_when_that_helps(server_url: str, template: str, proof: Say) -> None:
    wrong, ends = list[str](), {True: 0, False: 0}
    for seed in SEEDS:
        async with cloned_store(server_url, template) as (store, _), circle(store, relations=4) as c:
            report = await _Troubles(c, random.Random(seed)).end()
            moved = await _moved_later(c, report)
        ends[moved] += report.pending + report.blocked > 0
        if moved != (report.pending > 0):
            wrong.append(f"seed {seed}: {report.pending} pending, {report.blocked} blocked, moved on later: {moved}")
    proof(f"ends of drains: seeds {SEEDS.start} to {SEEDS.stop - 1}, {ends[True]} got on later, {ends[False]} did not")
    assert not wrong, "\n".join(wrong)
    assert min(ends.values()) > 0


async def _moved_later(c: Circle, report: DrainReport) -> bool:
    """Let all back-offs be over, several times; return whether anything that was left pending was done with."""
    before = {row["id"] for row in await rows(c.store, _LEFT)}
    c.sandbox.faults.clear()
    for _ in range(4):
        await c.wake()
        await c.drain(patience_s=0.2)
    return before > {row["id"] for row in await rows(c.store, _LEFT)}


class _Troubles:
    """Edits, faults, drains and decisions, drawn; ends with a drain that gives up early and waits for nothing."""

    def __init__(self, c: Circle, chance: random.Random) -> None:
        self._c = c
        self._chance = chance
        self._store: Store = c.store
        self._fresh = 0

    async def end(self) -> DrainReport:
        for _ in range(self._chance.randint(8, 20)):
            await self._do()
        limits = {"max_attempts": 2} if self._chance.random() < 0.7 else {"backoff_s": 1e6, "backoff_max_s": 1e6}
        return await self._c.drain(QUICK, patience_s=0.2, **limits)

    async def _do(self) -> None:
        what = self._chance.choices(("move", "edit", "make", "tag", "fault", "drain", "decide"), (8, 2, 2, 1, 6, 3, 1))[
            0
        ]
        await getattr(self, f"_{what}")()

    async def _move(self) -> None:
        if (address := await self._free()) is not None:
            await move(self._c, await self._anyone(), address)

    async def _make(self) -> None:
        if (address := await self._free()) is not None:
            await self._c.edit(MAKE, email=address)

    async def _edit(self) -> None:
        column = self._chance.choice(("first_name", "last_name"))
        self._fresh += 1
        sql = f"UPDATE crm.relations SET {column} = :value WHERE id = :id"
        await self._c.edit(sql, value=f"N{self._fresh}", id=await self._anyone())

    async def _tag(self) -> None:
        sql = "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:id, 301) ON CONFLICT DO NOTHING"
        await self._c.edit(sql, id=await self._anyone())

    async def _fault(self) -> None:
        operation = self._chance.choice(("relation_email", "relation_email", "relation_upsert"))
        times = self._chance.choice((1, 2, 4))
        match self._chance.choice(("status", "reset", "lost_answer")):
            case "status":
                self._c.sandbox.faults.add("status", status=400, operation=operation, times=times)
            case kind:
                self._c.sandbox.faults.add(kind, operation=operation, times=times)

    async def _drain(self) -> None:
        await self._c.drain(patience_s=0.2, max_attempts=2)

    async def _decide(self) -> None:
        sql = "SELECT id FROM syncd.entries WHERE status IN ('dead', 'parked') ORDER BY id"
        if failed := [row["id"] for row in await rows(self._store, sql)]:
            await give_up(self._c, self._chance.choice(failed))

    async def _anyone(self) -> int:
        return int(self._chance.choice([row["id"] for row in await rows(self._store, "SELECT id FROM crm.relations")]))

    async def _free(self) -> str | None:
        """An address that nobody has here: one that somebody had before, or a new one."""
        sql = """SELECT DISTINCT payload ->> 'old' AS email FROM syncd.entries WHERE operation = 'change_email'
                 EXCEPT SELECT email FROM crm.relations ORDER BY 1"""
        left = [row["email"] for row in await rows(self._store, sql)]
        if left and self._chance.random() < 0.85:
            return str(self._chance.choice(left))
        self._fresh += 1
        return f"fresh{self._fresh}@x.example"
