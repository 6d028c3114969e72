"""Absence: what an answer lacks is gone only when a second answer, apart in time, lacks it too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from syncd.sandbox import OrderLine
from syncd.sandbox.records import Event, Relation
from syncd.store import Store
from tests.support.pulling import NOON, Circle, circle

BREAD = (OrderLine("product", 7001, "Brood", 2),)


async def test_a_tag_is_missing_only_after_two_absences_apart_in_time(store: Store) -> None:
    """One bad hour of the CRM must not delete anything, however often it is asked in it."""
    async with circle(store) as it:
        await it.pull("tags")
        name = it.world.tags.pop(next(iter(it.world.tags))).name
        missing = "SELECT name FROM crm.tags WHERE missing_since IS NOT NULL"
        for _ in range(3):
            assert (await it.pull("tags")).is_success
        assert await it.rows(missing) == [], "three absences within the gap count once"
        await it.advance(3601)
        assert (await it.pull("tags")).missing == 1
        assert await it.rows(missing) == [(name,)]
        assert await it.value("SELECT count(*) FROM syncd.changes WHERE table_name = 'tags' AND kind = 'missing'") == 1


async def test_a_tag_that_shows_again_is_found(store: Store) -> None:
    """An absence that was taken back must not count towards a later one."""
    async with circle(store) as it:
        await it.pull("tags")
        number, tag = next(iter(it.world.tags.items()))
        del it.world.tags[number]
        await it.pull("tags")
        await it.advance(3601)
        it.world.tags[number] = tag
        await it.pull("tags")
        del it.world.tags[number]
        await it.pull("tags")
        assert await it.value("SELECT count(*) FROM crm.tags WHERE missing_since IS NOT NULL") == 0
        await it.advance(3601)
        await it.pull("tags")
        it.world.tags[number] = tag
        assert (await it.pull("tags")).updated == 1
        assert await it.value("SELECT count(*) FROM crm.tags WHERE missing_since IS NOT NULL") == 0
        kinds = "SELECT kind FROM syncd.changes WHERE table_name = 'tags' AND kind <> 'insert' ORDER BY id"
        assert await it.rows(kinds) == [("missing",), ("found",)]


async def test_a_link_is_marked_first_and_removed_second(store: Store) -> None:
    """Links are edited by applications: one that goes for good leaves its row of history behind."""
    async with circle(store) as it:
        await it.pull("tags", "groups", "group_members", "relation_tags")
        relation = next(relation for relation in it.world.relations.values() if relation.tags and relation.groups)
        tag, group = next(iter(relation.tags)), next(iter(relation.groups))
        it.world.untag(relation, tag)
        it.world.leave(relation, group)
        counts = "SELECT (SELECT count(*) FROM crm.relation_tags), (SELECT count(*) FROM crm.group_members)"
        before = (await it.rows(counts))[0]
        await it.pull("relation_tags", "group_members")
        assert await it.rows(counts) == [before]
        marked = "SELECT (SELECT count(*) FROM crm.relation_tags WHERE missing_since IS NOT NULL) + count(*)"
        assert await it.value(marked + " FROM crm.group_members WHERE missing_since IS NOT NULL") == 2
        await it.advance(3601)
        await it.pull("relation_tags", "group_members")
        assert await it.rows(counts) == [(before[0] - 1, before[1] - 1)]
        gone = "SELECT table_name FROM syncd.changes WHERE kind = 'delete' ORDER BY 1"
        assert await it.rows(gone) == [("group_members",), ("relation_tags",)]


async def test_a_group_that_lost_most_of_its_members_is_not_believed(store: Store) -> None:
    """Half a group gone at once is more likely half an answer."""
    async with circle(store, relations=60) as it:
        await it.pull("groups", "group_members")
        it.box.faults.add("dropped_rows", operation="group_members", share=0.5, times=0)
        report = await it.pull("group_members")
        assert report.status == "failed"
        assert "known rows" in (report.reason or "")
        assert await it.value("SELECT count(*) FROM crm.group_members WHERE missing_since IS NOT NULL") == 0


async def test_a_relation_the_crm_knows_no_more_is_missing_at_the_second_time(store: Store) -> None:
    """'Not found' may be a fault too; leaving all groups is no deletion at all."""
    async with circle(store) as it:
        await it.pull("orders")
        buyer = next(iter(it.world.orders.values())).relation_id
        it.world.relations.pop(buyer)
        missing = "SELECT remote_id::int FROM crm.relations WHERE missing_since IS NOT NULL"
        await it.pull("relation_details", "relation_details")
        assert await it.rows(missing) == []
        await it.advance(3601)
        await it.pull("relation_details")
        assert await it.rows(missing) == [(buyer,)]


async def test_a_relation_that_leaves_all_groups_is_not_deleted(store: Store) -> None:
    """Leaving a list is what people do every day; whoever took it for a deletion would lose their orders' owner."""
    async with circle(store) as it:
        await it.pull("groups", "group_members")
        known = await it.value("SELECT count(*) FROM crm.relations")
        leaver = next(relation for relation in it.world.relations.values() if relation.groups)
        for group in tuple(leaver.groups):
            it.world.leave(leaver, group)
        for _ in range(3):
            assert (await it.pull("group_members", "relation_details")).is_success
            await it.advance(3601)
        links = "SELECT count(*) FROM crm.group_members m JOIN crm.relations n ON n.id = m.relation_id"
        assert await it.value(f"{links} WHERE n.remote_id = '{leaver.id}'") == 0, "the links are gone"
        assert await it.value("SELECT count(*) FROM crm.relations WHERE missing_since IS NULL") == known
        it.world.change_relation(leaver.id, first_name="Renamed")
        await it.advance(3601)
        await it.pull("relation_details")
        named = f"SELECT first_name FROM crm.relations WHERE remote_id = '{leaver.id}'"
        assert await it.value(named) == "Renamed", "and is read on, by id"


async def test_a_record_that_cannot_be_read_is_not_absent(store: Store) -> None:
    """A tag whose name the CRM garbles for a day is still there; so is the link of whoever holds it."""
    async with circle(store) as it:
        await it.pull("tags", "groups", "group_members", "relation_tags")
        garbled = next(tag for relation in it.world.relations.values() for tag in relation.tags)
        it.world.tags[garbled] = msgspec.structs.replace(it.world.tags[garbled], name=None)
        for _ in range(3):
            await it.advance(3601)
            assert (await it.pull("tags", "relation_tags")).is_success
        for table in ("tags", "relation_tags"):
            assert await it.value(f"SELECT count(*) FROM crm.{table} WHERE missing_since IS NOT NULL") == 0
        assert await it.value("SELECT count(*) FROM syncd.changes WHERE kind IN ('missing', 'delete')") == 0


async def test_a_member_that_cannot_be_read_is_not_absent(store: Store) -> None:
    """One broken relation must not cost anybody his place in a group."""
    async with circle(store) as it:
        await it.pull("groups", "group_members")
        known = await it.value("SELECT count(*) FROM crm.group_members")
        number, member = next(pair for pair in it.world.relations.items() if pair[1].groups)
        it.world.relations[number] = msgspec.structs.replace(member, id=None)
        for _ in range(2):
            await it.advance(3601)
            assert (await it.pull("group_members")).is_success
        assert await it.value("SELECT count(*) FROM crm.group_members WHERE missing_since IS NULL") == known


async def test_a_crm_that_knows_nobody_any_more_is_not_believed(store: Store) -> None:
    """A call that has moved says "not found" of every relation, for days: nobody may go missing by it."""
    async with circle(store) as it:
        await it.pull("orders")
        it.box.faults.add("status", status=404, operation="relation_by_id", times=0)
        for _ in range(3):
            report = await it.pull("relation_details")
            assert (report.status, report.missing) == ("failed", 0)
            await it.advance(3601)
        assert "not believed" in (report.reason or "")
        assert await it.value("SELECT count(*) FROM crm.relations WHERE missing_since IS NOT NULL") == 0


async def test_relations_deleted_together_are_missing_when_another_is_still_known(store: Store) -> None:
    """Once out of their groups, the deleted are all that is asked for: then one that a group shows must testify."""
    async with circle(store) as it:
        await it.pull("groups", "group_members")
        deleted = [number for number, relation in it.world.relations.items() if relation.groups][:2]
        rest = await it.value("SELECT count(*) FROM crm.relations") - len(deleted)
        for number in deleted:
            it.world.delete_relation(number)
        for _ in range(4):
            await it.pull("group_members", "relation_details")
            await it.advance(3601)
        assert await it.value("SELECT count(*) FROM crm.relations WHERE missing_since IS NULL") == rest


async def test_subscriptions_that_are_not_shown_any_more_are_the_truth_at_the_second_time(store: Store) -> None:
    """Events are not taken back: an empty answer about one who had some is first of all a call that has failed."""
    async with circle(store, relations=3) as it:
        await it.pull("lists", "groups", "group_members")
        one, other = list(it.world.relations.values())[:2]
        one.events[:] = [Event(401, "U", NOON - timedelta(days=2)), Event(402, "S", NOON - timedelta(days=2))]
        other.events[:] = [Event(401, "S", NOON - timedelta(days=2))]
        known = await _standing(it, one)
        assert known == ([(401, "unsubscribed", False), (402, "subscribed", False)], True, False)
        one.events.clear()
        gone = [(401, "unsubscribed", True), (402, "subscribed", True)]
        assert await _standing(it, one) == (known[0], False, True), "nobody is to miss an opt-out for one bad answer"
        assert await _standing(it, one) == (known[0], False, True), "twice within the gap counts once"
        await it.advance(3601)
        assert await _standing(it, one) == (gone, True, False), "and what was known of a consent is kept"
        one.events[:] = [Event(401, "U", NOON - timedelta(days=2)), Event(402, "S", NOON - timedelta(days=2))]
        assert await _standing(it, one) == known
        kinds = f"""
            SELECT c.kind, count(*) FROM syncd.changes c JOIN crm.relations n ON n.id = c.row_id
            WHERE c.table_name = 'list_subscriptions' AND n.remote_id = '{one.id}' GROUP BY 1 ORDER BY 1"""
        assert await it.rows(kinds) == [("found", 2), ("insert", 2), ("missing", 2)]


async def test_a_subscription_that_shows_by_an_older_event_is_not_absent(store: Store) -> None:
    """It says less than is known, and it says that the list is there."""
    async with circle(store, relations=3) as it:
        await it.pull("lists", "groups", "group_members")
        one = next(iter(it.world.relations.values()))
        old, new = Event(401, "S", NOON - timedelta(days=3)), Event(401, "U", NOON - timedelta(days=2))
        one.events[:] = [old, new]
        await _standing(it, one)
        one.events.clear()
        for _ in range(2):
            await _standing(it, one)
            await it.advance(3601)
        assert (await _standing(it, one))[0] == [(401, "unsubscribed", True)]
        one.events[:] = [old]
        assert (await _standing(it, one))[0] == [(401, "unsubscribed", False)]
        assert await it.value("SELECT count(*) FROM syncd.absent_standings") == 0


async def test_one_subscription_that_is_not_shown_waits_for_itself(store: Store) -> None:
    """An absence of one list must not count for the next list that an answer lacks."""
    async with circle(store, relations=3) as it:
        await it.pull("lists", "groups", "group_members")
        one = next(iter(it.world.relations.values()))
        whole = [Event(number, "S", NOON - timedelta(days=2)) for number in (401, 402)]
        for lacking, is_proven in ((None, True), (401, False), (402, False), (402, True)):
            one.events[:] = [event for event in whole if event.list_id != lacking]
            assert (await _standing(it, one))[1] is is_proven
            await it.advance(3601)


async def test_a_subscription_that_cannot_be_read_is_not_absent(store: Store) -> None:
    """A record of an unknown shape may be any of those that seem to be lacking."""
    async with circle(store, relations=3) as it:
        await it.pull("lists", "groups", "group_members")
        one = next(iter(it.world.relations.values()))
        one.events[:] = [Event(number, "S", NOON - timedelta(days=2)) for number in (401, 402, 403)]
        before = await _standing(it, one)
        it.box.faults.add("retyped_key", operation="relation_subscriptions", key="campaignId", every=3, times=0)
        for _ in range(2):
            assert (await _standing(it, one))[0] == before[0]
            await it.advance(3601)


async def test_an_order_that_was_deleted_is_asked_for_no_more_after_the_second_absence(store: Store) -> None:
    """An unpaid one would else be swept for a year, and every report would count on the money."""
    async with circle(store, orders=0) as it:
        buyer, other = list(it.world.relations)[:2]
        deleted, _ = it.world.add_order(buyer, BREAD, is_paid=False), it.world.add_order(other, BREAD, is_paid=False)
        await it.pull("orders", "relation_orders")
        it.world.delete_order(deleted.id)
        missing = "SELECT remote_id::int FROM crm.orders WHERE missing_since IS NOT NULL"
        for _ in range(2):
            assert "not shown any more" in (await it.pull("relation_orders")).warnings[0]
            assert await it.rows(missing) == [], "two absences within the gap count once"
        await it.advance(3601)
        assert (await it.pull("relation_orders")).missing == 1
        assert await it.rows(missing) == [(deleted.id,)]
        before = it.requested("relation_orders")
        await it.pull("relation_orders")
        assert it.requested("relation_orders") == before + 1, "only the other relation's"
        history = "SELECT kind, count(*) FROM syncd.changes WHERE table_name = 'orders' AND kind <> 'insert' GROUP BY 1"
        assert await it.rows(history) == [("missing", 1)]


async def test_an_order_that_a_window_shows_is_not_absent(store: Store) -> None:
    """An absence that was taken back must not count towards a later one."""
    async with circle(store, orders=0) as it:
        buyer, other = list(it.world.relations)[:2]
        order, _ = it.world.add_order(buyer, BREAD, is_paid=False), it.world.add_order(other, BREAD, is_paid=False)
        await it.pull("orders")
        for _ in range(3):
            it.world.delete_order(order.id)
            assert "not shown any more" in (await it.pull("relation_orders")).warnings[0]
            it.world.place_order(order)
            assert (await it.pull("orders")).is_success
            await it.advance(3601)
        assert await it.value("SELECT count(*) FROM crm.orders WHERE missing_since IS NULL") == 2


async def test_an_order_that_cannot_be_read_is_not_absent(store: Store) -> None:
    """A record without its number may be any of those that seem to be lacking."""
    async with circle(store, orders=0) as it:
        buyer = next(iter(it.world.relations))
        for _ in range(3):
            it.world.add_order(buyer, BREAD, is_paid=False)
        await it.pull("orders")
        it.box.faults.add("dropped_key", operation="relation_orders", key="orderId", every=3, times=0)
        for _ in range(3):
            await it.pull("relation_orders")
            await it.advance(3601)
        assert await it.value("SELECT count(*) FROM crm.orders WHERE missing_since IS NULL") == 3


async def _standing(it: Circle, relation: Relation) -> tuple[list[tuple[Any, ...]], bool, bool]:
    """Pull all subscriptions; return how a relation stands on its lists (list, status, whether it is missing), whether
    this pull has proven that, and whether it said that some are not shown."""
    who = f"(SELECT id FROM crm.relations WHERE remote_id = '{relation.id}')"
    proof = f"stream = 'relation_subscriptions' AND row_id = {who}"
    await it.edit(f"UPDATE syncd.readings SET proven_at = NULL WHERE {proof}")
    report = await it.pull("relation_subscriptions")
    assert report.is_success
    rows = await it.rows(f"""
        SELECT CAST(l.remote_id AS int), s.status, s.missing_since IS NOT NULL
        FROM crm.list_subscriptions s JOIN crm.lists l ON l.id = s.list_id WHERE s.relation_id = {who} ORDER BY 1""")
    is_proven = await it.value(f"SELECT proven_at IS NOT NULL FROM syncd.readings WHERE {proof}")
    return rows, is_proven, any("not shown any more" in warning for warning in report.warnings)
