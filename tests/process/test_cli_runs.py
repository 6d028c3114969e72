"""Pulls that ask, from the outside: exit code and sentence, the list, the decision, and the pull that obeys it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from syncd.sandbox import Sandbox, World
from tests.support.commands import syncd


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


async def test_a_held_pull_names_the_command_that_lets_it_go(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """At night nobody reads a manual: what to type must stand in what the pull says."""
    given = {"database_url": database, "rate_per_s": "1000", "base_url": sandbox.base_url, "rewrite_rows": "1"}
    given |= {"autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    assert (await syncd("pull", "tags", cwd=tmp_path, **given)).code == 0
    nothing = await syncd("runs", "list", cwd=tmp_path, **given)
    assert (nothing.code, "No pull waits" in nothing.out) == (0, True)
    for number, tag in list(sandbox.world.tags.items()):
        sandbox.world.tags[number] = msgspec.structs.replace(tag, name=f"other {number}")
    held = await syncd("pull", "tags", cwd=tmp_path, **given)
    assert held.code == 1
    assert "syncd runs approve tags" in " ".join(held.out.split())
    count = len(sandbox.world.tags)
    listed = (await syncd("runs", "list", "--json", cwd=tmp_path, **given)).json()
    assert [(hold["stream"], hold["status"], hold["rewritten"]) for hold in listed] == [("tags", "open", count)]
    assert "unasked" in (await syncd("status", cwd=tmp_path, **given)).out
    unknown = await syncd("runs", "approve", "orders", cwd=tmp_path, **given)
    assert (unknown.code, "syncd runs list" in unknown.err) == (2, True)
    rejected = await syncd("runs", "reject", str(listed[0]["id"]), cwd=tmp_path, **given)
    assert (rejected.code, "stays as it is" in rejected.out) == (0, True)
    assert (await syncd("pull", "tags", cwd=tmp_path, **given)).code == 1
    decided = await syncd("runs", "approve", "tags", "--reason", "renamed by hand", "--json", cwd=tmp_path, **given)
    assert (decided.code, decided.json()["status"]) == (0, "approved"), decided.both
    done = await syncd("pull", "tags", "--json", cwd=tmp_path, **given)
    assert (done.code, done.json()[0]["updated"]) == (0, count)
    past = (await syncd("runs", "list", "--all", "--json", cwd=tmp_path, **given)).json()
    assert [hold["status"] for hold in past] == ["used"]
