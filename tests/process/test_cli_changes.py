"""``syncd changes`` as a consumer runs it: lines, cursors, and being killed in between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from syncd.store import Store
from syncd.store.accounts import ensure_account
from tests.support.commands import PATIENCE_S, reap, spawn, syncd
from tests.support.outbox import run_sql

NOTE = """
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, run_id, before, after)
    VALUES (1, 'orders', {0}, 'update', 'remote', 7, '{{"is_paid": false}}', '{{"is_paid": true}}')
"""


async def _noted(store: Store, *rows: int) -> None:
    async with store.begin_remote() as connection:
        await ensure_account(connection, "default", "autorespond")
    for row in rows:
        await run_sql(store, NOTE.format(row).replace(":", r"\:"))
    async with asyncio.timeout(PATIENCE_S):  # other databases' transactions hold the horizon of this server too
        while True:
            async with store.begin() as connection:
                shown = await connection.exec_driver_sql("SELECT row_id FROM crm.changes_since()")
                if set(rows) <= set(shown.scalars()):
                    return
            await asyncio.sleep(0.05)


async def test_lines_go_on_where_the_last_one_ended(tmp_path: Path, database: str, store: Store) -> None:
    """The cursor of a line is all that a consumer must keep."""
    await _noted(store, 1, 2, 3)
    said = await syncd("changes", "--json", cwd=tmp_path, database_url=database)
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["row_id"] for line in lines] == [1, 2, 3]
    assert lines[0]["before"] == {"is_paid": False}
    assert (lines[0]["account"], lines[0]["table_name"], lines[0]["origin"], lines[0]["run_id"]) == (
        "default", "orders", "remote", 7,
    )  # fmt: skip
    rest = await syncd("changes", "--since", lines[1]["cursor"], cwd=tmp_path, database_url=database)
    assert [line.split("  ")[4] for line in rest.out.splitlines()] == ["orders 3"]


async def test_a_bookmark_survives_the_consumer(tmp_path: Path, database: str, store: Store) -> None:
    """Killed while it follows, started again: each change once."""
    await _noted(store, 1, 2)
    process = await spawn("changes", "--follow", "--json", "--bookmark", "mark", cwd=tmp_path, database_url=database)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            first = [json.loads(await process.stdout.readline())["row_id"] for _ in range(2)]
            await _noted(store, 3)
            first.append(json.loads(await process.stdout.readline())["row_id"])
            while not (tmp_path / "mark").exists() or len((tmp_path / "mark").read_text()) < 3:
                await asyncio.sleep(0.02)
                continue
        process.kill()
    finally:
        await reap(process)
    assert first == [1, 2, 3]
    await _noted(store, 4)
    again = await syncd("changes", "--json", "--bookmark", "mark", cwd=tmp_path, database_url=database)
    shown = [json.loads(line)["row_id"] for line in again.out.splitlines()]
    assert shown in ([4], [3, 4])  # killed between the line and its bookmark, it is told twice rather than never


async def test_a_cursor_that_is_none_is_one_sentence(tmp_path: Path, database: str) -> None:
    """Not a traceback, and not an empty answer."""
    said = await syncd("changes", "--since", "yesterday", cwd=tmp_path, database_url=database)
    assert said.code == 2
    assert "no cursor of this feed: 'yesterday'" in said.err
    assert "Traceback" not in said.both
