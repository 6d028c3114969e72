"""Drain: local edits made with plain SQL reach the simulator, each as one effect, in order."""

import asyncio

from syncd.providers.contract import ProviderOptions
from syncd.store import Store
from tests.support.outbox import Circle, circle, rows, run_sql


async def _free_tag(c: Circle, relation_id: int) -> int:
    return next(t for t in c.sandbox.world.tags if t not in c.sandbox.world.relations[relation_id].tags)


def _somebody(c: Circle) -> int:
    return next(iter(c.sandbox.world.relations))


async def test_every_kind_of_edit_reaches_the_crm(store: Store) -> None:
    """The whole circle, every operation, from SQL to the simulator's state."""
    async with circle(store) as c:
        world, who = c.sandbox.world, _somebody(c)
        free, worn = await _free_tag(c, who), 308
        world.tag(world.relations[who], worn)
        code = next(f.code for f in world.fields.values() if "_FF" in f.code and f.type not in ("boolean", "list"))
        field_id = next(f.id for f in world.fields.values() if f.code == code)
        out = next(g for g in world.groups if g not in world.relations[who].groups)
        within = next(iter(world.relations[who].groups))
        await _mirror_links(c, who, worn, within)
        await c.edit(
            "INSERT INTO crm.relations (account_id, email, first_name) VALUES (:account_id, 'new@x.example', 'An')"
        )
        await c.edit("UPDATE crm.relations SET first_name = 'Ander' WHERE id = :who", who=who)
        await c.edit("UPDATE crm.relations SET email = 'other@x.example' WHERE id = :who", who=who)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=who, tag=free)
        await c.edit("DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = :tag", who=who, tag=worn)
        await c.edit(
            "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (:who, :f, 'blauw')",
            who=who,
            f=field_id,
        )
        await c.edit("INSERT INTO crm.group_members (relation_id, group_id) VALUES (:who, :g)", who=who, g=out)
        await c.edit("DELETE FROM crm.group_members WHERE relation_id = :who AND group_id = :g", who=who, g=within)
        report = await c.drain()
        assert (report.delivered, report.pending, report.blocked, report.is_empty) == (8, 0, 0, True)
        there = world.relations[who]
        assert (there.first_name, there.email) == ("Ander", "other@x.example")
        assert free in there.tags
        assert worn not in there.tags
        assert there.fields[code] == "blauw"
        assert out in there.groups
        assert within not in there.groups
        created = world.relation("new@x.example")
        assert created is not None
        bound = await rows(store, "SELECT remote_id FROM crm.relations WHERE email = 'new@x.example'")
        assert bound == [{"remote_id": str(created.id)}]
        assert len(c.reports) == 8
        assert len(await rows(store, "SELECT 1 FROM syncd.changes WHERE origin = 'local'")) == 8
        assert await rows(store, "SELECT 1 FROM syncd.captures") == []


async def _mirror_links(c: Circle, who: int, tag: int, group: int) -> None:
    async with c.store.begin_remote() as connection:
        await connection.exec_driver_sql(f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({who}, {tag})")
        await connection.exec_driver_sql(
            f"INSERT INTO crm.group_members (relation_id, group_id) VALUES ({who}, {group})"
        )


async def test_a_new_relation_is_created_before_its_tags(store: Store) -> None:
    """One transaction of an application; the tag needs the id that the create brings."""
    async with circle(store) as c:
        async with store.begin() as connection:
            made = await connection.exec_driver_sql(
                f"INSERT INTO crm.relations (account_id, email) VALUES ({c.account.id}, 'new@x.example') RETURNING id"
            )
            await connection.exec_driver_sql(
                f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({made.scalar_one()}, 301)"
            )
        assert (await c.drain()).is_empty
        kinds = [e.kind for e in c.sandbox.journal if e.kind in ("relation.created", "tag.added")]
        assert kinds == ["relation.created", "tag.added"]


async def test_e_mail_change_and_profile_go_in_the_order_of_their_commits(store: Store) -> None:
    """The CRM finds by e-mail: the profile sent under the old address would make a second relation."""
    async with circle(store) as c:
        who, before = _somebody(c), len(c.sandbox.world.relations)
        await c.edit("UPDATE crm.relations SET first_name = 'Een' WHERE id = :who", who=who)
        await c.edit("UPDATE crm.relations SET email = 'twee@x.example' WHERE id = :who", who=who)
        await c.edit("UPDATE crm.relations SET first_name = 'Drie', last_name = 'Vier' WHERE id = :who", who=who)
        assert (await c.drain()).is_empty
        seen = [(e.kind, e.after) for e in c.sandbox.journal if e.subject == f"relation:{who}"][-3:]
        assert seen == [
            ("relation.changed", {"first_name": "Een"}),
            ("relation.email_changed", {"email": "twee@x.example"}),
            ("relation.changed", {"first_name": "Drie", "last_name": "Vier"}),
        ]
        assert len(c.sandbox.world.relations) == before


async def test_a_tag_added_and_removed_is_one_call(store: Store) -> None:
    """Tags start campaigns; folding saves the mail, not the request alone."""
    async with circle(store) as c:
        who = _somebody(c)
        tag = await _free_tag(c, who)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=who, tag=tag)
        await c.edit("DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = :tag", who=who, tag=tag)
        assert (await c.drain()).is_empty
        assert c.sandbox.journal.of("tag.added") == []
        assert [e["status"] for e in await c.entries()] == ["superseded", "accepted"]


async def test_a_subscription_is_sent_once(store: Store) -> None:
    """It mails."""
    async with circle(store) as c:
        await _subscribe(c, _somebody(c))
        assert (await c.drain()).is_empty
        assert len(c.sandbox.journal.of("mail.planned")) == 1


async def _subscribe(c: Circle, who: int) -> None:
    number = next(iter(c.sandbox.world.lists))
    payload = f'{{"list_id": {number}, "list_remote_id": "{number}", "skip_optin": false}}'
    await c.edit(
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "VALUES (:account_id, :who, 'subscribe', :facet, CAST(CAST(:payload AS text) AS jsonb))",
        who=who,
        facet=f"list:{number}",
        payload=payload,
    )


async def test_a_drainer_claims_and_settles_by_index(store: Store) -> None:
    """No step of it asks the table how many rows it has: beside a transaction that stays open it has thousands more."""
    async with circle(store) as c:
        for statement in SCANS_OF_LANES.split(";;"):
            await run_sql(store, statement)
        for first_name in ("A", "B"):
            await c.edit("UPDATE crm.relations SET first_name = :n", n=first_name)
            assert (await c.drain()).is_empty
        seen = {(r["step"], r["scans"]) for r in await rows(store, "SELECT step, scans FROM public.seen")}
        assert seen == {("claim", "off, off"), ("settle", "off, off")}


# The database itself notes by which settings a lane is taken and let go.
SCANS_OF_LANES = """
    CREATE TABLE public.seen (step text, scans text);;
    CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.seen
        VALUES (CASE WHEN NEW.claimed_by IS NULL THEN 'settle' ELSE 'claim' END,
                concat_ws(', ', current_setting('enable_seqscan'), current_setting('enable_bitmapscan')));
        RETURN NULL;
    END $$;;
    CREATE TRIGGER see AFTER UPDATE ON syncd.lanes FOR EACH ROW
    WHEN (OLD.claimed_by IS DISTINCT FROM NEW.claimed_by) EXECUTE FUNCTION public.see()
"""


async def test_a_switched_off_operation_dies_with_the_way_to_allow_it(store: Store) -> None:
    """Nobody is mailed by accident, and the operator is told what to do."""
    async with circle(store, options=ProviderOptions()) as c:
        await _subscribe(c, _somebody(c))
        report = await c.drain()
        assert (report.dead, report.requests, report.blocked) == (1, 0, 1)
        assert "SYNCD_ALLOWED_OPERATIONS" in (await c.entries())[0]["error"]


async def test_a_daemon_delivers_what_is_committed_while_it_runs(store: Store) -> None:
    """No NOTIFY, no restart: the cheap poll finds it."""
    async with circle(store) as c:
        who, stop = _somebody(c), asyncio.Event()
        tag = await _free_tag(c, who)
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer().run(stop))
            await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=who, tag=tag)
            await c.sandbox.journal.until(lambda j: bool(j.of("tag.added")))
            stop.set()
        assert [e["status"] for e in await c.entries()] == ["accepted"]
        assert [x["claimed_by"] for x in await c.lanes()] == [None]


async def test_an_empty_outbox_drains_at_once(store: Store) -> None:
    """Cron runs this every minute."""
    async with circle(store) as c:
        report = await c.drain()
        assert report.is_empty
        assert report.requests == 0


async def test_many_relations_are_sent_side_by_side_and_each_in_order(store: Store) -> None:
    """Width between lanes, order within."""
    async with circle(store, relations=30) as c:
        for first_name in ("A", "B", "C"):
            await c.edit("UPDATE crm.relations SET first_name = :n", n=first_name)
            await c.edit("UPDATE crm.relations SET email = :n || id || '@x.example'", n=first_name)
        assert (await c.drain(concurrency=8)).is_empty
        for relation in c.sandbox.world.relations.values():
            assert (relation.first_name, relation.email) == ("C", f"C{relation.id}@x.example")
            names = [
                e.after["first_name"] if "first_name" in e.after else e.after["email"][0]  # type: ignore[index, operator]
                for e in c.sandbox.journal
                if e.subject == f"relation:{relation.id}"
            ]
            assert names == ["A", "A", "B", "B", "C", "C"]
