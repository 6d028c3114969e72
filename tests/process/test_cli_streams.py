"""What a person is told of coverage: holes with their age, the risk that remains, staleness and cost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.support.commands import syncd


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


async def test_status_shows_a_hole_with_its_age_and_what_the_overlap_leaves_to_chance(
    tmp_path: Path, sandbox: Sandbox, database: str
) -> None:
    """An operator must see what is missing before a customer does, and a program must be able to read it."""
    given = {"database_url": database, "rate_per_s": "1000", "base_url": sandbox.base_url}
    given |= {"autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    assert (await syncd("pull", "orders", "invoices", cwd=tmp_path, **given)).code == 0
    store = Store.open(database, pool_size=1)
    async with store.begin() as connection:
        await connection.exec_driver_sql("""
            UPDATE syncd.coverage SET proven = proven - tstzmultirange(
                tstzrange(now() - interval '3 days', now() - interval '70 hours')) WHERE stream = 'orders'
        """)
        await connection.exec_driver_sql("""
            INSERT INTO syncd.lateness SELECT id, 'orders', date_trunc('month', now())::date, bucket, rows
            FROM crm.accounts, (VALUES (0, 4999), (20, 1)) AS l (bucket, rows)
        """)
    await store.close()
    shown = await syncd("status", cwd=tmp_path, **given)
    assert shown.code == 0
    hole = next(line for line in shown.out.splitlines() if "orders" in line and "3.0 d" in line)
    assert "2.0 h" in hole
    assert "1 of 5,000 orders came later than the overlap of 2 h; wider reads find such" in " ".join(shown.out.split())
    status = json.loads((await syncd("status", "--json", cwd=tmp_path, **given)).out)
    (found,) = [hole for hole in status["holes"] if not hole["is_open"]]
    assert (found["stream"], round(found["age_s"] / 3600), round(found["span_s"])) == ("orders", 72, 7200)
    assert {(row["stream"], row["rows"], row["later"], row["beyond"]) for row in status["overlaps"]} == {
        ("orders", 5000, 1, 0),
        ("invoices", 0, 0, 0),
    }


async def test_streams_tells_staleness_and_cost_for_this_account_or_a_larger_one(
    tmp_path: Path, sandbox: Sandbox, database: str
) -> None:
    """Whoever chooses cadences must see what they give and what they cost before the vendor does."""
    given = {"database_url": database, "rate_per_s": "2", "base_url": sandbox.base_url}
    given |= {"autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    assert (await syncd("pull", "groups", "orders", cwd=tmp_path, **given)).code == 0
    shown = await syncd("streams", cwd=tmp_path, **given)
    assert shown.code == 0
    assert "unpaid order, up to 400 d old" in shown.out
    assert "requests an hour for" in shown.out
    (larger,) = json.loads((await syncd("streams", "--relations", "10000", "--json", cwd=tmp_path, **given)).out)
    assert larger["size"]["relations"] == 10_000
    assert larger["requests_per_h"] == pytest.approx(sum(row["per_hour"] for row in larger["costs"]))
    within = {row["kind"]: row["within_s"] for row in larger["promises"]}
    assert within["new order"] < 90
    assert within["settled order, older than that"] is None
    scarce = await syncd("streams", "--relations", "10000", cwd=tmp_path, **{**given, "rate_per_s": "0.1"})
    assert "the promises are late by as much" in " ".join(scarce.out.split())
