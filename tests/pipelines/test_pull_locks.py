"""What a pull locks while it writes, an application must not have to wait for (G8)."""

from __future__ import annotations

from sqlalchemy import text

from syncd.store import Store
from syncd.store.mirror import relations
from tests.support.pulling import circle


async def test_an_application_may_tag_a_relation_that_a_pull_is_writing(store: Store) -> None:
    """Its foreign-key check takes a key-share lock, which only the weaker row lock of an update lets through."""
    async with circle(store) as it:
        await it.pull("tags", "groups", "group_members")
        relation = await it.value("SELECT min(id) FROM crm.relations")
        async with store.begin_remote() as pulling:
            await pulling.execute(relations._LOCK, {"ids": [relation]})
            async with store.begin() as application:
                await application.execute(text("SET LOCAL lock_timeout = '1s'"))
                await application.execute(
                    text(
                        "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT :id, id FROM crm.tags t"
                        " WHERE NOT EXISTS (SELECT FROM crm.relation_tags WHERE relation_id = :id AND tag_id = t.id)"
                    ),
                    {"id": relation},
                )
