"""Explain what a pull brought: which answer, over which window, from what to what, and what protects the rest."""

from __future__ import annotations

from datetime import timedelta

from syncd.policy.facet_choice import Choice
from syncd.store import Store
from syncd.store.explain_find import find_relations
from syncd.store.explain_story import MirroredValue, Story, read_story
from tests.support.holds import staged_all
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


async def test_the_words_about_a_tag_follow_what_answers_showed(store: Store) -> None:
    """Shown, lacking, gone; never, until a delivery is seen; and removed here while the CRM still has it."""
    async with circle(store) as c:
        await c.pull("groups", "group_members", "tags")
        who, remote_id = await _first(c)
        relation = c.world.relations[remote_id]
        relation.tags.clear()
        (number, tag), (other_number, other) = (await c.rows("SELECT remote_id, id FROM crm.tags ORDER BY id"))[:2]
        c.world.tag(relation, int(number))
        shown = await c.pull("relation_tags")
        assert await _said(c, who, tag) == ("shown among the relation's tags", shown.run_id)
        assert await _said(c, who, other) == ("no answer that is known of has shown it", None)
        await c.edit(f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({who}, {other})")
        assert await _said(c, who, other) == ("no answer that is known of has shown it", None)
        await c.edit(f"DELETE FROM crm.relation_tags WHERE relation_id = {who} AND tag_id = {tag}")
        assert await _said(c, who, tag) == ("shown until it was removed here", shown.run_id)
        await c.edit("DELETE FROM syncd.captures")
        c.world.untag(relation, int(number))
        c.world.tag(relation, int(other_number))
        await c.pull("relation_tags")
        c.world.untag(relation, int(other_number))
        for _ in range(2):
            lacking = await c.pull("relation_tags")
            assert await _said(c, who, other) == ("not shown any more among the relation's tags", lacking.run_id)
            await c.advance(3601)
        assert await c.rows(f"SELECT 1 FROM crm.relation_tags WHERE relation_id = {who}") == []


async def test_a_delivery_that_a_pull_showed_is_told_by_that_pull(store: Store) -> None:
    """What was added or removed here and proven since: no answer has changed the row, yet one has spoken of it."""
    async with circle(store) as c:
        await c.pull("groups", "group_members", "tags", "relation_tags")
        who, _ = await _first(c)
        await c.edit("DELETE FROM crm.relation_tags", "DELETE FROM syncd.changes WHERE table_name = 'relation_tags'")
        tag = await c.value("SELECT id FROM crm.tags ORDER BY id LIMIT 1")
        run_id = c.reports[-1].run_id
        proven = "UPDATE syncd.entries SET status = 'verified', settled_at = now(), proved_at = now(), "
        for edit, words in (
            (f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({who}, {tag})", "shown among"),
            (f"DELETE FROM crm.relation_tags WHERE relation_id = {who}", "not shown any more among"),
        ):
            await c.edit(edit)
            await staged_all(c.store)
            await c.edit(f"{proven} proved_run_id = {run_id} WHERE status = 'pending'")
            assert await _said(c, who, tag) == (f"{words} the relation's tags", run_id)


async def _said(c: Circle, who: int, tag: int) -> tuple[str, int | None]:
    """What is said of a tag, its remark that no record is kept left out, and by which run."""
    (answer,) = (await _story(c, who, f"tag:{tag}")).answers
    assert (answer.received_at is None) == (answer.run is None)
    return answer.words.partition(" (")[0], answer.run.id if answer.run else None


async def test_a_relation_that_only_orders_name_has_no_record_but_a_window(store: Store) -> None:
    """Its address is known from another record; the pull and the window that brought that are told."""
    async with circle(store, relations=10, orders=30) as c:
        report = await c.pull("orders")
        who, _ = await _first(c)
        (answer,) = (await _story(c, who)).answers
        assert (answer.name, answer.record) == ("relation", None)
        assert "other records name this relation" in answer.words
        assert answer.run is not None
        assert (answer.run.id, answer.run.asked_from) == (report.run_id, report.asked_from)


async def test_a_record_is_no_word_of_a_pull_of_orders_beside_it(store: Store) -> None:
    """Pulls run beside each other; one of orders names a relation and never tells its record."""
    async with circle(store) as c:
        report = await c.pull("groups", "group_members")
        who, _ = await _first(c)
        await c.edit(
            "INSERT INTO syncd.runs (account_id, stream, trigger, status, started_at, finished_at) "
            "SELECT account_id, 'orders', 'schedule', 'succeeded', last_seen_at, now() FROM crm.relations "
            f"WHERE id = {who}"
        )
        answer = (await _story(c, who)).answers[0]
        assert answer.run is not None
        assert answer.run.id == report.run_id


async def test_a_relation_that_no_answer_showed_says_so(store: Store) -> None:
    """Made here and not delivered: nobody has heard of it."""
    async with circle(store) as c:
        await c.edit(f"INSERT INTO crm.relations (account_id, email) VALUES ({c.account.id}, 'nieuw@x.example')")
        who = await c.value("SELECT id FROM crm.relations")
        (answer,) = (await _story(c, who, "profile", column="last_name")).answers
        assert (answer.words, answer.run) == ("no answer has shown this relation yet", None)


async def test_what_a_record_leaves_out_is_said(store: Store) -> None:
    """A column that the CRM never tells is not the same as one that it tells to be empty."""
    async with circle(store) as c:
        await c.pull("groups", "group_members")
        who, _ = await _first(c)
        (answer,) = (await _story(c, who, "profile", column="customer")).answers
        assert (answer.words, answer.record) == ("its record says nothing of it", None)


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
