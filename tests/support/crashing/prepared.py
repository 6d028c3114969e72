"""The database before the first drainer: the mirror of the world, a delivery of yesterday, and the first edits."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg

from syncd.sandbox import World
from syncd.store import Store
from tests.support.crashing import story
from tests.support.crashing.story import FIRST
from tests.support.outbox import mirror, new_account

# In a lane that goes on today: it was accepted, and is due to be read back.
_YESTERDAY = (
    f"INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, acked_seq) VALUES (1, {story.WILLEM}, 1, 1)",
    f"""
    INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status, attempts, xact,
                               captured_at, settled_at, prove_until, prove_at)
    SELECT l.id, 1, 1, l.relation_id, 'add_tag', 'tag:' || t.id,
           jsonb_build_object('tag_id', t.id, 'tag_remote_id', t.remote_id, 'tag_name', t.name), 'accepted', 1,
           pg_current_xact_id(), now() - interval '2 days', now() - interval '1 day', now() + interval '1 day', now()
    FROM syncd.lanes l, crm.tags t WHERE t.id = {story.YESTERDAYS_TAG}
    """,
    f"""
    INSERT INTO syncd.changes (account_id, table_name, row_id, link_id, kind, origin, entry_id)
    SELECT 1, 'relation_tags', relation_id, {story.YESTERDAYS_TAG}, 'insert', 'local', id FROM syncd.entries
    """,
)


async def prepare(url: str) -> None:
    """Fill a migrated database; the edits are committed one by one, as an application would."""
    store = Store.open(url, pool_size=1)
    try:
        world = story.new_world()
        account = await new_account(store)
        assert account.id == 1
        await mirror(store, account, world)
        async with store.begin_remote() as connection:
            await connection.exec_driver_sql("ALTER TABLE crm.relations ALTER id RESTART 900001")
            for statement in (*_links(world), *_YESTERDAY):
                await connection.exec_driver_sql(statement)
    finally:
        await store.close()
    connection = await asyncpg.connect(url)
    try:
        for edit in FIRST:
            await connection.execute(edit.sql)
    finally:
        await connection.close()


def _links(world: World) -> Iterator[str]:
    """What hangs on the mirrored relations, as a pull would have written it."""
    for number, relation in world.relations.items():
        for tag in relation.tags:
            yield f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({number}, {tag})"
        for group in relation.groups:
            yield f"INSERT INTO crm.group_members (group_id, relation_id) VALUES ({group}, {number})"
    for order in world.orders.values():
        values = f"({order.id}, 1, '{order.id}', {order.relation_id})"
        yield f"INSERT INTO crm.orders (id, account_id, remote_id, relation_id) VALUES {values}"
        for place, line in enumerate(order.lines):
            subscription = "NULL" if line.subscription_id is None else f"'{line.subscription_id}'"
            values = f"({order.id}, {place + 1}, {subscription})"
            yield f"INSERT INTO crm.order_lines (order_id, position, subscription_id) VALUES {values}"
