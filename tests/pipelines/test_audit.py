"""The auditor: drift that no timestamp tells of is found, called what it is, counted to the row, and mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from syncd.clock import SystemClock
from syncd.domain.audits import AuditReport, Standing, Verdict
from syncd.domain.ids import AccountId
from syncd.domain.reports import RunReport
from syncd.inbound import ORDER, Inspection
from syncd.policy.auditing import AUDITED, calls, has_room
from syncd.sandbox import Sandbox, World
from syncd.service.accounts import AccountRuntime, opened_accounts
from syncd.service.audits import AccountAudits
from syncd.service.lease import Lease
from syncd.settings import Settings, resolve_accounts
from syncd.store import Store
from syncd.store.account_states import pause, throttle
from syncd.store.audit import due_again, read_standings
from tests.pipelines.test_service_pulls import Told
from tests.support.pulling import POLICY, Circle, circle

EQUAL, LATE, WRONG = Verdict.EQUAL, Verdict.LATE, Verdict.WRONG
WAITING, VANISHED, UNREAD = Verdict.WAITING, Verdict.VANISHED, Verdict.UNREAD
PROMPT = replace(POLICY, grace_s=0, absence_gap_s=0)


async def always() -> bool:
    return True


async def audited(it: Circle, kind: str, most: int = 1000) -> tuple[Counter[Verdict], RunReport]:
    """Audit everything of a kind in one round."""
    async with it.store.begin() as connection:
        due = await due_again(connection, it.account.id, [kind], most, 0)
    assert due is not None
    inspection = Inspection(kind, due[1], always)
    report = await it.puller.inspect(AUDITED[kind], inspection)
    return +inspection.verdicts, report


async def standings(it: Circle) -> dict[str, Standing]:
    async with it.store.begin() as connection:
        return {row.kind: row for row in await read_standings(connection, 7 * 86400.0, it.account.id)}


async def behind(it: Circle, *statements: str) -> None:
    """Break the mirror behind everybody's back: no history, no capture."""
    async with it.store.begin_remote() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@dataclass
class Drifting:
    """A mirror that was read whole, and the relations that no drift has touched yet."""

    it: Circle
    fresh: list[int]

    def take(self) -> int:
        return self.fresh.pop(0)


@pytest.fixture
async def mirrored(store: Store) -> AsyncIterator[Drifting]:
    async with circle(store, relations=24, orders=60, invoices=16, policy=PROMPT) as it:
        for relation in it.world.relations.values():  # seeded tags are too few to lose one each
            it.world.tag(relation, next(iter(it.world.tags)))
        it.world.untag(next(iter(it.world.relations.values())), next(iter(it.world.tags)))
        await it.pull(
            *(name for name in ORDER if name not in ("administration", "invoice_files")),
            "relation_details",
            "relation_tags",
        )
        yield Drifting(it, list(it.world.relations))


async def test_a_true_mirror_is_equal_row_by_row_and_is_not_touched(mirrored: Drifting) -> None:
    """An audit that finds drift where there is none would be switched off, and then nobody looks."""
    it = mirrored.it
    changes = await it.value("SELECT count(*) FROM syncd.changes")
    counts = {
        "relations": "crm.relations",
        "relation_tags": "crm.relations",
        "relation_subscriptions": "crm.relations",
        "orders": "crm.orders",
        "invoice_details": "crm.invoices WHERE detail_status = 'done'",
    }
    for kind, source in counts.items():
        found, report = await audited(it, kind)
        assert found == {EQUAL: await it.value(f"SELECT count(*) FROM {source}")}, kind
        assert (report.status, report.trigger, report.updated) == ("succeeded", "audit", 0)
    assert await it.value("SELECT count(*) FROM syncd.changes") == changes
    assert {kind: row.share for kind, row in (await standings(it)).items() if row.share < 1} == {}


async def test_drifted_relations_are_counted_and_mended(mirrored: Drifting) -> None:
    """Three edits that nobody saw, one broken row, one local edit, one that is gone: each called by its name."""
    it, effects = mirrored.it, len(mirrored.it.world.journal.since(0))
    late, broken, local, gone = [mirrored.take() for _ in range(3)], mirrored.take(), mirrored.take(), mirrored.take()
    for number in late:
        it.world.change_relation(number, last_name="Silently")
    it.world.delete_relation(gone)
    await behind(it, f"UPDATE crm.relations SET last_name = 'Broken' WHERE remote_id = '{broken}'")
    await it.edit(f"UPDATE crm.relations SET first_name = 'Mine' WHERE remote_id = '{local}'")
    found, _ = await audited(it, "relations")
    assert found == {EQUAL: 24 - 6, LATE: 3, WRONG: 1, WAITING: 1, VANISHED: 1}
    names = await it.rows(
        "SELECT last_name, count(*) FROM crm.relations WHERE last_name IN ('Silently', 'Broken') GROUP BY 1"
    )
    assert names == [("Silently", 3)]
    assert await it.value(f"SELECT first_name FROM crm.relations WHERE remote_id = '{local}'") == "Mine"
    again, _ = await audited(it, "relations")
    assert again == {EQUAL: 22, WAITING: 1, VANISHED: 1}
    assert len(it.world.journal.since(0)) == effects + 4  # ours alone: an audit writes nothing to the CRM
    book = await it.rows("SELECT asked, equal, late, wrong, waiting, vanished, unread FROM syncd.audits")
    assert book == [(48, 40, 3, 1, 2, 2, 0)]


async def test_drifted_tags_are_told_from_links_that_the_mirror_lost_or_invented(mirrored: Drifting) -> None:
    """The history says what the mirror should hold: what it holds against it is our fault, not the CRM's."""
    it = mirrored.it
    tags = list(it.world.tags)
    bare, added, removed, lost, invented = (mirrored.take() for _ in range(5))
    world = it.world
    world.tag(world.relations[added], next(tag for tag in tags if tag not in world.relations[added].tags))
    world.untag(world.relations[removed], tags[0])
    has = ", ".join(f"'{tag}'" for tag in world.relations[invented].tags)
    which = "relation_id = (SELECT id FROM crm.relations WHERE remote_id = '{}') "
    await behind(
        it,
        "DELETE FROM crm.relation_tags WHERE " + which.format(lost),
        "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT r.id, t.id FROM crm.relations r, crm.tags t "
        f"WHERE r.remote_id = '{invented}' AND t.remote_id NOT IN ({has}) LIMIT 1",
    )
    assert bare
    found, _ = await audited(it, "relation_tags")
    assert found == {EQUAL: 20, LATE: 2, WRONG: 2}
    again, _ = await audited(it, "relation_tags")
    assert again == {EQUAL: 24}


async def test_drifted_orders_are_counted_one_by_one(mirrored: Drifting) -> None:
    """A payment without a date, a new order that no window showed, a broken row whose digest says it is fine."""
    it = mirrored.it
    total = await it.value("SELECT count(*) FROM crm.orders")
    orders = [order for order in it.world.orders.values() if order.relation_id in mirrored.fresh]
    paid, line, broken, gone = orders[0], orders[1], orders[2], orders[3]
    it.world.change_order(paid.id, is_paid=not paid.is_paid)
    it.world.change_order(line.id, lines=(msgspec.structs.replace(line.lines[0], quantity=99),))
    it.world.delete_order(gone.id)
    it.world.add_order(orders[4].relation_id, orders[4].lines, is_paid=True, at=orders[4].purchased_at)
    await behind(it, f"UPDATE crm.orders SET is_paid = NOT is_paid WHERE remote_id = '{broken.id}'")
    found, _ = await audited(it, "orders")
    assert found == {EQUAL: total - 4, LATE: 3, WRONG: 1, VANISHED: 1}
    again, _ = await audited(it, "orders")
    assert again == {EQUAL: total, VANISHED: 1}


async def test_a_tag_whose_name_another_has_leaves_nobody_unread(mirrored: Drifting) -> None:
    """Which of the two somebody holds is unknowable; to ask for it in every round would take the others' turns."""
    it = mirrored.it
    first, second = (it.world.relations[mirrored.take()] for _ in range(2))
    one, other = (it.world.add_tag("Twins").id for _ in range(2))
    it.world.tag(first, one)
    it.world.tag(second, other)
    await it.pull("tags", "relation_tags")
    assert (await audited(it, "relation_tags"))[0] == {EQUAL: 24}


async def test_subscriptions_that_an_audit_does_not_see_prove_nothing_at_once(mirrored: Drifting) -> None:
    """An account that suddenly answers empty must not be published as equal to what was known of it."""
    it = mirrored.it
    who = it.world.relations[mirrored.take()]
    it.world.subscribe(who, next(iter(it.world.lists)), skips_optin=True)
    await it.pull("relation_subscriptions")
    who.events.clear()
    await behind(it, "UPDATE syncd.readings SET proven_at = NULL WHERE stream = 'relation_subscriptions'")
    for seen in ({EQUAL: 23, UNREAD: 1}, {EQUAL: 23, LATE: 1}, {EQUAL: 24}):
        found, _ = await audited(it, "relation_subscriptions")
        assert found == seen
        assert (await standings(it))["relation_subscriptions"].proven == 24 - seen.get(UNREAD, 0)


async def test_drifted_subscriptions_and_invoice_details_are_mended(mirrored: Drifting) -> None:
    """What is read one call a row drifts like everything else."""
    it = mirrored.it
    who, lists = it.world.relations[mirrored.take()], list(it.world.lists)
    it.world.unsubscribe(who, lists[0], "asked")
    found, _ = await audited(it, "relation_subscriptions")
    assert found == {EQUAL: 23, LATE: 1}
    done = await it.value("SELECT count(*) FROM crm.invoices WHERE detail_status = 'done'")
    late, broken = [key for key in it.world.invoices if not key[1]][:2]
    it.world.invoices[late] = msgspec.structs.replace(it.world.invoices[late], city="Elders")
    await behind(
        it,
        "UPDATE crm.invoice_lines SET amount = amount + 1 WHERE invoice_id = "
        f"(SELECT id FROM crm.invoices WHERE number = '{broken[0]}' AND NOT is_credit)",
    )
    found, _ = await audited(it, "invoice_details")
    assert found == {EQUAL: done - 2, LATE: 1, WRONG: 1}
    assert (await audited(it, "invoice_details"))[0] == {EQUAL: done}
    assert await it.value("SELECT count(*) FROM crm.invoices WHERE city = 'Elders'") == 1


async def test_what_could_not_be_read_is_never_called_equal(mirrored: Drifting) -> None:
    """An auditor that counts what it did not see is worse than none: it is believed."""
    it = mirrored.it
    await behind(it, "UPDATE syncd.readings SET proven_at = NULL")
    it.box.faults.add("status", status=500, operation="relation_tags", times=2)
    found, report = await audited(it, "relation_tags")
    assert report.status == "failed"
    assert found == {EQUAL: 22, UNREAD: 2}
    standing = (await standings(it))["relation_tags"]
    assert (standing.rows, standing.proven) == (24, 22)
    assert (await audited(it, "relation_tags", most=2))[0] == {EQUAL: 2}  # those two were proven longest ago
    assert (await standings(it))["relation_tags"].share == 1


async def test_what_was_never_shown_is_not_proven(mirrored: Drifting) -> None:
    """A stub, an order of long ago: being there is no proof."""
    it = mirrored.it
    await behind(
        it,
        f"INSERT INTO crm.relations (account_id, remote_id) VALUES ({it.account.id}, '999')",
        "UPDATE crm.orders SET last_seen_at = now() - interval '8 days' WHERE id IN (SELECT min(id) FROM crm.orders)",
    )
    found = await standings(it)
    assert found["relations"].rows - found["relations"].proven == 1
    assert found["orders"].rows - found["orders"].proven == 1
    assert 8 * 86400 <= (found["orders"].oldest_s or 0) < 8 * 86400 + 600
    assert {"tags", "groups", "lists", "fields", "group_members", "invoices"} <= found.keys()


async def test_the_longest_unproven_come_first(mirrored: Drifting) -> None:
    """Whatever is fresh would be read for nothing, while something else rots."""
    it = mirrored.it
    await behind(it, "UPDATE syncd.readings SET proven_at = now() - make_interval(days => CAST(row_id AS integer) + 2)")
    async with it.store.begin() as connection:
        kinds = ["relation_tags", "relation_subscriptions"]
        kind, due = await due_again(connection, it.account.id, kinds, 3, 86400) or ("", ())
        ids = (await connection.execute(text("SELECT id FROM crm.relations ORDER BY id DESC LIMIT 3"))).scalars()
        assert kind in kinds
        assert [one.id for one in due] == list(ids)
        await connection.execute(text("UPDATE syncd.readings SET proven_at = now()"))
        assert await due_again(connection, it.account.id, kinds, 3, 86400) is None


# The daemon's rounds


@pytest.fixture
async def runtime(store: Store) -> AsyncIterator[AccountRuntime]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as box:
        settings = Settings(
            base_url=box.base_url,
            autorespond_admin=box.admin,
            autorespond_key=SecretStr(box.key),
            rate_per_s=1000,
            audit_share=0.1,
        )
        async with opened_accounts(resolve_accounts(settings).configs, store, SystemClock(), Told()) as (opened,):
            for stream in ("tags", "groups", "group_members"):
                await opened.puller.pull(stream)
            yield opened


async def opened_audits(runtime: AccountRuntime, told: list[AuditReport]) -> AccountAudits:
    lease = Lease(runtime.store, SystemClock(), runtime.account, "one", 60)
    await lease.renew()
    return AccountAudits(runtime, lease, SystemClock(), told.append, rest_s=0)


async def test_a_round_reads_and_publishes_how_all_stand(runtime: AccountRuntime) -> None:
    """What is published is how the mirror stands after the round."""
    told: list[AuditReport] = []
    audits = await opened_audits(runtime, told)
    for _ in range(3):
        await audits.round()
    async with runtime.store.begin() as connection:
        relations = (await connection.execute(text("SELECT count(*) FROM crm.relations"))).scalar_one()
    assert [sum(report.verdicts.values()) for report in told] == [relations] * 3
    shares = {row.kind: row.share for row in told[-1].standings}
    assert (shares["relation_tags"], shares["relation_subscriptions"]) == (1, 1)
    assert told[-1].run_id is not None


@pytest.mark.parametrize("why", ["paused", "throttled", "breaker", "work", "lease", "stopping"])
async def test_no_round_while_anything_else_matters_more(runtime: AccountRuntime, store: Store, why: str) -> None:
    """Never an account in trouble, never before a delivery, never by two at once."""
    told: list[AuditReport] = []
    audits = await opened_audits(runtime, told)
    account = runtime.account.id
    async with store.begin() as connection:
        match why:
            case "paused":
                await pause(connection, account, "refused")
            case "throttled":
                await throttle(connection, account, 60)
            case "breaker":
                await _broken(connection, account)
            case "work":
                await connection.execute(text("UPDATE crm.relations SET first_name = 'Mine' WHERE id = 1"))
    if why == "lease":
        audits = AccountAudits(
            runtime, Lease(store, SystemClock(), runtime.account, "two", 60), SystemClock(), told.append, rest_s=0
        )
    if why == "stopping":
        await audits.finish()
    await audits.round()
    assert told == []


async def _broken(connection: object, account: AccountId) -> None:
    statement = text("UPDATE syncd.account_states SET breaker_state = 'open' WHERE account_id = :id")
    await connection.execute(statement, {"id": account})  # type: ignore[attr-defined]


def test_a_round_takes_its_share_and_only_of_what_is_left() -> None:
    """Two calls a second, a tenth of it: twelve a minute; none while live traffic uses more than nine tenths."""
    assert calls(2, 0.1, 60, 500) == 12
    assert calls(2, 0.1, 60, 5) == 5
    assert has_room(108, 2, 0.1, 60)
    assert not has_room(109, 2, 0.1, 60)
    assert not has_room(0, 2, 0.1, 0)
