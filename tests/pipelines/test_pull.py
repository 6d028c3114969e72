"""Pulling against the simulator: what arrives in the mirror, and what a second look writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from syncd.sandbox import OrderLine, Switches
from syncd.store import Store
from tests.support.pulling import NOON, POLICY, circle

LINES = (OrderLine("product", 7001, "Brood", 2), OrderLine("subscription", 7006, "Abonnement", 1, 80_500))


async def test_everything_readable_is_mirrored(store: Store) -> None:
    """The mirror is what reports and books are made from: each kind of record must be there, whole."""
    async with circle(store) as it:
        reports = await it.puller.pull_all()
        assert {report.status for report in reports} == {"succeeded"}, reports
        assert await it.value("SELECT count(*) FROM crm.orders WHERE relation_id IS NOT NULL") == 30
        lines = sum(len(order.lines) for order in it.world.orders.values())
        assert await it.value("SELECT count(*) FROM crm.order_lines") == lines
        assert await it.value("SELECT count(*) FROM crm.invoices") == 20
        normal = [invoice for invoice in it.world.invoices.values() if not invoice.is_credit]
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE detail_status = 'done'") == len(normal)
        members = sum(len(group.members) for group in it.world.groups.values())
        assert await it.value("SELECT count(*) FROM crm.group_members") == members
        held = {(relation.id, tag) for relation in it.world.relations.values() for tag in relation.tags}
        assert await it.value("SELECT count(*) FROM crm.relation_tags") == len(held)
        assert await it.value("SELECT title FROM crm.accounts") == it.world.administration.name
        assert await it.value("SELECT count(*) FROM crm.lists WHERE group_id IS NOT NULL") == len(it.world.lists)


async def test_unchanged_repull_writes_no_row_of_the_mirror(store: Store) -> None:
    """Reading the same window every minute must not bloat the tables nor the log of changes."""
    async with circle(store) as it:
        await it.puller.pull_all()
        marks = (
            "SELECT 'orders', id, xmin::text FROM crm.orders"
            " UNION ALL SELECT 'invoices', id, xmin::text FROM crm.invoices"
            " UNION ALL SELECT 'relations', id, xmin::text FROM crm.relations"
            " UNION ALL SELECT 'tags', id, xmin::text FROM crm.tags"
            " UNION ALL SELECT 'members', relation_id, xmin::text FROM crm.group_members"
            " UNION ALL SELECT 'relation_tags', relation_id, xmin::text FROM crm.relation_tags"
            " UNION ALL SELECT 'changes', id, xmin::text FROM syncd.changes ORDER BY 1, 2, 3"
        )
        before = await it.rows(marks)
        reports = await it.puller.pull_all()
        assert {report.status for report in reports} == {"succeeded"}
        assert sum(report.inserted + report.updated for report in reports) == 0
        assert await it.rows(marks) == before


async def test_an_order_paid_later_becomes_paid_with_its_history(store: Store) -> None:
    """Bank transfers are paid days after the order; the history must tell what it was before."""
    async with circle(store) as it:
        order = it.world.add_order(next(iter(it.world.relations)), LINES, is_paid=False)
        await it.pull("orders")
        it.world.pay_order(order.id)
        report = await it.pull("orders")
        assert (report.inserted, report.updated) == (0, 1)
        assert await it.value(f"SELECT is_paid FROM crm.orders WHERE remote_id = '{order.id}'") is True
        history = "SELECT kind, before, after FROM syncd.changes WHERE table_name = 'orders' AND kind = 'update'"
        assert await it.rows(history) == [("update", {"is_paid": False}, {"is_paid": True})]


async def test_an_order_seen_through_its_relation_keeps_what_that_answer_lacks(store: Store) -> None:
    """The two order endpoints differ: the other reading must neither null the relation nor look like a change."""
    async with circle(store) as it:
        for order in list(it.world.orders):
            it.world.change_order(order, is_paid=False)
        await it.pull("orders")
        whose = "SELECT remote_id, relation_id, relation_name, content_hash FROM crm.orders ORDER BY 1"
        before = await it.rows(whose)
        report = await it.pull("relation_orders")
        assert (report.status, report.inserted, report.updated) == ("succeeded", 0, 0)
        assert report.received == 30
        assert await it.rows(whose) == before


async def test_an_order_first_seen_through_its_relation_is_completed_by_the_list(store: Store) -> None:
    """What the first answer could not say must be filled in by the next, without a change being reported for it."""
    async with circle(store) as it:
        await it.pull("groups", "group_members")
        await it.puller.backfill(it.clock.now(), ["relation_orders"])
        assert await it.value("SELECT count(*) FROM crm.orders WHERE relation_name IS NULL") > 0
        await it.pull("orders")
        assert await it.value("SELECT count(*) FROM crm.orders WHERE relation_name IS NULL") == 0
        report = await it.pull("relation_orders")
        assert (report.inserted, report.updated) == (0, 0)


async def test_our_own_writes_are_not_captured(store: Store) -> None:
    """A pull that captured its own rows would send the CRM's data back to it for ever."""
    async with circle(store) as it:
        await it.puller.pull_all()
        assert await it.value("SELECT count(*) FROM syncd.captures") == 0


async def test_a_credit_invoice_is_never_asked_for_its_detail(store: Store) -> None:
    """The CRM has no detail of a credit invoice; asking would fail every time and look like trouble."""
    async with circle(store, invoices=60) as it:
        credits = sum(invoice.is_credit for invoice in it.world.invoices.values())
        assert credits
        await it.pull("invoices", "invoice_details")
        assert it.requested("invoice_detail") == 60 - credits
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE detail_status = 'unavailable'") == credits
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE is_credit AND detail_attempts > 0") == 0


async def test_a_failing_detail_waits_by_itself_and_never_holds_back_the_list(store: Store) -> None:
    """One broken invoice must cost neither the other details nor the proof of the list."""
    async with circle(store) as it:
        it.box.faults.add("status", status=500, operation="invoice_detail", times=1)
        await it.pull("invoices")
        first = await it.pull("invoice_details")
        assert first.is_success
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE detail_status = 'pending'") == 1
        assert (await it.pull("invoice_details")).requests == 0, "it waits before it is tried again"
        await it.advance(3600)
        assert (await it.pull("invoice_details")).updated == 1
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE detail_status = 'pending'") == 0


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 404}, {"kind": "null"}, {"kind": "error"}], ids=str)
async def test_a_detail_that_was_refused_once_is_asked_for_again(store: Store, fault: dict[str, Any]) -> None:
    """A gateway that knows no such page for a minute must not cost the books an invoice's lines for ever."""
    async with circle(store) as it:
        it.box.faults.add(operation="invoice_detail", times=1, **fault)
        await it.pull("invoices", "invoice_details")
        waiting = "SELECT count(*) FROM crm.invoices WHERE detail_status = 'pending' AND detail_error <> ''"
        assert await it.value(waiting) == 1
        await it.advance(1799)
        assert (await it.pull("invoice_details")).requests == 0, "a refusal is asked about less soon than a fault"
        await it.advance(1801)
        assert (await it.pull("invoice_details")).updated == 1
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE detail_status IN ('pending', 'failed')") == 0


async def test_a_detail_that_the_crm_refuses_for_days_has_failed_for_good(store: Store) -> None:
    """Asking for it again every two minutes for years would help nobody; the reason stays readable."""
    async with circle(store, invoices=2) as it:
        it.box.faults.add("status", status=404, operation="invoice_detail", times=0)
        await it.pull("invoices")
        due = "SELECT min(detail_next_at) FROM crm.invoices WHERE detail_status = 'pending'"
        while (due_at := await it.value(due)) is not None:
            await it.advance(max(0.0, (due_at - it.clock.now()).total_seconds()))
            await it.pull("invoice_details")
            assert it.requested("invoice_detail") < 100
        assert timedelta(days=2) < it.clock.now() - NOON < timedelta(days=14)
        await it.advance(30 * 86400)
        await it.pull("invoice_details")
        normal = sum(not invoice.is_credit for invoice in it.world.invoices.values())
        assert it.requested("invoice_detail") == normal * POLICY.detail_attempts
        failed = await it.rows("SELECT detail_status, detail_error FROM crm.invoices WHERE NOT is_credit")
        assert [(status, "404" in error) for status, error in failed] == [("failed", True)] * normal


async def test_an_invoice_that_alone_is_forbidden_waits_while_the_others_are_read(store: Store) -> None:
    """A refusal ends the run, because it may be the key's; it must not end every run at the same invoice."""
    async with circle(store) as it:
        it.box.faults.add("status", status=403, operation="invoice_detail", times=1)
        await it.pull("invoices")
        assert (await it.pull("invoice_details")).status == "failed"
        assert (await it.pull("invoice_details")).updated > 0
        asked = [line.path for line in it.box.requests if line.operation == "invoice_detail"]
        assert asked[0] not in asked[1:]


async def test_what_cannot_be_read_overwrites_nothing_that_is_known(store: Store) -> None:
    """One day of dates and amounts in another format would else empty the columns of every row in the window."""
    async with circle(store) as it:
        await it.pull("orders", "invoices", "invoice_details")
        known = """SELECT number, invoiced_on, amount_incl, amount_excl, amount_vat, NULL FROM crm.invoices UNION ALL
                   SELECT remote_id, NULL, NULL, NULL, NULL, purchased_at FROM crm.orders ORDER BY 1"""
        before = await it.rows(known)
        it.box.turn(Switches(bad_dates_every=1, amounts="ambiguous"))
        await it.advance(60)
        for stream in ("orders", "invoices"):
            assert (await it.puller.pull(stream, reach_s=3650 * 86400)).warnings
        assert (await it.pull("invoice_details")).warnings
        assert await it.rows(known) == before
        it.box.turn(Switches())
        healed = await it.puller.pull("orders", reach_s=3650 * 86400)
        assert (healed.updated, healed.warnings) == (30, ())
        assert await it.rows(known) == before


async def test_odd_values_cost_a_value_and_never_the_row(store: Store) -> None:
    """An unreadable date, an amount that means two things, unknown keys, nulls: kept raw, warned of, survived."""
    odd = Switches(bad_dates_every=3, amounts="ambiguous", unknown_keys=True, nulls=True)
    async with circle(store, switches=odd) as it:
        orders = await it.pull("orders")
        invoices = await it.pull("invoices")
        assert orders.is_success
        assert invoices.is_success
        assert await it.value("SELECT count(*) FROM crm.orders") == 30
        assert await it.value("SELECT count(*) FROM crm.orders WHERE purchased_at IS NULL") > 0
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE amount_incl IS NULL AND raw ? 'amountIncl'") > 0
        assert orders.warnings
        assert invoices.warnings
        assert await it.value("SELECT jsonb_array_length(warnings) FROM syncd.runs WHERE stream = 'orders'") > 0
        known = (
            "'orderId', 'relationId', 'relationName', 'relationEmail', 'invoiceNumber', 'orderlines', 'purchaseDate'"
        )
        unknown = f"SELECT count(*) FROM crm.orders WHERE (raw - ARRAY[{known}, 'paid']) = '{{}}'"
        assert await it.value(unknown) == 0, "unknown keys are kept in raw"


async def test_two_tags_of_one_name_are_both_mirrored(store: Store) -> None:
    """Names are no keys at this CRM: who holds which of them is never guessed, that nobody knows is said, and once."""
    async with circle(store, switches=Switches(duplicate_tags=True)) as it:
        await it.puller.pull_all()
        names = [tag.name for tag in it.world.tags.values()]
        assert len(names) != len(set(names))
        assert await it.value("SELECT count(*) FROM crm.tags") == len(names)
        assert {report.status for report in await it.puller.pull_all()} == {"succeeded"}
        of_both = f"FROM crm.relation_tags l JOIN crm.tags t ON t.id = l.tag_id WHERE t.name = '{names[-1]}'"
        assert any(301 in relation.tags for relation in it.world.relations.values())
        assert await it.value(f"SELECT count(*) {of_both}") == 0
        told = "SELECT subject, occurrences, summary LIKE '%(301, 309)%' FROM syncd.incidents WHERE closed_at IS NULL"
        assert await it.rows(told) == [("tags", 2, True)]
        it.world.tags[309] = msgspec.structs.replace(it.world.tags[309], name="Another")
        await it.pull("tags", "relation_tags")
        held = sum(301 in relation.tags for relation in it.world.relations.values())
        assert (await it.rows(told), await it.value(f"SELECT count(*) {of_both.replace(names[-1], names[0])}")) == (
            [],
            held,
        )


async def test_a_tag_that_was_made_anew_takes_the_holders_of_the_one_before(store: Store) -> None:
    """A name that the CRM has once is not ambiguous, however many tags had it before."""
    async with circle(store) as it:
        await it.puller.pull_all()
        old = next(number for number in it.world.tags if any(number in one.tags for one in it.world.relations.values()))
        holders = [relation for relation in it.world.relations.values() if old in relation.tags]
        new = it.world.add_tag(it.world.tags.pop(old).name)
        for relation in holders:
            relation.tags.discard(old)
            it.world.tag(relation, new.id)
        for _ in range(3):
            await it.pull("tags", "relation_tags")
            await it.advance(3601)
        links = "SELECT t.remote_id, count(*) FROM crm.relation_tags l JOIN crm.tags t ON t.id = l.tag_id"
        both = f"{links} WHERE t.remote_id IN ('{old}', '{new.id}') AND l.missing_since IS NULL GROUP BY 1"
        assert await it.rows(both) == [(str(new.id), len(holders))]


async def test_a_number_with_a_slash_and_an_address_with_a_plus_arrive_as_they_are(store: Store) -> None:
    """Both are everyday in books and mailboxes, and both break URLs that are built carelessly."""
    async with circle(store) as it:
        first = next(invoice for invoice in it.world.invoices.values() if not invoice.is_credit)
        relation = it.world.add_relation("jan+brood@example.nl", first_name="Jan")
        it.world.join(relation, next(iter(it.world.groups)))
        changed = {"number": "2024/0 17", "relation_id": relation.id, "relation_email": relation.email}
        it.world.add_invoice(msgspec.structs.replace(first, **changed, created_at=it.clock.now()))
        await it.puller.pull_all()
        linked = """SELECT i.detail_status, r.email FROM crm.invoices i JOIN crm.relations r ON r.id = i.relation_id
                    WHERE i.number = '2024/0 17'"""
        assert await it.rows(linked) == [("done", "jan+brood@example.nl")]


async def test_an_invoice_is_linked_by_address_whatever_its_letter_case_but_never_by_a_guess(store: Store) -> None:
    """The list names a relation by address alone; two relations with one address must not be mixed up."""
    async with circle(store, invoices=0) as it:
        template_world = type(it.world).seeded(2, 4, 12, seed=1, now=it.clock.now())
        made = next(invoice for invoice in template_world.invoices.values() if invoice.is_credit)
        alone, twin, other = (it.world.add_relation(f"{name}@example.nl") for name in ("alone", "twin", "TWIN"))
        for number, relation, email in (("A", alone, "ALONE@example.nl"), ("B", twin, "twin@example.nl")):
            changed = {"number": number, "relation_id": relation.id, "relation_email": email}
            it.world.add_invoice(msgspec.structs.replace(made, **changed, created_at=it.clock.now()))
        await it.pull("invoices")
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE relation_id IS NOT NULL") == 0
        for relation in (alone, twin, other):
            it.world.join(relation, next(iter(it.world.groups)))
        await it.pull("groups", "group_members")
        assert await it.rows("SELECT number FROM crm.invoices WHERE relation_id IS NOT NULL") == [("A",)]
