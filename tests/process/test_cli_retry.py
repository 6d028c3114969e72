"""Operations that mail people, from switched off to sent: what the README promises of them, as an operator types it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.process.test_cli import account, is_one_clear_failure
from tests.support.commands import syncd
from tests.support.outbox import new_account, rows, run_sql

WANTED = 12  # more than alike failures in a row make the breaker ask


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=20, orders=6, invoices=0, seed=3)) as running:
        yield running


async def _subscribe(store: Store, sandbox: Sandbox) -> None:
    """Put relations on a list, and say something that mails nobody beside it."""
    code = next(iter(sandbox.world.lists))
    chosen = "SELECT email FROM crm.relations WHERE remote_id IS NOT NULL ORDER BY id LIMIT :most"
    subscribed = f"SELECT crm.subscribe(email, CAST(:list AS text)) FROM ({chosen}) AS chosen"
    await run_sql(store, subscribed, list=str(code), most=WANTED)
    await run_sql(store, "UPDATE crm.relations SET last_name = 'Ook' WHERE id = 1")


async def _statuses(store: Store) -> dict[str, int]:
    found = await rows(
        store, "SELECT status, count(*) AS n FROM syncd.entries WHERE operation = 'subscribe' GROUP BY 1 ORDER BY 1"
    )
    return {row["status"]: row["n"] for row in found}


async def test_what_mails_people_is_dead_until_it_is_allowed_and_retried(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """The README's promise: not sent before its operation is named, nor by naming it, but by a retry."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    await _subscribe(store, sandbox)
    refused = await syncd("drain", cwd=tmp_path, **settings)
    assert refused.code == 1, refused.both
    assert await _statuses(store) == {"dead": WANTED}
    (group,) = (await syncd("outbox", "list", "--by-reason", "--json", cwd=tmp_path, **settings)).json()
    assert "SYNCD_ALLOWED_OPERATIONS and run syncd outbox retry --operation subscribe" in group["reason"]
    allowed = {**settings, "allowed_operations": "subscribe"}
    await syncd("drain", cwd=tmp_path, **allowed)
    assert await _statuses(store) == {"dead": WANTED}
    assert sandbox.requests.by_operation["list_subscribe"] == 0
    retried = await syncd("outbox", "retry", "--operation", "subscribe", "--json", cwd=tmp_path, **allowed)
    assert (len(retried.json()["retried"]), retried.err) == (WANTED, "")
    sent = await syncd("drain", cwd=tmp_path, **allowed)
    assert sent.code == 0, sent.both
    assert sandbox.requests.by_operation["list_subscribe"] == WANTED
    assert "dead" not in await _statuses(store)
    nothing = await syncd("outbox", "retry", "--operation", "subscribe", cwd=tmp_path, **allowed)
    assert is_one_clear_failure(nothing, 2)
    assert "no change of kind 'subscribe' is dead" in nothing.err


async def test_a_retry_by_operation_takes_that_kind_of_that_account_alone(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A switch was mended, and not what else is dead, nor what may have been applied."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    await _subscribe(store, sandbox)
    await syncd("drain", cwd=tmp_path, **settings)
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE operation = 'update_profile'")
    await run_sql(
        store,
        "UPDATE syncd.entries SET status = 'parked' WHERE id = (SELECT max(id) FROM syncd.entries"
        " WHERE operation = 'subscribe')",
    )
    other = await syncd("outbox", "retry", "--operation", "subscribe", "--account", "shop", cwd=tmp_path, **settings)
    assert is_one_clear_failure(other, 2)
    assert "there is no account 'shop'; the mirror has: default" in other.err
    await new_account(store, "shop")
    none = await syncd("outbox", "retry", "--operation", "subscribe", "--account", "shop", cwd=tmp_path, **settings)
    assert is_one_clear_failure(none, 2)
    assert await _statuses(store) == {"dead": WANTED - 1, "parked": 1}
    for wrong in (["1", "--operation", "subscribe"], ["1", "--account", "default"], []):
        assert is_one_clear_failure(await syncd("outbox", "retry", *wrong, cwd=tmp_path, **settings), 2)
    retried = await syncd(
        "outbox", "retry", "--operation", "subscribe", "--account", "default", cwd=tmp_path, **settings
    )
    assert retried.code == 0, retried.both
    assert await _statuses(store) == {"parked": 1, "pending": WANTED - 1}
    (profile,) = await rows(store, "SELECT status FROM syncd.entries WHERE operation = 'update_profile'")
    assert profile["status"] == "dead"


async def test_a_thousand_are_retried_at_a_time_and_the_rest_is_told(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """One transaction that locked every lane of a large list would keep everybody's changes from being staged."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    await _subscribe(store, sandbox)
    await syncd("drain", cwd=tmp_path, **settings)
    columns = "account_id, lane_id, relation_id, operation, payload, xact, captured_at, status"
    await run_sql(
        store,
        f"INSERT INTO syncd.entries ({columns}, facet, seq) SELECT {columns}, 'list:' || 1000 + n, seq + n"
        " FROM (SELECT * FROM syncd.entries WHERE operation = 'subscribe' ORDER BY id LIMIT 1) AS e,"
        f" generate_series(100, {99 + 1000 - WANTED + 3}) AS n",
    )
    await run_sql(
        store, "UPDATE syncd.lanes l SET tail_seq = (SELECT max(seq) FROM syncd.entries WHERE lane_id = l.id)"
    )
    first = await syncd("outbox", "retry", "--operation", "subscribe", "--json", cwd=tmp_path, **settings)
    assert first.err == "syncd: 3 more are dead; the same command retries them\n", first.both
    assert await _statuses(store) == {"dead": 3, "pending": 1000}
    ids = [row["id"] for row in await rows(store, "SELECT id FROM syncd.entries WHERE status = 'dead' ORDER BY id")]
    assert max(first.json()["retried"]) < min(ids)
    rest = await syncd("outbox", "retry", "--operation", "subscribe", cwd=tmp_path, **settings)
    assert rest.out == f"retried: {', '.join(map(str, ids))}\n"
