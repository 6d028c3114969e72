"""What a person has given up is taken back without a second question, and the guard of pulls still asks the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from syncd.policy.guard import Guard
from syncd.policy.rewrite import RewriteRule
from syncd.policy.states import HoldStatus, RunHoldStatus
from syncd.store import Store, run_holds
from syncd.store.history_prune import prune_history
from syncd.store.outbox import set_guard, skip_entries
from tests.support.holds import decided, holds, staged_all
from tests.support.pulling import POLICY, Circle, circle

STRICT = replace(POLICY, rewrite=RewriteRule(rows=5, share=0.25), sweep_batch=2)
ASKED = "SELECT stream, rewritten, missing FROM syncd.run_holds ORDER BY id"
RENAME = "UPDATE crm.relations SET last_name = 'Everybody', email = 'x' || email WHERE remote_id IS NOT NULL"
LINKS = "SELECT relation_id, tag_id FROM crm.relation_tags ORDER BY 1, 2"
TAGGING = "INSERT INTO crm.relation_tags (tag_id, relation_id) SELECT {}, id FROM crm.relations"
NAMES = "SELECT remote_id, email, last_name FROM crm.relations ORDER BY id"


async def _rejected(it: Circle, *statements: str) -> int:
    """Edit, let the guard hold it, and reject it; return how many entries were given up."""
    async with it.store.begin() as connection:
        await set_guard(connection, it.account.id, Guard(relations=3, share=0, window_s=60))
    await it.edit(*statements)
    await staged_all(it.store)
    return await decided(it.store, (await holds(it.store))[-1]["id"], HoldStatus.REJECTED)


async def _everybody(it: Circle) -> list[tuple[object, ...]]:
    await it.pull("groups", "tags", "group_members", "relation_tags")
    known = await it.rows(NAMES)
    assert len(known) > 20
    return known


async def _buyers(it: Circle) -> list[tuple[object, ...]]:
    """Those whom orders named, in no group: each is asked for once in a sweep."""
    await it.pull("orders", "relation_details")
    known = await it.rows(NAMES)
    assert len(known) > 20
    return known


def _rename(it: Circle, remote_ids: Sequence[str], name: str = "News") -> None:
    """Let the CRM change these last names by itself."""
    for number in map(int, remote_ids):
        it.world.relations[number] = msgspec.structs.replace(it.world.relations[number], last_name=name)


async def _said_by_the_crm_itself(it: Circle, known: Sequence[tuple[object, ...]]) -> None:
    """Reject a name for all, take it back, and let the CRM rename all to it by itself, approved."""
    await _rejected(it, "UPDATE crm.relations SET last_name = 'Everybody'")
    assert (await it.pull("relation_details")).status == "succeeded"
    _rename(it, [str(remote_id) for remote_id, _, _ in known], "Everybody")
    assert (await it.pull("relation_details")).status == "held"
    async with it.store.begin() as connection:
        (hold,) = await run_holds.list_run_holds(connection)
        await run_holds.decide(connection, hold.id, RunHoldStatus.APPROVED, "jan", None, for_s=3600)
    assert (await it.pull("relation_details")).status == "succeeded"


async def test_a_rejected_update_of_all_is_taken_back_unasked(store: Store) -> None:
    """Whoever rejected it has decided; a second question would leave half of the mirror wrong until it is answered."""
    async with circle(store, relations=40, policy=STRICT) as it:
        known = await _everybody(it)
        assert await _rejected(it, RENAME) == 2 * len(known)
        assert await it.rows(NAMES) != known
        back = await it.pull("group_members")
        assert (back.status, back.updated) == ("succeeded", len(known))
        assert await it.rows(NAMES) == known
        assert await it.rows(ASKED) == []


async def test_skipped_entries_are_taken_back_unasked_too(store: Store) -> None:
    """To skip them one by one is the same word."""
    async with circle(store, relations=40, policy=STRICT) as it:
        known = await _everybody(it)
        await it.edit(RENAME)
        await staged_all(it.store)
        async with store.begin() as connection:
            ids = [row.id for row in await connection.exec_driver_sql("SELECT id FROM syncd.entries")]
            await skip_entries(connection, ids, actor="jan")
        assert (await it.pull("group_members")).status == "succeeded"
        assert await it.rows(NAMES) == known


async def test_what_the_crm_changes_beside_them_is_asked_about_and_counted_alone(store: Store) -> None:
    """A rejection is no leave to rewrite others; and the question is about those alone."""
    async with circle(store, relations=40, orders=120, policy=STRICT) as it:
        known = await _buyers(it)
        half = len(known) // 2
        theirs = [str(remote_id) for remote_id, _, _ in known[half:]]
        assert await _rejected(it, f"{RENAME} AND NOT remote_id IN ({', '.join(map(repr, theirs))})") == 2 * half
        _rename(it, theirs)
        held = await it.pull("relation_details")
        assert held.status == "held"
        assert await it.rows(ASKED) == [("relation_details", len(theirs), 0)]
        assert f"would change {len(theirs)} and mark missing 0 of" in (held.reason or "")


async def test_a_third_value_is_no_taking_back(store: Store) -> None:
    """The person gave up the application's value for the one that stood before it, for no other."""
    async with circle(store, relations=40, orders=120, policy=STRICT) as it:
        known = await _buyers(it)
        await _rejected(it, RENAME)
        _rename(it, [str(remote_id) for remote_id, _, _ in known])
        assert (await it.pull("relation_details")).status == "held"
        assert await it.rows(ASKED) == [("relation_details", len(known), 0)]


async def test_a_rejection_excuses_no_later_pull(store: Store) -> None:
    """What the CRM itself brought since, and takes away again, is the CRM's rewriting, whatever its values."""
    async with circle(store, relations=40, orders=120, policy=STRICT) as it:
        known = await _buyers(it)
        await _said_by_the_crm_itself(it, known)
        for remote_id, _, name in known:
            _rename(it, [str(remote_id)], str(name))
        assert (await it.pull("relation_details")).status == "held"


async def test_where_the_history_is_pruned_nothing_is_excused(store: Store) -> None:
    """What the CRM said since the rejection is forgotten: nobody can tell any more that this only takes it back."""
    async with circle(store, relations=40, orders=120, policy=STRICT) as it:
        known = await _buyers(it)
        await _said_by_the_crm_itself(it, known)
        async with store.begin() as connection:
            assert (await prune_history(connection, it.account.id, keep_days=0, most=10_000)).changes > len(known)
        for remote_id, _, name in known:
            _rename(it, [str(remote_id)], str(name))
        assert (await it.pull("relation_details")).status == "held"


async def test_what_was_delivered_after_a_rejection_is_not_taken_back(store: Store) -> None:
    """The same value, edited again and sent: if the CRM goes back on it, that is its doing."""
    async with circle(store, relations=40, orders=120, policy=STRICT) as it:
        await _buyers(it)
        await _rejected(it, "UPDATE crm.relations SET last_name = 'Everybody'")
        for name in ("Other", "Everybody"):
            await it.edit(f"UPDATE crm.relations SET last_name = '{name}'")
        await staged_all(it.store)
        await it.edit("UPDATE syncd.entries SET status = 'accepted', settled_at = now() WHERE status <> 'skipped'")
        assert (await it.pull("relation_details")).status == "held"


async def test_rejected_tags_go_unasked(store: Store) -> None:
    """Marked at the first answer without them, gone at the second; neither is a loss that the CRM told of."""
    async with circle(store, relations=40, policy=STRICT) as it:
        known = await _everybody(it)
        tag = await it.value("SELECT id FROM crm.tags ORDER BY id LIMIT 1")
        links = await it.rows(LINKS)
        added = await _rejected(it, f"{TAGGING.format(tag)} ON CONFLICT DO NOTHING")
        assert added > len(known) // 2
        for _ in range(2):
            assert (await it.pull("relation_tags")).status == "succeeded"
            await it.advance(3601)
        assert await it.rows(LINKS) == links
        assert await it.rows(ASKED) == []


async def test_rejected_tags_are_no_sign_that_an_answer_is_emptied(store: Store) -> None:
    """Where nobody has a tag in the CRM, nobody who must have one can testify: no one ever had."""
    async with circle(store, relations=40, policy=STRICT) as it:
        for relation in it.world.relations.values():
            relation.tags.clear()
        await _everybody(it)
        tag = await it.value("SELECT id FROM crm.tags ORDER BY id LIMIT 1")
        await _rejected(it, TAGGING.format(tag))
        assert (await it.pull("relation_tags")).status == "succeeded"
        assert await it.rows(ASKED) == []


async def test_rejected_members_go_unasked_and_true_ones_do_not(store: Store) -> None:
    """The answer never held the rejected ones, so it lacks none; those that it did hold still testify."""
    async with circle(store, relations=60, policy=STRICT) as it:
        await _everybody(it)
        group = await it.value("SELECT id FROM crm.groups ORDER BY id LIMIT 1")
        members = await it.rows(f"SELECT relation_id FROM crm.group_members WHERE group_id = {group} ORDER BY 1")
        joined = await _rejected(
            it,
            f"INSERT INTO crm.group_members (group_id, relation_id) SELECT {group}, id FROM crm.relations "
            "WHERE remote_id IS NOT NULL ON CONFLICT DO NOTHING",
        )
        assert joined > 5
        for _ in range(2):
            assert (await it.pull("group_members")).status == "succeeded"
            await it.advance(3601)
        there = f"SELECT relation_id FROM crm.group_members WHERE group_id = {group} ORDER BY 1"
        assert await it.rows(there) == members
        assert await it.rows(ASKED) == []


async def test_true_members_that_vanish_beside_rejected_ones_are_asked_about(store: Store) -> None:
    """The question names what the CRM lacks of its own, not what it never had."""
    async with circle(store, relations=60, policy=STRICT) as it:
        await _everybody(it)
        remote_id, group = (await it.rows("SELECT remote_id, id FROM crm.groups ORDER BY id LIMIT 1"))[0]
        await _rejected(
            it,
            f"INSERT INTO crm.group_members (group_id, relation_id) SELECT {group}, id FROM crm.relations "
            "WHERE remote_id IS NOT NULL ON CONFLICT DO NOTHING",
        )
        members = [relation for relation in it.world.relations.values() if int(remote_id) in relation.groups]
        for relation in members[:-1]:
            it.world.leave(relation, int(remote_id))
        assert (await it.pull("group_members")).status == "failed"
        assert await it.rows(ASKED) == [("group_members", 0, len(members) - 1)]
        assert await it.value("SELECT known FROM syncd.run_holds") == len(members)


async def test_a_rejected_tag_that_the_crm_showed_since_is_the_crms(store: Store) -> None:
    """Once an answer has held it, its absence is news from there."""
    async with circle(store, relations=40, policy=replace(STRICT, touch_every_s=-1e9)) as it:
        await _everybody(it)
        number, tag = (await it.rows("SELECT remote_id, id FROM crm.tags ORDER BY id LIMIT 1"))[0]
        await _rejected(it, f"{TAGGING.format(tag)} ON CONFLICT DO NOTHING")
        holders = [relation for relation in it.world.relations.values() if int(number) not in relation.tags]
        for relation in holders:
            it.world.tag(relation, int(number))
        assert (await it.pull("relation_tags")).status == "succeeded"
        for relation in holders:
            it.world.untag(relation, int(number))
        assert (await it.pull("relation_tags")).status == "held"


async def test_a_true_tag_removed_and_put_back_by_a_given_up_edit_is_the_crms(store: Store) -> None:
    """The removal never went out, its place taken by the edit that put the tag back: the CRM had the tag all along."""
    async with circle(store, relations=40, policy=STRICT) as it:
        await it.pull("groups", "tags", "group_members")
        number, tag = (await it.rows("SELECT remote_id, id FROM crm.tags ORDER BY id LIMIT 1"))[0]
        for relation in it.world.relations.values():
            it.world.tag(relation, int(number))
        await it.pull("relation_tags")
        links = await it.rows(LINKS)
        await it.edit(f"DELETE FROM crm.relation_tags WHERE tag_id = {tag}")
        await it.edit(f"{TAGGING.format(tag)} WHERE remote_id IS NOT NULL")
        await staged_all(it.store)
        assert await it.rows(LINKS) == links
        ended = "CASE operation WHEN 'add_tag' THEN 'skipped' ELSE 'superseded' END"
        await it.edit(f"UPDATE syncd.entries SET status = {ended}, settled_at = now()")
        for relation in it.world.relations.values():
            it.world.untag(relation, int(number))
        assert (await it.pull("relation_tags")).status == "held"
