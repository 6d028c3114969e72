"""``syncd backfill`` as a user meets it: killed, it goes on; and it says what is proven and what is not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from syncd.sandbox import Sandbox, World
from tests.support.commands import reap, spawn, syncd

DOOR = ("backfill", "--since", "2015-01-01", "--json")


def account(sandbox: Sandbox, database: str) -> dict[str, str]:
    given = {"base_url": sandbox.base_url, "autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    return {"database_url": database, "rate_per_s": "1000", **given}


def paths(sandbox: Sandbox, operation: str) -> Counter[str]:
    return Counter(line.path for line in sandbox.requests if line.operation == operation)


def standings(told: Any) -> dict[str, tuple[bool, int | None, int | None]]:
    return {one["stream"]: (one["is_whole"], one["proven"], one["parts"]) for one in told["proven"]}


async def killed_at(sandbox: Sandbox, fault: dict[str, Any], *door: str, cwd: Path, **settings: str) -> None:
    """Start a backfill and kill it, without a word of warning, when it is at this request."""
    sandbox.faults.add(**fault)
    process = await spawn(*door, cwd=cwd, **settings)
    try:
        async with asyncio.timeout(120):
            await sandbox.until_held()
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    finally:
        await reap(process)
    sandbox.release()


async def test_a_killed_backfill_goes_on_where_it_was(tmp_path: Path, database: str) -> None:
    """Hours of one call for each relation: of those that were proven not one may be asked for again."""
    async with Sandbox(World.seeded(relations=70, orders=60, invoices=4, seed=3)) as sandbox:
        settings, door = account(sandbox, database), (*DOOR, "--relations")
        fault = {"kind": "hold", "operation": "relation_tags", "nth": 45}
        await killed_at(sandbox, fault, *door, cwd=tmp_path, **settings)
        first, orders = paths(sandbox, "relation_tags"), sum(paths(sandbox, "orders").values())
        members = paths(sandbox, "group_members")
        ended = await syncd(*door, cwd=tmp_path, **settings)
        assert ended.code == 0, ended.both
        told = standings(ended.json())
        both, known = paths(sandbox, "relation_tags"), told["relation_tags"][2] or 0
        assert (len(first), len(both)) == (45, known)
        assert sum(both.values()) == known + 5, "two parts of twenty were proven; five answers were in hand"
        assert paths(sandbox, "group_members") == members
        hours = [int(line.parameters["hours"]) for line in sandbox.requests if line.operation == "orders"]
        assert (orders, len(hours)) == (1, 2)
        assert hours[1] < 10 < hours[0], "time that is proven is not read again"
        assert told["relation_tags"] == (True, known, known)
        assert all(is_whole for is_whole, *_ in told.values())


async def test_a_window_killed_before_its_end_is_read_again(tmp_path: Path, database: str) -> None:
    """Half an answer proves nothing: it is asked for as if nothing had been."""
    async with Sandbox(World.seeded(relations=8, orders=30, invoices=4, seed=3)) as sandbox:
        settings, door = account(sandbox, database), (*DOOR, "--streams", "orders")
        fault = {"kind": "hold_answer", "operation": "orders"}
        await killed_at(sandbox, fault, *door, cwd=tmp_path, **settings)
        ended = await syncd(*door, cwd=tmp_path, **settings)
        hours = [int(line.parameters["hours"]) for line in sandbox.requests if line.operation == "orders"]
        assert hours[0] == hours[1]
        (run,) = ended.json()["runs"]
        assert (ended.code, run["received"]) == (0, 30)


async def test_what_is_not_proven_is_named_and_the_exit_code_says_so(tmp_path: Path, database: str) -> None:
    """A script must not take a history with a gap for a whole one."""
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as sandbox:
        settings = account(sandbox, database)
        sandbox.faults.add("malformed", operation="relation_tags", nth=3)
        ended = await syncd(
            *DOOR, "--streams", "tags,groups,group_members,orders,relation_tags", cwd=tmp_path, **settings
        )
        assert ended.code == 1, ended.both
        told = standings(ended.json())
        assert told["groups"] == (True, None, None)
        is_whole, proven, parts = told["relation_tags"]
        assert (is_whole, parts) == (False, (proven or 0) + 1)
        page = await syncd(*DOOR[:-1], "--streams", "orders,relation_tags", cwd=tmp_path, **settings)
        assert page.code == 0
        for words in ("Proven", "all since 2015-01-01", f"{parts} of {parts}"):
            assert words in page.out


async def test_without_relations_none_is_asked_for_one_by_one(tmp_path: Path, database: str) -> None:
    """Four calls for each of ten thousand relations are hours: nobody gets them unasked."""
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as sandbox:
        ended = await syncd(*DOOR, cwd=tmp_path, **account(sandbox, database))
        assert ended.code == 0, ended.both
        asked = {line.operation for line in sandbox.requests}
        assert asked.isdisjoint({"relation_tags", "relation_by_id", "relation_subscriptions", "relation_orders"})
        assert {"orders", "invoices", "invoice_detail", "group_members"} <= asked
