"""Captures that wait while a database is upgraded: what they say reaches the outbox as if captured afterwards."""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.changes import CreateRelation, decode_change, facet_of
from syncd.store import Store
from syncd.store.migrate import upgrade
from syncd.store.outbox import stage
from tests.support.outbox import rows
from tests.support.throwaway import older_database

MIRRORED = (
    "INSERT INTO crm.accounts (id, name, provider) VALUES (1, 'default', 'autorespond')",
    "INSERT INTO crm.relations (id, account_id, remote_id, email, first_name) VALUES "
    "(1, 1, '1', 'old1@example.nl', 'Ann'), (2, 1, '2', 'old2@example.nl', 'Ann')",
    "INSERT INTO crm.tags (id, account_id, remote_id, name) VALUES (1, 1, '11', 'VIP')",
    "INSERT INTO crm.groups (id, account_id, remote_id, title) VALUES (1, 1, '21', 'Customers')",
    "INSERT INTO crm.fields (id, account_id, remote_id, code, type) VALUES (1, 1, '41', '7_FF1', 'string')",
)
EDITS = (
    "UPDATE crm.relations SET first_name = 'Anna', suffix = 'van', gender = NULL WHERE id = {r}",
    "UPDATE crm.relations SET email = 'new@example.nl', last_name = 'Bakker' WHERE id = {r}",
    "UPDATE crm.relations SET email = 'old{r}@example.nl' WHERE id = {r}",
    "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({r}, 1)",
    "DELETE FROM crm.relation_tags WHERE relation_id = {r}",
    "INSERT INTO crm.group_members (group_id, relation_id) VALUES (1, {r})",
    "DELETE FROM crm.group_members WHERE relation_id = {r}",
    "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES ({r}, 1, 'L')",
    "UPDATE crm.relation_fields SET value = NULL WHERE relation_id = {r}",
)
_STAGED = """
SELECT e.seq, e.operation, e.facet, replace(CAST(e.payload AS text), 'old2@', 'old1@') AS payload, e.actor, e.reason,
       c.kind, replace(CAST(c.before AS text), 'old2@', 'old1@') AS before,
       replace(CAST(c.after AS text), 'old2@', 'old1@') AS after
FROM syncd.entries e LEFT JOIN syncd.changes c ON c.entry_id = e.id AND c.origin = 'edit'
WHERE e.relation_id = :relation_id ORDER BY e.seq"""
_WAITING = """
SELECT table_name, kind, replace(CAST(before AS text), 'old2@', 'old1@') AS before,
       replace(CAST(after AS text), 'old2@', 'old1@') AS after
FROM crm.history WHERE row_id = :relation_id ORDER BY changed_at, table_name"""


async def _edit(store: Store, relation_id: int) -> None:
    for statement in EDITS:
        async with store.begin() as connection:
            await connection.execute(text("SELECT crm.set_actor('jan', 'phone call')"))
            await connection.execute(text(statement.format(r=relation_id)))


async def test_captures_from_before_are_staged_as_those_from_after(server_url: str) -> None:
    """An upgrade finds edits that nobody has staged: of every kind, they must come out as the same edit does now."""
    async with older_database(server_url, "0003") as store:
        async with store.begin_remote() as connection:
            for statement in MIRRORED:
                await connection.execute(text(statement))
        await _edit(store, 1)
        waiting = await rows(store, "SELECT id, payload FROM syncd.captures")
        assert len(waiting) == 10
        assert all(row["payload"] for row in waiting)
        await upgrade(store)
        await _edit(store, 2)
        assert await rows(store, _WAITING, relation_id=1) == await rows(store, _WAITING, relation_id=2)
        async with store.begin() as connection:
            assert await stage(connection) == 20
        before, after = [await rows(store, _STAGED, relation_id=relation_id) for relation_id in (1, 2)]
    assert before == after
    assert [row["seq"] for row in before] == list(range(1, 11))
    for row in after:
        change = decode_change(row["operation"], row["payload"])
        assert not isinstance(change, CreateRelation)
        assert facet_of(change) == row["facet"]
