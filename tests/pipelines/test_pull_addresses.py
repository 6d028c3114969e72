"""Whom an invoice names by e-mail address alone: looked up one by one, believed only about the address asked for."""

from __future__ import annotations

import msgspec

from syncd.sandbox.records import Relation
from syncd.store import Store, backfilled
from tests.support.pulling import Circle, circle

ON_INVOICES = "only-credit@x.example"
LINKED = "SELECT v.number, n.email FROM crm.invoices v JOIN crm.relations n ON n.id = v.relation_id ORDER BY 1"


def credited(it: Circle, email: str, *numbers: str) -> Relation:
    """Make a relation in no group and without an order, who has these credit invoices."""
    person = it.world.add_relation(email, first_name="Ada")
    now = it.clock.now()
    model = msgspec.structs.replace(next(iter(it.world.invoices.values())), created_at=now, invoiced_on=now.date())
    for number in numbers:
        it.world.add_invoice(
            msgspec.structs.replace(
                model, number=number, is_credit=True, relation_id=person.id, relation_email=email, order_id=None
            )
        )
    return person


async def emptied(it: Circle) -> None:
    """Leave one invoice, to model others on, whose relation is mirrored and linked."""
    key, invoice = next((k, v) for k, v in it.world.invoices.items() if not v.is_credit)
    it.world.invoices = {key: invoice}
    await it.pull("invoices", "invoice_details", "relation_details")


async def test_whom_a_credit_invoice_alone_names_is_mirrored_and_linked(store: Store) -> None:
    """Such an invoice has no detail to name its relation, and no group or order may ever show that one."""
    async with circle(store) as it:
        await emptied(it)
        person = credited(it, ON_INVOICES, "C1", "C2")
        report = await it.pull("invoices", "invoice_relations")
        assert (report.status, report.inserted, it.requested("relation_by_email")) == ("succeeded", 1, 1)
        known = "SELECT remote_id, first_name FROM crm.relations WHERE email = "
        assert await it.rows(f"{known}'{ON_INVOICES}'") == [(str(person.id), "Ada")]
        assert [pair for pair in await it.rows(LINKED) if pair[0] in ("C1", "C2")] == [
            ("C1", ON_INVOICES),
            ("C2", ON_INVOICES),
        ]
        await it.advance(8 * 86400)
        assert (await it.pull("invoice_relations")).requests == 0, "who is known is not looked up"


async def test_an_address_that_nobody_has_is_asked_for_again_a_week_later(store: Store) -> None:
    """People change their address and leave; an invoice keeps it for ever, and must not cost a call an hour."""
    async with circle(store) as it:
        await emptied(it)
        gone = credited(it, ON_INVOICES, "C1")
        it.world.delete_relation(gone.id)
        await it.pull("invoices", "invoice_relations")
        asked = it.requested("relation_by_email")
        assert asked == 2, "the address, and one that must be known, so that the answer is believed"
        async with it.store.begin() as connection:
            told = await backfilled.of_parents(connection, "default", it.account.id, "invoice_relations", 7 * 86400)
        assert (told.parts, told.proven, told.is_whole) == (1, 1, True)
        await it.pull("invoice_relations")
        assert it.requested("relation_by_email") == asked
        await it.edit("UPDATE syncd.readings SET proven_at = proven_at - interval '8 days'")
        it.world.add_relation(ON_INVOICES)
        assert (await it.pull("invoice_relations")).inserted == 1


async def test_a_crm_that_knows_no_address_any_more_is_not_believed(store: Store) -> None:
    """A call that has moved says "not found" of everybody: that is no knowledge about anybody."""
    async with circle(store) as it:
        await emptied(it)
        credited(it, ON_INVOICES, "C1")
        it.box.faults.add("status", status=404, operation="relation_by_email", times=2)
        assert (await it.pull("invoices", "invoice_relations")).status == "failed"
        assert await it.value("SELECT count(*) FROM syncd.readings WHERE proven_at IS NOT NULL AND row_id IN "
                              "(SELECT id FROM crm.invoices WHERE number = 'C1')") == 0  # fmt: skip
        assert (await it.pull("invoice_relations")).inserted == 1


async def test_an_answer_about_another_address_is_not_believed(store: Store) -> None:
    """A CRM that ignores the parameter answers with somebody: an invoice must not be booked on them."""
    async with circle(store) as it:
        await emptied(it)
        asked = credited(it, ON_INVOICES, "C1")
        other = it.world.add_relation("other@x.example")
        find, it.world.relation = it.world.relation, lambda email, **exact: other  # type: ignore[method-assign,assignment]
        report = await it.pull("invoices", "invoice_relations")
        assert (report.status, report.inserted) == ("failed", 0)
        assert "another one" in (report.reason or "")
        it.world.relation = find  # type: ignore[method-assign]
        assert (await it.pull("invoice_relations")).inserted == 1
        assert ("C1", asked.email) in await it.rows(LINKED)


async def test_whose_detail_is_still_to_come_is_not_asked_for_by_address(store: Store) -> None:
    """The detail names them by id; asking twice for each new invoice is a call too many."""
    async with circle(store) as it:
        it.world.invoices = {key: invoice for key, invoice in it.world.invoices.items() if not invoice.is_credit}
        await it.pull("invoices", "invoice_relations")
        assert it.requested("relation_by_email") == 0
        await it.pull("invoice_details", "invoice_relations")
        assert it.requested("relation_by_email") == 0
        assert await it.value("SELECT count(*) FROM crm.invoices WHERE relation_id IS NULL") == 0
