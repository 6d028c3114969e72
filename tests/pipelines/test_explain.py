"""Explain what a pull brought: which answer, over which window, from what to what, and what protects the rest."""

from __future__ import annotations

from datetime import timedelta

from syncd.policy.facet_choice import Choice
from syncd.store import Store
from syncd.store.explain_find import find_relations
from syncd.store.explain_story import MirroredValue, Story, read_story
from tests.support.pulling import Circle, circle


async def _story(c: Circle, relation_id: int, *facets: str, column: str | None = None) -> Story:
    chosen = Choice(facets, column) if facets or column else None
    async with c.store.begin() as connection:
        (relation,) = await find_relations(connection, f"id:{relation_id}", None)
        return await read_story(connection, relation, chosen, most=100)


async def _first(c: Circle) -> tuple[int, int]:
    found = await c.rows("SELECT id, remote_id FROM crm.relations WHERE remote_id IS NOT NULL ORDER BY id LIMIT 1")
    return int(found[0][0]), int(found[0][1])


def _value(story: Story, name: str) -> MirroredValue:
    return next(value for value in story.values if value.name == name)


async def test_a_mirrored_column_names_the_pull_that_brought_it(store: Store) -> None:
    """Stream, run, the values before and after, and who saw it last."""
    async with circle(store) as c:
        await c.pull("groups", "group_members")
        who, remote_id = await _first(c)
        before = c.world.relations[remote_id].last_name
        first = _value(await _story(c, who), "last_name")
        assert first.origin == "remote"
        assert first.run is not None
        assert (first.run.stream, first.run.id) == ("group_members", c.reports[-1].run_id)
        c.world.change_relation(remote_id, last_name="Getrouwd")
        await c.advance(7200)
        report = await c.pull("group_members")
        story = await _story(c, who, "profile", "identity", column="last_name")
        value = _value(story, "last_name")
        assert (value.value, value.before) == ("Getrouwd", before)
        assert value.run is not None
        assert value.run.id == report.run_id
        assert value.seen_by == value.run
        assert [line.kind for line in story.history] == ["insert", "update"]


async def test_a_window_stream_tells_its_window(store: Store) -> None:
    """From when to when was asked: whether an answer could have shown it at all."""
    async with circle(store, relations=10, orders=30) as c:
        report = await c.pull("orders")
        who, _ = await _first(c)
        run = _value(await _story(c, who), "email").run
        assert run is not None
        assert run.stream == "orders"
        assert run.asked_from == report.asked_from
        assert run.asked_upto == report.asked_upto
        assert run.asked_upto is not None
        assert run.asked_upto - (run.asked_from or run.asked_upto) > timedelta(days=1)


async def test_a_tag_tells_when_it_came_and_that_it_is_protected(store: Store) -> None:
    """A tag the CRM showed, removed here: the pull that shows it still does not bring it back, and this says why."""
    async with circle(store) as c:
        await c.pull("groups", "group_members", "tags", "relation_tags")
        found = await c.rows("SELECT relation_id, tag_id FROM crm.relation_tags ORDER BY 1, 2 LIMIT 1")
        who, tag = found[0]
        (value,) = (await _story(c, who, f"tag:{tag}")).values
        assert value.run is not None
        assert value.run.stream == "relation_tags"
        assert value.read_at is not None
        assert value.protected_by == ()
        await c.edit(f"DELETE FROM crm.relation_tags WHERE relation_id = {who} AND tag_id = {tag}")
        await c.edit(f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({who}, {tag})")
        again = (await _story(c, who, f"tag:{tag}")).values[0]
        assert len(again.protected_by) == 2


async def test_a_conflict_stands_in_the_story_with_its_pull(store: Store) -> None:
    """Both sides moved: the three values, the pull that noticed, and that ours is kept."""
    async with circle(store) as c:
        await c.pull("groups", "group_members")
        who, remote_id = await _first(c)
        await c.edit(f"UPDATE crm.relations SET last_name = 'Hier' WHERE id = {who}")
        c.world.change_relation(remote_id, last_name="Daar")
        await c.advance(7200)
        report = await c.pull("group_members")
        story = await _story(c, who, "profile", "identity", column="last_name")
        (conflict,) = story.conflicts
        assert (conflict.local, conflict.remote, conflict.run_id) == ("Hier", "Daar", report.run_id)
        value = _value(story, "last_name")
        assert value.value == "Hier"
        assert value.protected_by
        assert report.run_id in {run.id for run in story.runs}
