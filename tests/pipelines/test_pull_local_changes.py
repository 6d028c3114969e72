"""A pull and an application at one mirror: what is not delivered yet stays, whatever the CRM says meanwhile (G5)."""

from __future__ import annotations

from syncd.store import Store
from tests.support.pulling import Circle, circle

ALL = ("tags", "groups", "lists", "group_members", "orders", "relation_details")
UNDELIVERED = "SELECT count(*) FROM syncd.captures"
PAYLOAD = "syncd.payload_of(operation, facet, payload, before, after)"


async def someone(it: Circle) -> tuple[int, int]:
    """Return our id and the CRM's of a relation that stands in a group."""
    rows = await it.rows(
        "SELECT r.id, r.remote_id::int FROM crm.relations r JOIN crm.group_members m ON m.relation_id = r.id ORDER BY 1"
    )
    return rows[0][0], rows[0][1]


async def stage(it: Circle, status: str, *, settled: str = "NULL") -> None:
    """Move what is captured into entries of that status, as the outbox does."""
    await it.edit(
        "INSERT INTO syncd.lanes (account_id, relation_id, tail_seq) SELECT DISTINCT account_id, relation_id, 9"
        " FROM syncd.captures",
        "INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, xact,"
        " captured_at, status, settled_at) SELECT l.id, row_number() OVER (ORDER BY c.id), c.account_id, c.relation_id,"
        f" operation, facet, {PAYLOAD}, xact, captured_at, '{status}', {settled}"
        " FROM syncd.captures c JOIN syncd.lanes l ON l.relation_id = c.relation_id",
        "DELETE FROM syncd.captures",
    )


async def test_a_captured_change_stays_and_everything_else_of_the_row_moves(store: Store) -> None:
    """Protection is per column: a pending first name must not keep a new last name out."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, theirs = await someone(it)
        await it.edit(f"UPDATE crm.relations SET first_name = 'Ours' WHERE id = {ours}")
        it.world.change_relation(theirs, last_name="Moved")
        report = await it.pull("group_members")
        assert report.updated == 1
        row = f"SELECT first_name, last_name FROM crm.relations WHERE id = {ours}"
        assert await it.rows(row) == [("Ours", "Moved")]
        await it.edit("DELETE FROM syncd.captures")
        await it.pull("group_members")
        assert await it.rows(row) == [(it.world.relations[theirs].first_name, "Moved")]


async def test_a_change_that_nobody_can_read_does_not_stop_pulls(store: Store) -> None:
    """One poison entry, left by another version, must not freeze the mirror of everybody in its batch."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, theirs = await someone(it)
        await it.edit(f"UPDATE crm.relations SET first_name = 'Ours' WHERE id = {ours}")
        await it.edit("UPDATE syncd.captures SET operation = 'of_tomorrow'")
        await stage(it, "dead")
        it.world.change_relation(theirs, last_name="Moved")
        await it.pull("group_members")
        assert await it.rows(f"SELECT last_name FROM crm.relations WHERE id = {ours}") == [("Moved",)]


async def test_every_undelivered_state_protects_the_local_value(store: Store) -> None:
    """A dead or parked entry waits for a person; until then the local value is the only place that holds it."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, theirs = await someone(it)
        await it.edit(f"UPDATE crm.relations SET last_name = 'Ours' WHERE id = {ours}")
        await stage(it, "pending")
        for status in ("pending", "held", "dead", "parked", "diverged"):
            await it.edit(f"UPDATE syncd.entries SET status = '{status}'")
            it.world.change_relation(theirs, first_name=f"Not {status}")
            await it.pull("group_members")
            assert await it.rows(f"SELECT first_name, last_name FROM crm.relations WHERE id = {ours}") == [
                (f"Not {status}", "Ours")
            ]
        await it.edit("UPDATE syncd.entries SET status = 'skipped', settled_at = now()")
        await it.pull("group_members")
        last_name = it.world.relations[theirs].last_name
        assert await it.value(f"SELECT last_name FROM crm.relations WHERE id = {ours}") == last_name


async def test_an_answer_asked_for_before_the_delivery_does_not_undo_it(store: Store) -> None:
    """The answer was true when it was made; the delivery came after. Believing it would flash the old value back."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, _ = await someone(it)
        await it.edit(f"UPDATE crm.relations SET last_name = 'Delivered' WHERE id = {ours}")
        await stage(it, "verified", settled="clock_timestamp() + interval '1 hour'")
        await it.pull("group_members")
        value = f"SELECT last_name FROM crm.relations WHERE id = {ours}"
        assert await it.value(value) == "Delivered"
        await it.edit("UPDATE syncd.entries SET settled_at = now() - interval '1 hour'")
        await it.pull("group_members")
        assert await it.value(value) != "Delivered"


async def test_both_sides_moved_is_written_down_once(store: Store) -> None:
    """Two people edited one field on two sides: never silence, and not a new row for every pull."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, theirs = await someone(it)
        base = it.world.relations[theirs].last_name
        await it.edit(f"UPDATE crm.relations SET last_name = 'Local' WHERE id = {ours}")
        await it.pull("group_members")
        assert await it.value("SELECT count(*) FROM syncd.conflicts") == 0, "only we moved so far"
        it.world.change_relation(theirs, last_name="Remote")
        for _ in range(2):
            await it.pull("group_members")
        conflicts = "SELECT field, base, local, remote, owner, status, decided FROM syncd.conflicts"
        assert await it.rows(conflicts) == [("last_name", base, "Local", "Remote", "local", "resolved", "local")]


async def test_a_pending_address_is_kept(store: Store) -> None:
    """An e-mail change is the identity of everything after it in the lane."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, _ = await someone(it)
        await it.edit(f"UPDATE crm.relations SET email = 'new@example.nl' WHERE id = {ours}")
        await it.pull("group_members", "orders", "relation_details")
        assert await it.value(f"SELECT email FROM crm.relations WHERE id = {ours}") == "new@example.nl"


async def test_links_with_an_undelivered_change_stay_as_the_application_left_them(store: Store) -> None:
    """A tag added here and not there yet is not 'gone'; one removed here must not come back by a pull."""
    async with circle(store) as it:
        await it.pull(*ALL, "relation_tags")
        ours, theirs = await someone(it)
        it.world.tag(it.world.relations[theirs], next(iter(it.world.tags)))
        await it.pull("relation_tags")
        held = await it.rows(f"SELECT tag_id FROM crm.relation_tags WHERE relation_id = {ours} ORDER BY 1")
        taken = f"SELECT tag_id FROM crm.relation_tags WHERE relation_id = {ours}"
        free = await it.value(f"SELECT min(id) FROM crm.tags WHERE id NOT IN ({taken})")
        group = await it.value(f"SELECT min(group_id) FROM crm.group_members WHERE relation_id = {ours}")
        await it.edit(
            f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({ours}, {free})",
            f"DELETE FROM crm.relation_tags WHERE relation_id = {ours} AND tag_id = {held[0][0]}",
            f"DELETE FROM crm.group_members WHERE relation_id = {ours} AND group_id = {group}",
        )
        for _ in range(3):
            await it.pull("relation_tags", "group_members")
            await it.advance(2 * 3600)
        tags = await it.rows(
            f"SELECT tag_id, missing_since FROM crm.relation_tags WHERE relation_id = {ours} ORDER BY 1"
        )
        assert tags == sorted([*((tag, None) for (tag,) in held[1:]), (free, None)])
        assert await it.rows(f"SELECT 1 FROM crm.group_members WHERE relation_id = {ours} AND group_id = {group}") == []


async def test_a_new_local_relation_gets_the_id_of_its_twin_in_the_crm(store: Store) -> None:
    """The same person made here and there within a minute is one relation; letter case does not make two."""
    async with circle(store, orders=0) as it:
        await it.pull("groups")
        await it.edit("INSERT INTO crm.relations (account_id, email, first_name) VALUES (1, 'New@Example.nl', 'Ours')")
        await it.edit("INSERT INTO crm.relations (account_id, email, first_name) VALUES (1, 'order@example.nl', 'Too')")
        made = it.world.add_relation("new@example.nl", first_name="Theirs", last_name="Known")
        it.world.join(made, next(iter(it.world.groups)))
        buyer = it.world.add_relation("ORDER@example.nl")
        it.world.add_order(buyer.id, ())
        await it.pull("group_members", "orders")
        found = (
            "SELECT remote_id::int, email, first_name, last_name FROM crm.relations WHERE email ILIKE '%@example.nl'"
        )
        assert sorted(await it.rows(found)) == [
            (made.id, "New@Example.nl", "Ours", "Known"),
            (buyer.id, "order@example.nl", "Too", None),
        ]
        assert await it.value("SELECT count(*) FROM crm.orders WHERE relation_id IS NOT NULL") == 1
        assert await it.value(UNDELIVERED) == 2, "their first delivery is still to come"


async def test_a_new_relation_is_recognised_by_the_address_it_was_made_with(store: Store) -> None:
    """Its address was changed before anything was delivered: a second row for the same person would be edited, too."""
    async with circle(store, orders=0) as it:
        await it.pull("groups")
        await it.edit("INSERT INTO crm.relations (account_id, email) VALUES (1, 'first@example.nl')")
        await it.edit("UPDATE crm.relations SET email = 'second@example.nl' WHERE email = 'first@example.nl'")
        made = it.world.add_relation("First@example.nl", last_name="Known")
        it.world.join(made, next(iter(it.world.groups)))
        await it.pull("group_members")
        found = "SELECT remote_id::int, email, last_name FROM crm.relations WHERE email ILIKE '%@example.nl'"
        assert await it.rows(found) == [(made.id, "second@example.nl", "Known")]
        assert await it.value("SELECT count(*) FROM syncd.conflicts") == 0


async def test_a_row_that_an_application_holds_is_left_for_the_next_run(store: Store) -> None:
    """A pull must wait for nobody, and nobody for a pull."""
    async with circle(store) as it:
        await it.pull(*ALL)
        ours, theirs = await someone(it)
        it.world.change_relation(theirs, last_name="Moved")
        async with store.begin() as application:
            await application.exec_driver_sql(f"UPDATE crm.relations SET first_name = 'Held' WHERE id = {ours}")
            report = await it.pull("group_members")
            assert (report.status, report.updated) == ("succeeded", 0)
            assert report.deferred > 0
        await it.pull("group_members")
        assert await it.rows(f"SELECT first_name, last_name FROM crm.relations WHERE id = {ours}") == [
            ("Held", "Moved")
        ]
