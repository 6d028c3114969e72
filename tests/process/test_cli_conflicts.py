"""``syncd conflicts`` from the outside: both sides changed a name, a person looks and decides."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from syncd.sandbox import Sandbox, World
from syncd.store import Store
from tests.support.commands import syncd


async def test_a_conflict_is_shown_and_decided(tmp_path: Path, database: str, store: Store) -> None:
    """The whole story as an operator lives it."""
    world = World.seeded(3, 0, 0, seed=7)
    number = next(iter(world.relations))
    for relation in world.relations.values():
        world.join(relation, next(iter(world.groups)))
    async with Sandbox(world) as box:
        settings = {
            "base_url": box.base_url,
            "autorespond_admin": box.admin,
            "autorespond_key": box.key,
            "database_url": database,
            "migrate_on_start": "false",
            "rate_per_s": "1000",
            "conflict_owners": "last_name=hold",
        }
        await syncd("pull", cwd=tmp_path, **settings)
        async with store.begin() as connection:
            edit = text("UPDATE crm.relations SET last_name = 'Ours' WHERE remote_id = :number")
            await connection.execute(edit, {"number": str(number)})
        world.change_relation(number, last_name="Theirs")
        await syncd("pull", "group_members", cwd=tmp_path, **settings)
        await syncd("drain", cwd=tmp_path, **settings)
        shown = await syncd("conflicts", "list", cwd=tmp_path, **settings)
        assert all(word in shown.out for word in ("last_name", "Ours", "Theirs", "waits for you")), shown.both
        status = await syncd("status", cwd=tmp_path, **settings)
        assert "1 conflicts wait for you: syncd conflicts list" in status.out
        (found,) = (await syncd("conflicts", "list", "--json", cwd=tmp_path, **settings)).json()["conflicts"]
        assert (found["status"], found["name"], found["owner"]) == ("open", "last_name", "hold")
        taken = await syncd(
            "conflicts", "resolve", "1", "--take", "Both", "--reason", "rang them", cwd=tmp_path, **settings
        )
        assert (taken.code, "it is sent like any edit" in taken.out) == (0, True), taken.both
        assert (await syncd("drain", cwd=tmp_path, **settings)).code == 0
        assert world.relations[number].last_name == "Both"
        assert "No conflict waits" in (await syncd("conflicts", "list", cwd=tmp_path, **settings)).out
        decided = await syncd("conflicts", "list", "--all", cwd=tmp_path, **settings)
        assert "Both, by" in decided.out
        unknown = await syncd("conflicts", "resolve", "77", "--take", "local", cwd=tmp_path, **settings)
        assert (unknown.code, "there is no conflict 77" in unknown.err) == (2, True)
