"""An answer that was asked for before a delivery was acknowledged never overwrites what was delivered.

For every kind of facet: the CRM computes an answer and is slow to send it; meanwhile an application edits and the edit
is delivered; then the old answer arrives. It was true when it was made, and the delivery came after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from syncd.sandbox import World
from syncd.store import Store
from tests.support.both_sides import BothSides, both_sides
from tests.support.pulling import NOON

WHO = "SELECT id FROM crm.relations WHERE remote_id IS NOT NULL ORDER BY id LIMIT 1"


@dataclass(frozen=True, slots=True)
class Case:
    """A stream and the operation by which it asks; an edit; what the mirror must hold after it, then and later."""

    stream: str
    operation: str
    edit: str
    value: str
    expected: object


CASES = {
    "profile": Case(
        "group_members",
        "group_members",
        f"UPDATE crm.relations SET last_name = 'Delivered' WHERE id = ({WHO})",
        f"SELECT last_name FROM crm.relations WHERE id = ({WHO})",
        "Delivered",
    ),
    "identity": Case(
        "group_members",
        "group_members",
        f"UPDATE crm.relations SET email = 'delivered@stale.example' WHERE id = ({WHO})",
        f"SELECT email FROM crm.relations WHERE id = ({WHO})",
        "delivered@stale.example",
    ),
    "tag added": Case(
        "relation_tags",
        "relation_tags",
        f"INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT ({WHO}), max(id) FROM crm.tags",
        "SELECT count(*) FROM crm.relation_tags WHERE tag_id = (SELECT max(id) FROM crm.tags)"
        f" AND missing_since IS NULL AND relation_id = ({WHO})",
        1,
    ),
    "tag removed": Case(
        "relation_tags",
        "relation_tags",
        f"DELETE FROM crm.relation_tags WHERE relation_id = ({WHO})",
        f"SELECT count(*) FROM crm.relation_tags WHERE relation_id = ({WHO})",
        0,
    ),
    "group left": Case(
        "group_members",
        "group_members",
        f"DELETE FROM crm.group_members WHERE relation_id = ({WHO})",
        f"SELECT count(*) FROM crm.group_members WHERE relation_id = ({WHO})",
        0,
    ),
    "field": Case(
        "fields",
        "fields",
        f"INSERT INTO crm.relation_fields (relation_id, field_id, value) SELECT ({WHO}), min(id), 'Delivered'"
        " FROM crm.fields WHERE is_writable AND type = 'string'",
        f"SELECT value FROM crm.relation_fields WHERE relation_id = ({WHO})",
        "Delivered",
    ),
    "subscription": Case(
        "relation_subscriptions",
        "relation_subscriptions",
        "SELECT crm.subscribe((SELECT min(email) FROM crm.relations), (SELECT min(name) FROM crm.lists))",
        "SELECT status FROM crm.list_subscriptions l JOIN crm.lists m ON m.id = l.list_id"
        f" WHERE relation_id = ({WHO}) AND name = (SELECT min(name) FROM crm.lists)",
        "subscribed",
    ),
}


@asynccontextmanager
async def somebody(store: Store) -> AsyncIterator[BothSides]:
    """One relation with a tag, in one group, unsubscribed from every list; mirrored."""
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    (relation,) = world.relations.values()
    for group in list(relation.groups):
        world.leave(relation, group)
    world.join(relation, next(iter(world.groups)))
    for tag in list(relation.tags):
        world.untag(relation, tag)
    world.tag(relation, next(iter(world.tags)))
    for number in world.lists:
        world.unsubscribe(relation, number, "from the start")
    world.join(relation, next(iter(world.groups)))
    async with both_sides(store, world) as both:
        await both.pull()
        await both.advance(60)
        yield both


@pytest.mark.parametrize("name", CASES)
async def test_a_slow_answer_does_not_undo_what_was_delivered_meanwhile(store: Store, name: str) -> None:
    """To believe it would be to show the old value again, and to an application that acts on it, as news."""
    case = CASES[name]
    async with somebody(store) as both, asyncio.timeout(60):
        both.box.faults.add("hold_answer", operation=case.operation)
        slow = asyncio.create_task(both.pull(case.stream))
        await both.box.until_held()
        await both.edit(case.edit)
        report = await both.drain()
        assert report.delivered == 1
        if name == "subscription":  # a call edits nothing here: what must not be undone is a newer answer
            await both.advance(1)
            await both.pull(case.stream)
        assert await both.value(case.value) == case.expected
        both.box.release()
        assert (await slow).status == "succeeded"
        assert await both.value(case.value) == case.expected
        assert await both.value("SELECT count(*) FROM syncd.conflicts") == 0, "an older answer is no disagreement"
        await both.pull(case.stream)
        assert await both.value(case.value) == case.expected, "and the next answer shows the delivered value"
