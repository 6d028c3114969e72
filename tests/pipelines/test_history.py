"""History: what the tables held at an instant is what they are seen to hold now with all later changes undone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from syncd.clock import SystemClock
from syncd.inbound import ORDER
from syncd.outbound import Drainer, DrainLimits
from syncd.sandbox import Sandbox, World
from syncd.service.accounts import opened_accounts
from syncd.service.chores import AccountChores
from syncd.service.lease import Lease
from syncd.settings import Settings, resolve_accounts
from syncd.store import Store
from tests.pipelines.test_service_pulls import Told
from tests.support.proving import Say, is_long, seed
from tests.support.pulling import POLICY, Circle, circle

BOOKS = (
    "last_seen_at", "changed_at", "raw", "content_hash", "detail_raw", "detail_at", "detail_attempts", "detail_next_at",
    "detail_error",
)  # fmt: skip
LINKS = ("relation_tags", "group_members")
TABLES = (
    "relations", "relation_fields", "list_subscriptions", "orders", "order_lines", "invoices", "invoice_lines", "tags",
    "fields", "groups", "lists", *LINKS,
)  # fmt: skip


async def held(it: Circle, table: str, source: str) -> list[dict[str, Any]]:
    """Return what a table, or its function, holds: all but the book-keeping that is no part of the history."""
    left_out = (*BOOKS, "first_seen_at") if table in LINKS else BOOKS
    listed = ", ".join(f"'{name}'" for name in left_out)
    query = f"SELECT CAST(to_jsonb(t) - ARRAY[{listed}] AS text) FROM crm.{source} t ORDER BY 1"
    return [msgspec.json.decode(row[0]) for row in await it.rows(query)]


async def at(it: Circle) -> datetime:
    found = await it.value("SELECT clock_timestamp()")
    assert isinstance(found, datetime)
    return found


@dataclass
class Play:
    """Random edits on both sides, pulls and deliveries, one after the other."""

    it: Circle
    dice: random.Random
    drainer: Drainer
    made: int = 0
    told: list[str] = field(default_factory=list)

    async def step(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [self.there, self.there, self.here, self.here, self.pull, self.pull]
        await self.dice.choice([*acts, self.drain])()

    async def there(self) -> None:
        world, dice = self.it.world, self.dice
        who = dice.choice(list(world.relations.values()))
        order = dice.choice(list(world.orders))
        match dice.randrange(10):
            case 0:
                world.change_relation(who.id, last_name=self.word(), funnel_state=self.word())
            case 1:
                world.change_relation(who.id, email=f"{self.word()}@there.example")
            case 2:
                tag = dice.choice(list(world.tags))
                (world.untag if tag in who.tags else world.tag)(who, tag)
            case 3:
                group = dice.choice(list(world.groups))
                (world.leave if group in who.groups else world.join)(who, group)
            case 4:
                world.change_order(order, is_paid=not world.orders[order].is_paid)
            case 5:
                world.change_order(order, lines=world.orders[order].lines[:1] * dice.randrange(1, 4))
            case 6:
                world.add_order(who.id, world.orders[order].lines, is_paid=False, at=self.it.box.clock.now())
            case 7:
                world.rename_tag(dice.choice(list(world.tags)), self.word())
            case 8:
                world.unsubscribe(who, dice.choice(list(world.lists)), "asked")
            case _:
                world.change_relation(world.add_relation(f"{self.word()}@there.example").id, first_name=self.word())
        self.told.append("there")

    async def here(self) -> None:
        bound = await self.it.rows("SELECT id FROM crm.relations WHERE missing_since IS NULL ORDER BY id")
        if not bound:
            return
        who = self.dice.choice(bound)[0]
        thing = "(SELECT id FROM crm.{} WHERE missing_since IS NULL ORDER BY md5(id || '{}') LIMIT 1)"
        tag, group = thing.format("tags", self.word()), thing.format("groups", self.word())
        links = "INSERT INTO crm.{0} (relation_id, {1}_id) SELECT {2}, id FROM {3} x ON CONFLICT DO NOTHING"
        statement = self.dice.choice(
            [
                f"UPDATE crm.relations SET first_name = '{self.word()}', gender = 'F' WHERE id = {who}",
                f"UPDATE crm.relations SET email = '{self.word()}@here.example', suffix = 'van' WHERE id = {who}",
                links.format("relation_tags", "tag", who, tag),
                links.format("group_members", "group", who, group),
                f"DELETE FROM crm.relation_tags WHERE relation_id = {who}",
                f"DELETE FROM crm.group_members WHERE relation_id = {who}",
                f"INSERT INTO crm.relations (email) VALUES ('{self.word()}@here.example')",
                f"INSERT INTO crm.relation_fields (relation_id, field_id, value) SELECT {who}, id, '{self.word()}' "
                "FROM crm.fields WHERE is_writable AND type = 'string' LIMIT 1 "
                "ON CONFLICT (relation_id, field_id) DO UPDATE SET value = excluded.value",
            ]
        )
        await self.it.edit(statement)
        self.told.append("here")

    async def pull(self) -> None:
        stream = self.dice.choice(
            [name for name in (*ORDER, "relation_orders") if name not in ("administration", "invoice_files")]
        )
        await self.it.pull(stream)
        self.told.append(stream)

    async def drain(self) -> None:
        await self.drainer.drain()
        self.told.append("drain")

    def word(self) -> str:
        self.made += 1
        return f"w{self.made}"


def drainer_of(it: Circle) -> Drainer:
    limits = DrainLimits(rate_per_s=10_000, concurrency=4, settle_window_s=0.01)
    crm = it.puller._context.provider
    return Drainer(it.store, crm, it.transport, SystemClock(), it.account, limits, lambda _: None)


async def test_as_of_each_instant_is_what_the_tables_held_then(store: Store, proof: Say) -> None:
    """Who asks what was known on a day must be told that, whatever both sides did to it since."""
    steps, policy = (400 if is_long() else 60), replace(POLICY, absence_gap_s=0, grace_s=0)
    async with circle(store, relations=8, orders=14, invoices=8, policy=policy) as it:
        play = Play(it, random.Random(seed()), drainer_of(it))
        kept: list[tuple[datetime, str, dict[str, list[dict[str, Any]]]]] = []
        await it.pull("fields", "tags", "groups", "group_members")
        for _ in range(steps):
            await play.step()
            kept.append((await at(it), play.told[-1], {table: await held(it, table, table) for table in TABLES}))
        for number, (instant, told, tables) in enumerate(kept):
            for table, rows in tables.items():
                known = await held(it, table, f"{table}_as_of('{instant.isoformat()}')")
                assert known == rows, f"{table} after step {number} ({told}): {play.told[number:]}"
        changes = await it.rows("SELECT DISTINCT table_name, kind, origin FROM crm.history")
        proof(f"as_of: {steps} steps by seed {seed()}, {len(TABLES)} tables each; {len(changes)} kinds of change")
        assert {"remote", "edit", "local"} == {origin for _, _, origin in changes}
        assert {"insert", "update", "delete"} <= {kind for _, kind, _ in changes}


async def test_one_row_of_the_past_is_looked_up_and_not_computed_from_all(store: Store) -> None:
    """A support desk asks about one customer; a million others must not be computed for it."""
    async with circle(store) as it:
        await it.pull("groups", "group_members", "orders")
        async with store.begin() as connection:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = "EXPLAIN SELECT * FROM crm.{} WHERE {}"
            for source, condition in (
                ("relations_as_of(now())", "id = 3"),
                ("orders_as_of(now())", "account_id = 1 AND remote_id = '5'"),
                ("order_lines_as_of(now())", "order_id = 3"),
                ("relation_tags_as_of(now())", "relation_id = 3"),
            ):
                lines = "\n".join(row[0] for row in await connection.exec_driver_sql(plan.format(source, condition)))
                assert "Function Scan on" not in lines.split("->")[0], lines
                assert "Index Cond" in lines.split("SubPlan")[0], lines
        email = await it.value("SELECT email FROM crm.relations ORDER BY id LIMIT 1")
        then = await at(it)
        await it.edit(f"UPDATE crm.relations SET email = 'new@example.nl' WHERE email = '{email}'")
        count = f"SELECT count(*) FROM crm.relations_as_of('{{}}') WHERE email = '{email}'"
        assert await it.value(count.format(then.isoformat())) == 1
        assert await it.value(count.format("now")) == 0


async def test_what_the_history_does_not_keep_is_null_and_not_invented(store: Store) -> None:
    """The raw record of today beside the columns of last month would be a forgery."""
    async with circle(store, orders=3) as it:
        await it.pull("orders")
        then = (await at(it)).isoformat()
        order = next(iter(it.world.orders))
        it.world.change_order(order, is_paid=not it.world.orders[order].is_paid)
        await it.puller.pull("orders", reach_s=POLICY.window.horizon_s)
        found = await it.rows(f"SELECT remote_id, raw, changed_at <= '{then}' FROM crm.orders_as_of('{then}')")
        assert {remote for remote, raw, _ in found if raw is None} == {str(order)}
        assert all(is_older for _, _, is_older in found)


async def test_an_instant_before_what_is_kept_is_refused_in_one_sentence(store: Store) -> None:
    """Half a history answered as if it were whole is worse than none."""
    async with circle(store, orders=3) as it:
        await it.pull("orders")
        await it.edit("INSERT INTO syncd.history_horizons (account_id, kept_since) SELECT id, now() FROM crm.accounts")
        for table in TABLES:
            with pytest.raises(DBAPIError) as refused:
                await it.rows(f"SELECT * FROM crm.{table}_as_of(now() - interval '1 hour')")
            assert getattr(refused.value.orig, "sqlstate", "") == "SY031"
            assert "is kept since" in str(refused.value)
        assert await it.value("SELECT count(*) FROM crm.orders_as_of(now())") == 3


async def test_the_daemon_forgets_what_is_older_than_is_kept(store: Store) -> None:
    """In batches, by the account's own setting; and from then on the past begins later."""
    async with Sandbox(World.seeded(relations=4, orders=3, invoices=0, seed=3)) as box:
        settings = Settings(
            base_url=box.base_url,
            autorespond_admin=box.admin,
            autorespond_key=SecretStr(box.key),
            rate_per_s=1000,
            keep_history_days=30,
        )
        async with opened_accounts(resolve_accounts(settings).configs, store, SystemClock(), Told()) as (runtime,):
            await runtime.puller.pull("groups")
            lease = Lease(store, SystemClock(), runtime.account, "one", 60)
            await lease.renew()
            chores = AccountChores(runtime, lease, SystemClock())
            async with store.begin() as connection:
                old = "UPDATE syncd.changes SET changed_at = now() - interval '31 days' WHERE row_id = 1"
                await connection.exec_driver_sql(old)
            await chores.prune_history()
    async with store.begin() as connection:
        left = (await connection.exec_driver_sql("SELECT row_id FROM syncd.changes ORDER BY 1")).scalars().all()
        assert 1 not in left
        assert left
        refused = connection.exec_driver_sql("SELECT * FROM crm.groups_as_of(now() - interval '32 days')")
        with pytest.raises(DBAPIError, match="is kept since"):
            await refused


async def test_a_link_that_was_marked_before_it_went_was_marked_then(store: Store) -> None:
    """The row is gone; only what the history kept of it can say how it stood."""
    async with circle(store, policy=replace(POLICY, absence_gap_s=0)) as it:
        await it.pull("tags", "groups", "group_members", "relation_tags")
        relation = next(relation for relation in it.world.relations.values() if relation.tags)
        it.world.untag(relation, next(iter(relation.tags)))
        whole = await at(it)
        await it.pull("relation_tags")
        marked, held_then = await at(it), await held(it, "relation_tags", "relation_tags")
        await it.pull("relation_tags")
        count = "SELECT count(*), count(missing_since) FROM crm.relation_tags_as_of('{}')"
        total = len(held_then)
        assert await it.rows(count.format(whole.isoformat())) == [(total, 0)]
        assert await it.rows(count.format(marked.isoformat())) == [(total, 1)]
        assert await it.rows(count.format("now")) == [(total - 1, 0)]
        assert await held(it, "relation_tags", f"relation_tags_as_of('{marked.isoformat()}')") == held_then


async def test_an_invoice_was_nobodys_until_its_relation_was_known(store: Store) -> None:
    """Who looks back must not find a link that nobody could have known."""
    async with circle(store) as it:
        await it.pull("invoices")
        then = await at(it)
        await it.pull("groups", "group_members")
        linked = "SELECT count(relation_id) FROM crm.invoices_as_of('{}')"
        assert await it.value(linked.format("now")) > 0
        assert await it.value(linked.format(then.isoformat())) == 0
