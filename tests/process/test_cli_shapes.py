"""Drift of shape from the outside: what is told, what is listed, what is accepted, and what is read again."""

from __future__ import annotations

from pathlib import Path

from syncd.sandbox import Sandbox, World
from tests.support.commands import syncd


async def test_what_is_odd_is_told_listed_accepted_and_read_again(tmp_path: Path, database: str) -> None:
    """Whoever keeps syncd meets the words, the names of the commands and the exit codes, never our tables."""
    async with Sandbox(World.seeded(relations=8, orders=20, invoices=4, seed=3)) as sandbox:
        given = {"database_url": database, "rate_per_s": "1000", "base_url": sandbox.base_url}
        given |= {"autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
        sandbox.faults.add("retyped_key", operation="orders", key="orderlines", times=0, every=10)
        sandbox.faults.add("added_key", operation="tags", key="hue", times=0)
        pulled = await syncd("backfill", "--streams", "orders,tags", cwd=tmp_path, **given)
        assert (pulled.code, "syncd shapes accept tags hue" in " ".join(pulled.out.split())) == (0, True), pulled.both
        assert pulled.err.count("shape.noticed") == 2, "one line for each: an unknown key, and a type that changed"
        status = await syncd("status", "--json", cwd=tmp_path, **given)
        assert [(one["stream"], one["records"]) for one in status.json()["unread"]] == [("orders", 2)]
        assert [odd["key"] for odd in status.json()["unknown_keys"]] == ["hue"]
        listed = await syncd("shapes", cwd=tmp_path, **given)
        assert all(word in listed.out for word in ("orderlines", "retyped", "hue", "unknown")), listed.both
        assert "value" not in listed.out, "records are of persons: shown when asked for"
        accepted = await syncd("shapes", "accept", "tags", "hue", cwd=tmp_path, **given)
        assert (accepted.code, "accepted: hue of tags" in accepted.out) == (0, True), accepted.both
        read = await syncd("reproject", "--json", cwd=tmp_path, **given)
        assert read.code == 1, read.both
        assert {one["stream"]: one["unread"] for one in read.json() if one["unread"]} == {"orders": 2}
