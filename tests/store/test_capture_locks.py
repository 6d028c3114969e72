"""Capture takes no lock that another transaction could wait for, and cannot deadlock an application (G8).

Each edit that an application can make runs twice, with the capture triggers off and on, and all that its open
transaction then holds is compared: what ``pg_locks`` shows, and every row of every table that another transaction could
not lock now (row locks are in no view). The instruments are tested too: on a capture that does lock a lane, or that
works row by row, they must say so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncd.domain.errors import InfrastructureError
from syncd.store import Connection, Store
from syncd.store.outbox import stage
from tests.support.edits import run_script, seed
from tests.support.outbox import Circle, circle, rows

CAPTURED = {
    "relations": ("capture_insert", "capture_update"),
    "relation_tags": ("capture_insert", "capture_delete"),
    "relation_fields": ("capture_insert", "capture_update"),
    "group_members": ("capture_insert", "capture_delete"),
}

EDITS = {
    "create": "INSERT INTO crm.relations (id, account_id, email) VALUES (900 + :r, 1, 'new' || :r || '@example.nl')",
    "rename": "UPDATE crm.relations SET first_name = 'new' WHERE id = :r",
    "readdress": "UPDATE crm.relations SET email = 'new' || :r || '@example.nl' WHERE id = :r",
    "tag": "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:r, 1)",
    "untag": "DELETE FROM crm.relation_tags WHERE relation_id = :r AND tag_id = 2",
    "join": "INSERT INTO crm.group_members (group_id, relation_id) VALUES (1, :r)",
    "leave": "DELETE FROM crm.group_members WHERE group_id = 2 AND relation_id = :r",
    "first value": "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (:r, 1, 'L')",
    "next value": "UPDATE crm.relation_fields SET value = 'false' WHERE relation_id = :r AND field_id = 2",
}

# What there is to take away, to leave and to change.
_MORE = """
INSERT INTO crm.groups (id, account_id, remote_id, title) VALUES (2, 1, '22', 'Others');
INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (1, 2), (2, 2);
INSERT INTO crm.group_members (group_id, relation_id) VALUES (2, 1), (2, 2);
INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (1, 2, 'true'), (2, 2, 'true');
INSERT INTO syncd.lanes (account_id, relation_id) VALUES (1, 1), (1, 2);
"""

# A capture that would number changes itself, as a counter on the relation's lane: what staging exists to avoid.
LANE_LOCKED = """
CREATE FUNCTION public.number_lane() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS '
BEGIN UPDATE syncd.lanes SET tail_seq = tail_seq WHERE relation_id = NEW.relation_id; RETURN NULL; END';
CREATE TRIGGER number_lane AFTER INSERT ON syncd.captures FOR EACH ROW EXECUTE FUNCTION public.number_lane()"""
# One that takes its turn in the application's transaction.
LOCKED_IN_TURN = """
CREATE FUNCTION public.take_turn() RETURNS trigger LANGUAGE plpgsql AS '
BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END';
CREATE TRIGGER take_turn AFTER INSERT ON syncd.captures FOR EACH STATEMENT EXECUTE FUNCTION public.take_turn()"""

# Conflict with nothing but changes of the schema.
HARMLESS = frozenset({"AccessShareLock", "RowExclusiveLock"})
_INDEXES = ("syncd.captures_pkey", "syncd.captures_relation_id_idx")


@dataclass(frozen=True, slots=True)
class Held:
    """What an open transaction holds: ``locks`` as (kind, of what, mode); ``rows`` as (table, place)."""

    locks: frozenset[tuple[str, str, str]]
    rows: frozenset[tuple[str, str]]


_LOCKS = text(
    """
    SELECT locktype, coalesce(CAST(CAST(relation AS regclass) AS text), ''), mode FROM pg_locks
    WHERE pid = :pid AND locktype NOT IN ('virtualxid', 'transactionid')
      AND coalesce(CAST(CAST(relation AS regclass) AS text), '') NOT LIKE 'pg_%'
    """
)


async def held_after(store: Store, edit: str) -> Held:
    """Run an edit, look at what its transaction holds, and roll it back."""
    async with store.engine.connect() as application:
        pid = (await application.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        await application.execute(text(edit), {"r": 1})
        async with store.engine.connect() as other:
            locks = frozenset(tuple(row) for row in await other.execute(_LOCKS, {"pid": pid}))
            locked = await _locked_rows(other)
            await other.rollback()
        await application.rollback()
    return Held(locks, locked)


async def _locked_rows(connection: Connection) -> frozenset[tuple[str, str]]:
    """Return the rows that this transaction would have to wait for, if it wanted them for itself."""
    found: set[tuple[str, str]] = set()
    tables = (await connection.exec_driver_sql(_TABLES)).scalars().all()
    for table in tables:
        everything = await connection.exec_driver_sql(f"SELECT ctid::text FROM {table}")
        free = await connection.exec_driver_sql(f"SELECT ctid::text FROM {table} FOR UPDATE SKIP LOCKED")
        found |= {(table, place) for place in set(everything.scalars()) - set(free.scalars())}
    return frozenset(found)


_TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('crm', 'syncd')"""


async def switch(store: Store, verb: str) -> None:
    """Enable or disable the capture triggers, and nothing else."""
    statements = [
        f"ALTER TABLE crm.{table} {verb} TRIGGER {trigger}"
        for table, triggers in CAPTURED.items()
        for trigger in triggers
    ]
    await run_script(store, ";\n".join(statements))


async def with_and_without(store: Store, edit: str) -> tuple[Held, Held]:
    held = await held_after(store, edit)
    await switch(store, "DISABLE")
    plain = await held_after(store, edit)
    await switch(store, "ENABLE")
    return held, plain


async def prepared(store: Store) -> None:
    await seed(store)
    await run_script(store, _MORE, remote=True)


async def test_every_capture_trigger_is_known_here(store: Store) -> None:
    """A table whose capture nobody switches off would be compared with itself."""
    found = await rows(
        store,
        "SELECT CAST(tgrelid AS regclass) AS place, tgname FROM pg_trigger "
        "WHERE tgname LIKE 'capture%' AND NOT tgisinternal",
    )
    assert {(row["place"], row["tgname"]) for row in found} == {
        (f"crm.{table}", trigger) for table, triggers in CAPTURED.items() for trigger in triggers
    }


async def test_capture_adds_no_lock_that_another_could_wait_for(store: Store) -> None:
    """What capture adds conflicts with changes of the schema only: its own rows, and a look at a name."""
    await prepared(store)
    for name, edit in EDITS.items():
        held, plain = await with_and_without(store, edit)
        added = held.locks - plain.locks
        written = {what for _, what, mode in added if mode == "RowExclusiveLock"}
        read = {what for _, what, mode in added if mode == "AccessShareLock"}
        assert {kind for kind, _, _ in added} == {"relation"}, name
        assert {mode for _, _, mode in added} <= HARMLESS, name
        assert {"syncd.captures"} <= written <= {"syncd.captures", "syncd.captures_id_seq", *_INDEXES}, name
        assert all(what.startswith(("crm.tags", "crm.groups", "crm.fields")) for what in read), (name, read)
        assert held.rows == plain.rows, name


async def test_captures_have_nothing_that_makes_an_insert_wait(store: Store) -> None:
    """A unique key, an exclusion or a foreign key is where two inserts, or an insert and a delete, meet."""
    found = await rows(
        store,
        """SELECT conname AS name FROM pg_constraint
           WHERE conrelid = CAST('syncd.captures' AS regclass) AND contype NOT IN ('c', 'n')
           UNION SELECT CAST(CAST(indexrelid AS regclass) AS text) FROM pg_index
           WHERE indrelid = CAST('syncd.captures' AS regclass) AND indisunique
           UNION SELECT tgname FROM pg_trigger WHERE tgrelid = CAST('syncd.captures' AS regclass)""",
    )
    assert {row["name"] for row in found} == {"captures_pkey", "syncd.captures_pkey"}


@pytest.mark.parametrize("bug", [LANE_LOCKED, LOCKED_IN_TURN], ids=["lane locked", "taking turns"])
async def test_a_capture_that_locks_is_seen(store: Store, bug: str) -> None:
    """A comparison that cannot see the lock that it exists for would pass for ever."""
    await prepared(store)
    await run_script(store, bug)
    held, plain = await with_and_without(store, EDITS["tag"])
    assert held.rows != plain.rows or any(kind == "advisory" for kind, _, _ in held.locks - plain.locks)


# Two applications ------------------------------------------------------------------------------------------------


async def meeting(store: Store, first: str, second: str) -> str:
    """Let two transactions edit two relations in opposite order; return how that went."""
    async with store.engine.connect() as one, store.engine.connect() as two:
        try:
            for connection in (one, two):
                await connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            await one.execute(text(first), {"r": 1})
            await two.execute(text(second), {"r": 2})
            await one.execute(text(first), {"r": 2})
            await two.execute(text(second), {"r": 1})
        except DBAPIError as error:
            return str(getattr(error.orig, "sqlstate", error))
        finally:
            await one.rollback()
            await two.rollback()
    return "went through"


async def test_edits_in_opposite_order_meet_only_where_they_would_without_syncd(store: Store) -> None:
    """Whether two transactions wait for each other is for their own rows to decide: each pair of edits, both ways."""
    await prepared(store)
    pairs = [(first, second) for first in EDITS for second in EDITS]
    captured = {pair: await meeting(store, *(EDITS[name] for name in pair)) for pair in pairs}
    await switch(store, "DISABLE")
    plain = {pair: await meeting(store, *(EDITS[name] for name in pair)) for pair in pairs}
    assert captured == plain
    assert list(plain.values()).count("went through") >= 60


APPLICATIONS = 4
TURNS = 12
RELATIONS = 6


@dataclass(frozen=True, slots=True)
class Application:
    """One of several at the same relations. It has a tag and a field of its own, so that without syncd no two of them
    ever want the same row."""

    relations: tuple[int, ...]
    tag: int
    field: int
    values: Sequence[str]
    chance: random.Random

    def edits(self) -> Sequence[str]:
        """One transaction: every relation once, in an order of its own, and sometimes a new one."""
        order = self.chance.sample(self.relations, len(self.relations))
        edits = [
            self.chance.choice(_OWN).format(r=r, tag=self.tag, field=self.field, value=self.chance.choice(self.values))
            for r in order
        ]
        if self.chance.random() < 0.3:
            edits.append(_BORN.format(self.chance.getrandbits(48)))
        return edits


_VALUES = {"string": ("blauw", "groen"), "boolean": ("true", "false")}
_OWN = (
    "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({r}, {tag}) ON CONFLICT DO NOTHING",
    "DELETE FROM crm.relation_tags WHERE relation_id = {r} AND tag_id = {tag}",
    "INSERT INTO crm.relation_fields AS f (relation_id, field_id, value) VALUES ({r}, {field}, '{value}')"
    " ON CONFLICT (relation_id, field_id) DO UPDATE SET value = EXCLUDED.value",
)
_BORN = "INSERT INTO crm.relations (account_id, email) SELECT id, 'born-{}@example.nl' FROM crm.accounts"


async def at_the_same(crm: Circle, seed_: int) -> list[str]:
    """Let applications edit the same relations at once; return the codes of whatever failed them."""
    world, chance = crm.sandbox.world, random.Random(seed_)
    relations = tuple(sorted(world.relations))[:RELATIONS]
    fields = [field for field in world.fields.values() if field.is_free]
    applications = [
        Application(relations, tag, field.id, _VALUES.get(field.type, field.options), random.Random(chance.random()))
        for tag, field in zip(sorted(world.tags)[:APPLICATIONS], fields, strict=True)
    ]
    url = crm.store.engine.url.render_as_string(hide_password=False)
    opened = Store.open(url, pool_size=APPLICATIONS)
    try:
        failures = await asyncio.gather(*(_turns(opened, application) for application in applications))
    finally:
        await opened.close()
    return [failure for each in failures for failure in each]


async def _turns(store: Store, application: Application) -> list[str]:
    failures = []
    for _ in range(TURNS):
        try:
            async with store.begin() as connection:
                await connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
                await connection.exec_driver_sql("SET LOCAL deadlock_timeout = '100ms'")
                for edit in application.edits():
                    await connection.exec_driver_sql(edit)
        except InfrastructureError as error:  # what Store makes of a deadlock
            failures.append(str(error))
        except DBAPIError as error:
            failures.append(str(getattr(error.orig, "sqlstate", error)))
    return failures


@asynccontextmanager
async def at_work(crm: Circle) -> AsyncIterator[None]:
    """A stager and two drainers that stage, claim, bind and settle while the block runs."""
    stop = asyncio.Event()

    async def stager() -> None:
        while not stop.is_set():
            async with crm.store.begin() as connection:
                await stage(connection)
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        group.create_task(stager())
        for _ in range(2):
            group.create_task(crm.drainer().run(stop))
        yield
        stop.set()


async def test_applications_never_deadlock_while_syncd_works(store: Store) -> None:
    """Same relations, any order, while all of syncd is at work on them: no application is failed by it, and all that
    they did arrives."""
    async with circle(store, relations=RELATIONS) as crm:
        async with asyncio.timeout(120), at_work(crm):
            for seed_ in range(3):
                assert await at_the_same(crm, seed_) == []
        report = await crm.drain()
        assert (report.pending, report.dead, report.blocked) == (0, 0, 0)
        touched = await rows(crm.store, _TOUCHED)
        assert len(touched) == APPLICATIONS * RELATIONS
        for row in touched:
            assert (row["tag_id"] in crm.sandbox.world.relations[row["relation_id"]].tags) == row["is_tagged"], row


_TOUCHED = """
SELECT DISTINCT e.relation_id, CAST(substr(e.facet, 5) AS bigint) AS tag_id, l.tag_id IS NOT NULL AS is_tagged
FROM syncd.entries e
LEFT JOIN crm.relation_tags l ON l.relation_id = e.relation_id AND 'tag:' || l.tag_id = e.facet
WHERE e.facet LIKE 'tag:%'"""


async def test_a_capture_that_locks_lanes_deadlocks(store: Store) -> None:
    """The same applications, with the counter that staging exists to avoid: if this went well, the test above would
    be too gentle."""
    async with circle(store, relations=RELATIONS) as crm:
        assert await at_the_same(crm, 0) == []
        async with store.begin() as connection:
            await stage(connection)
        await run_script(store, LANE_LOCKED)
        async with asyncio.timeout(120):
            failures = await at_the_same(crm, 1)
    assert any("40P01" in failure for failure in failures)
