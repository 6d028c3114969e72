"""A person is erased, or a row merged, between what a pull or a proof reads and what it writes: neither stumbles."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import date

import msgspec
import pytest
from sqlalchemy import text

from syncd.domain.audits import Verdict
from syncd.domain.errors import InfrastructureError
from syncd.domain.ids import RunId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.domain.records import Relation, Row
from syncd.inbound import Inspection
from syncd.policy.auditing import AUDITED
from syncd.policy.erasure import Invoices
from syncd.sandbox import World
from syncd.store import Store, erasure
from syncd.store.audit import due_again
from syncd.store.followup import Due
from syncd.store.incidents import open_incidents
from syncd.store.mirror import Scope, group_members
from syncd.store.twins import TwinFate, merge_twin
from tests.support.claims import account_with, changed, claimed_one, delivered, settled
from tests.support.erasing import EMAIL, EVERYTHING, erased, left, local_id, make_person
from tests.support.lanes import add
from tests.support.locks import until_blocked
from tests.support.outbox import rows
from tests.support.pulling import NOON, Circle, circle

EVER_S = 3650 * 86400.0
CALLED = {"relation_details": "relation_by_id", "invoice_details": "invoice_detail"}


def world() -> World:
    return World.seeded(12, 40, 24, seed=7, now=NOON)


async def always() -> bool:
    return True


async def due_of(it: Circle, kind: str, number: int) -> list[Due]:
    """Return what an audit of this kind asks for of one relation, or of one of its invoices."""
    async with it.store.begin() as connection:
        due = await due_again(connection, it.account.id, [kind], 1000, 0)
    assert due is not None
    ours = await local_id(it, number)
    if kind == "invoice_details":
        theirs = {row[0] for row in await it.rows(f"SELECT id FROM crm.invoices WHERE relation_id = {ours}")}
    else:
        theirs = {ours}
    return [one for one in due[1] if one.id in theirs][:1]


async def readmitted(store: Store) -> None:
    async with store.begin() as connection:
        assert await erasure.readmit(connection, "", EMAIL, "tester")


async def test_a_member_who_goes_while_a_group_is_written_is_left_out(store: Store) -> None:
    """The pull began after the hashes: nobody waits for it. It found the relation, which goes before its links come."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        group = await it.value(
            "SELECT group_id FROM crm.group_members m JOIN crm.relations r ON r.id = m.relation_id"
            f" WHERE r.email = '{EMAIL}' LIMIT 1"
        )
        others = await it.rows(
            f"SELECT r.remote_id, r.email FROM crm.group_members m JOIN crm.relations r ON r.id = m.relation_id"
            f" WHERE m.group_id = {group} AND r.email <> '{EMAIL}'"
        )
        shown = [Row(Relation(key, email), b"{}") for key, email in [*others, (str(number), EMAIL)]]
        scope = Scope(it.account.id, RunId(1), NOON, NOON, NOON)
        async with store.begin() as application:
            await application.exec_driver_sql(f"UPDATE crm.relations SET suffix = 'x' WHERE email = '{EMAIL}'")
            erasing = asyncio.create_task(erased(store))
            await until_blocked(store)  # behind the application: it has seen who was writing before
            async with store.begin_remote() as pulling:
                _, pairs = await group_members.write_relations(pulling, scope, group, shown)
                assert len(pairs) == len(others) + 1, "the relation is there until the application is done"
                await application.rollback()
                await erasing
                found = await group_members.difference(pulling, scope, group, pairs)
                written = await group_members.write_links(pulling, scope, found)
        assert (written.inserted, written.deferred) == (0, 1)
        assert await it.value(f"SELECT count(*) FROM crm.group_members WHERE group_id = {group}") == len(others)
        assert await left(store) == []


@pytest.mark.parametrize("stream", ["relation_tags", "relation_subscriptions"])
async def test_a_relation_that_is_merged_while_it_is_asked_for(store: Store, stream: str) -> None:
    """What was said of the row that is gone is left; the row that it went into has its turn in the next run."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        await it.pull(*EVERYTHING)
        drop = await local_id(it, number)
        it.box.faults.add("hold_answer", operation=stream, times=1)
        pulling = asyncio.create_task(it.puller.pull(stream))
        await it.box.until_held()
        async with store.begin_remote() as connection:
            made = await connection.exec_driver_sql(
                "INSERT INTO crm.relations (account_id, email) SELECT account_id, 'new@x.example' FROM crm.relations"
                f" WHERE id = {drop} RETURNING id"
            )
            keep = int(made.scalar_one())
            assert await merge_twin(connection, keep=keep, drop=drop) is TwinFate.MERGED
            await connection.exec_driver_sql(f"UPDATE crm.relations SET remote_id = '{number}' WHERE id = {keep}")
        it.box.release()
        assert (await pulling).status == "succeeded"
        gone = f"SELECT count(*) FROM syncd.changes WHERE row_id = {drop} AND table_name LIKE '%relation%'"
        assert await it.value(gone) == 0
        assert (await it.pull(stream)).status == "succeeded"
        read = f"SELECT count(*) FROM syncd.readings WHERE stream = '{stream}' AND row_id = {keep}"
        assert await it.value(read) == 1


@pytest.mark.parametrize("kind", list(AUDITED))
async def test_what_goes_while_it_is_audited_is_not_judged(store: Store, kind: str) -> None:
    """Its answer says nothing of a row that is not there."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        due = await due_of(it, kind, number)
        inspection = Inspection(kind, due, always)
        it.box.faults.add("hold_answer", operation=CALLED.get(AUDITED[kind], AUDITED[kind]), times=1)
        auditing = asyncio.create_task(it.puller.inspect(AUDITED[kind], inspection))
        await it.box.until_held()
        await erased(store, invoices=Invoices.REMOVE)
        await readmitted(store)
        it.box.release()
        assert (await auditing).status == "succeeded"
        assert inspection.judged.isdisjoint(one.id for one in due)
        assert inspection.verdicts == Counter({Verdict.UNREAD: len(due)}) or kind == "orders"


async def test_an_incident_that_a_proof_is_about_to_write_does_not_stay_behind(store: Store) -> None:
    """A read-back holds the entry, not its lane; what it saw of the person is in the incident that it commits."""
    account = await account_with(store, 1)
    await changed(store, account, 1, add(1))
    await settled(store, account, delivered(await claimed_one(store, account)))
    (entry,) = await rows(store, "SELECT id FROM syncd.entries")
    shown = Incident(IncidentKind.DIVERGED, f"entry:{entry['id']}", "another value", {"shown": "1@x.example"})
    async with store.begin() as proving:
        await proving.execute(text("UPDATE syncd.entries SET status = 'diverged'"))
        await open_incidents(proving, account.id, [shown])
        erasing = asyncio.create_task(erased(store, "1@x.example", wait_s=0))
        await until_blocked(store, or_done=erasing)
    with suppress(InfrastructureError):
        await erasing
    await erased(store, "1@x.example")
    assert await rows(store, "SELECT * FROM syncd.incidents") == []
    assert await left(store, ("1@x.example",)) == []


_STAND_IN = """
    UPDATE crm.invoices SET relation_id = NULL, relation_email = 'erased@erased.invalid', raw = NULL,
        content_hash = decode(repeat('00', 16), 'hex'), pseudonymised_at = now()
    WHERE relation_email = :email
"""


@pytest.mark.parametrize("statement", [_STAND_IN, "DELETE FROM crm.invoices WHERE relation_email = :email"])
async def test_stand_ins_that_come_while_a_list_is_written_stay(store: Store, statement: str) -> None:
    """The pull compared the invoice when it still named the person, and waits for the row that an erasure holds."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        for key, invoice in it.world.invoices.items():
            if invoice.relation_id == number:
                it.world.invoices[key] = msgspec.structs.replace(invoice, description="another word")
        async with store.begin_remote() as older:
            done = await older.execute(text(statement), {"email": EMAIL})
            pulling = asyncio.create_task(it.puller.pull("invoices", reach_s=EVER_S))
            await until_blocked(store)
        assert (await pulling).status == "succeeded"
        assert await it.value(f"SELECT count(*) FROM crm.invoices WHERE relation_email = '{EMAIL}'") == 0
        kept = "SELECT count(*) FROM crm.invoices WHERE pseudonymised_at IS NOT NULL AND description = 'another word'"
        assert await it.value(kept) == 0
        assert done.rowcount > 0


async def test_stand_ins_that_come_while_a_detail_is_written_stay(store: Store) -> None:
    """The detail tells name and address, of whoever it was that the mirror linked the invoice to."""
    async with circle(store, world=world()) as it:
        make_person(it.world)
        await it.pull(*EVERYTHING)
        other = await it.value(f"SELECT email FROM crm.relations WHERE email <> '{EMAIL}' ORDER BY id LIMIT 1")
        await erased(store, other)
        async with store.begin_remote() as older:
            due = "detail_status = 'pending', detail_next_at = now() - interval '10 years', full_name = NULL"
            await older.execute(text(f"UPDATE crm.invoices SET {due} WHERE relation_email = :e"), {"e": EMAIL})
        async with store.begin_remote() as older:
            await older.execute(text(_STAND_IN), {"email": EMAIL})
            pulling = asyncio.create_task(it.puller.pull("invoice_details"))
            await until_blocked(store)
        assert (await pulling).status == "succeeded"
        theirs = "FROM crm.invoices WHERE relation_email = 'erased@erased.invalid' AND NOT is_credit"
        assert await it.value(f"SELECT bool_and(detail_status = 'done') {theirs}")
        assert await it.value(f"SELECT count(*) {theirs} AND (full_name IS NOT NULL OR detail_raw IS NOT NULL)") == 0


async def test_an_order_that_goes_while_it_is_written_is_left_to_the_next_answer(store: Store) -> None:
    """The CRM says that it is somebody else's by now; the mirror linked it to the person who is erased."""
    async with circle(store, world=world()) as it:
        await it.pull(*EVERYTHING)
        chosen = next(iter(it.world.orders))
        it.world.change_order(chosen, is_paid=not it.world.orders[chosen].is_paid)
        one = f"FROM crm.orders WHERE remote_id = '{chosen}'"
        async with store.begin_remote() as older:
            await older.exec_driver_sql(f"DELETE {one}")
            pulling = asyncio.create_task(it.puller.pull("orders", reach_s=EVER_S))
            await until_blocked(store)
        assert (await pulling).status == "succeeded"
        await it.puller.pull("orders", reach_s=EVER_S)
        assert await it.value(f"SELECT count(*) {one}") == 1


async def test_an_invoice_keeps_its_stand_ins_and_follows_its_date_once_nobody_is_kept_out(
    store: Store,
) -> None:
    """The one person who was erased is let in again; what the invoice says of them was given up for good."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        await erased(store)
        standing = "FROM crm.invoices WHERE pseudonymised_at IS NOT NULL"
        named = await it.rows(f"SELECT id, relation_email, description {standing} ORDER BY id")
        assert named
        await readmitted(store)
        for key, invoice in it.world.invoices.items():
            if invoice.relation_id == number:
                it.world.invoices[key] = msgspec.structs.replace(invoice, invoiced_on=date(2020, 2, 29))
        assert (await it.puller.pull("invoices", reach_s=EVER_S)).status == "succeeded"
        assert await it.value(f"SELECT bool_and(invoiced_on = '2020-02-29') {standing}")
        assert await it.rows(f"SELECT id, relation_email, description {standing} ORDER BY id") == named
