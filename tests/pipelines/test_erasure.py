"""A person is erased: nothing of them is left in any row, and no pull brings them back."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from syncd.domain.errors import ConfigurationError, InfrastructureError, SyncdError, UserError
from syncd.domain.ids import RunId
from syncd.domain.records import Order as OrderRecord
from syncd.policy.erasure import Invoices
from syncd.sandbox import World
from syncd.service.erasing import Order, look
from syncd.store import Store, erasure
from syncd.store.mirror import Scope
from syncd.store.mirror import erased as hiding
from syncd.store.suppression import suppressed
from tests.support.claims import account_with, changed, claimed_one, delivered, expire, settled
from tests.support.erasing import (
    EMAIL,
    EVERYTHING,
    FIRST,
    LAST,
    TOWN,
    VALUES,
    add_file,
    erased,
    fill_every_table,
    left,
    local_id,
    make_person,
)
from tests.support.lanes import add
from tests.support.logs import captured_logs
from tests.support.outbox import new_account, remote_sql, rows, run_sql, stage_all
from tests.support.pulling import NOON, circle

_BOOKS = "SELECT number, is_credit, invoiced_on, amount_incl, amount_excl, amount_vat FROM crm.invoices ORDER BY 1, 2"


def world() -> World:
    return World.seeded(12, 40, 24, seed=7, now=NOON)


async def test_nothing_is_left_of_a_person_in_any_row_or_log(store: Store) -> None:
    """The promise itself, with a person of whom every table knows something."""
    with captured_logs(json=True) as logs:
        async with circle(store, world=world()) as it:
            number = make_person(it.world)
            await fill_every_table(it, number)
            await add_file(store)
            before = {line.split(":")[0] for line in await left(store)}
            assert before >= {"crm.relations", "crm.orders", "crm.invoices", "syncd.entries", "syncd.runs"}
            assert before >= {"syncd.attempts", "syncd.conflicts", "syncd.incidents", "syncd.holds", "syncd.decisions"}
            books = await it.rows(_BOOKS)
            done = await erased(store)
            assert await left(store) == []
            assert await it.rows(_BOOKS) == books, "numbers and amounts are kept"
            assert done.receipt.finished_at is not None
            assert done.receipt.counts["crm.relations"] == 1
            assert await it.value("SELECT summary FROM syncd.incidents WHERE subject = 'somebody else'")
            warnings = await it.value("SELECT warnings FROM syncd.runs WHERE status = 'failed'")
            assert warnings == ["(erased)", "an order has no date"]
    assert not [value for value in VALUES if value.lower() in logs.getvalue().lower()]


async def test_no_pull_brings_a_person_back(store: Store) -> None:
    """Every stream shows them again at once, under another letter case too."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await fill_every_table(it, number)
        books = await it.rows(_BOOKS)
        await erased(store)
        await it.pull(*EVERYTHING)
        assert await left(store) == []
        it.world.change_relation(number, email=EMAIL.upper(), first_name=FIRST.upper())
        it.world.add_order(number, it.world.orders[next(iter(it.world.orders))].lines)
        await it.advance(7200)
        reports = [await it.pull(stream) for stream in EVERYTHING]
        assert all(report.is_success for report in reports)
        assert await left(store) == []
        assert await it.rows(_BOOKS) == books
        assert await it.value(f"SELECT count(*) FROM crm.relations WHERE remote_id = '{number}'") == 0


async def test_a_pull_that_asked_before_writes_nobody_after(store: Store) -> None:
    """Its answers name the person and come when they are erased: each kind of stream, in flight at that moment."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        it.world.change_relation(number, last_name=LAST)
        flights = ("orders", "invoices", "group_members", "relation_tags", "relation_subscriptions", "relation_orders")
        for stream in flights:
            it.box.faults.add("hold_answer", operation=stream, times=1)
            pulling = asyncio.create_task(it.puller.pull(stream))
            await it.box.until_held()
            await erased(store)
            it.box.release()
            report = await pulling
            assert (stream, report.status, report.reason) == (stream, "succeeded", None)
            assert await left(store) == []
            async with store.begin() as connection:
                await erasure.readmit(connection, "", EMAIL, "tester")
            await it.pull(*EVERYTHING)
            assert await left(store) != [], "or the next stream would prove nothing"


async def test_a_pull_that_began_to_write_before_is_waited_for(store: Store) -> None:
    """It has not seen the hashes and may write the person after everything else: rows go only when it has ended."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        account = it.account.id
        async with store.begin_remote() as older:
            await older.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            with pytest.raises(InfrastructureError, match="a pull that began before the erasure is still writing"):
                await erased(store, wait_s=0.3)
            assert await suppressed(older, account) is None, "it looked before there was anybody to look for"
            await older.exec_driver_sql(
                f"INSERT INTO crm.orders (account_id, remote_id, relation_remote_id, relation_email) "
                f"VALUES ({account}, '777', '{number}', '{EMAIL}')"
            )
        assert len(await left(store)) > 1
        await erased(store)
        assert await left(store) == []


async def test_a_change_that_is_being_sent_is_not_pulled_from_under_its_worker(store: Store) -> None:
    """It may be applied in the CRM this very moment: the erasure waits, and gives up before it has begun anything."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    with pytest.raises(InfrastructureError, match="being sent to the CRM") as refused:
        await erased(store, "1@x.example", wait_s=0.2)
    assert refused.value.exit_code == 75
    assert await rows(store, "SELECT * FROM syncd.erasures") == []
    erasing = asyncio.create_task(erased(store, "1@x.example"))
    await settled(store, account, delivered(lane))
    await erasing
    assert await left(store, ("1@x.example",)) == []
    assert await rows(store, "SELECT id FROM crm.relations") == [{"id": 2}]


async def test_a_worker_whose_lease_ran_out_brings_nothing_back(store: Store) -> None:
    """It was fenced by the erasure as by any other worker: its result finds no lane."""
    account = await account_with(store, 1)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    await expire(store)
    await erased(store, "1@x.example")
    result = await settled(store, account, delivered(lane))
    assert result.fenced == {lane.lane_id}
    for table in ("entries", "lanes", "attempts", "changes WHERE kind <> 'delete'"):
        assert await rows(store, f"SELECT * FROM syncd.{table}") == []


async def test_an_application_in_the_way_stops_an_erasure_that_goes_on_later(store: Store) -> None:
    """Nobody waits for ever, and the second try is the same erasure: one receipt, with all that both removed."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        ours = await fill_every_table(it, number)
        orders = await it.value(f"SELECT count(*) FROM crm.orders WHERE relation_id = {ours}")
        async with store.begin() as application:
            await application.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            await application.exec_driver_sql(f"UPDATE crm.relations SET last_name = 'X' WHERE id = {ours}")
            with pytest.raises(InfrastructureError, match="run the same command again"):
                await erased(store, wait_s=0.5)
            assert await it.value(f"SELECT count(*) FROM crm.orders WHERE relation_id = {ours}") == 0
            await application.rollback()
        done = await erased(store)
        assert await left(store) == []
        assert done.receipt.counts["crm.orders"] == orders
        assert await it.value("SELECT count(*) FROM syncd.erasures") == 1


async def test_undelivered_changes_are_never_given_up_unasked(store: Store) -> None:
    """Captured a moment ago or parked for weeks: somebody meant them."""
    account = await account_with(store, 1)
    await run_sql(store, "UPDATE crm.relations SET first_name = 'Ann' WHERE id = 1")
    with pytest.raises(UserError, match=r"1 local changes of this person .* --drop-undelivered"):
        await erased(store, "1@x.example", may_drop=False)
    await stage_all(store)
    with pytest.raises(UserError, match="--drop-undelivered"):
        await erased(store, "1@x.example", may_drop=False)
    assert await rows(store, "SELECT * FROM syncd.erasures") == []
    done = await erased(store, "1@x.example")
    assert done.receipt.by_hand[-1] == {"what": "local changes that were never sent", "count": 1}
    assert account.id == 1


async def test_a_person_of_two_accounts_is_erased_from_both_or_from_the_one_that_is_named(store: Store) -> None:
    """One address, two administrations: perhaps two contracts, perhaps two wishes."""
    await account_with(store, 1)
    other = await new_account(store, "other")
    again = "INSERT INTO crm.relations (id, account_id, remote_id, email) VALUES (51, :a, '7', '1@X.example')"
    await remote_sql(store, again, a=other.id)
    order = Order("1@x.example", None, Invoices.KEEP, "tester")
    assert [one.account for one in (await look(store, order)).person.bearers] == ["default", "other"]
    await erased(store, "1@x.example", account="other")
    assert await rows(store, "SELECT account_id FROM crm.relations") == [{"account_id": 1}]
    async with store.begin_remote() as connection:
        assert (await suppressed(connection, 1)).relation(None, "1@X.EXAMPLE") is None  # type: ignore[union-attr]
        assert (await suppressed(connection, other.id)).relation(None, "1@X.EXAMPLE")  # type: ignore[union-attr]
    await erased(store, "1@x.example")
    assert await rows(store, "SELECT id FROM crm.relations") == []
    with pytest.raises(UserError, match="no account 'third'; there are: default, other"):
        await erased(store, account="third")


async def test_somebody_unknown_is_no_success(store: Store) -> None:
    """A misspelled address must not end in a receipt."""
    await account_with(store, 1)
    with pytest.raises(SyncdError, match="nobody with this address is known here") as refused:
        await erased(store, "2@x.example")
    assert refused.value.exit_code == 1
    assert await rows(store, "SELECT * FROM syncd.erasures") == []


async def test_a_namesake_and_a_new_bearer_of_an_old_address_stay(store: Store) -> None:
    """The erased person once had an address that is somebody else's now; and two people have one name."""
    await account_with(store, 3)
    await remote_sql(store, "UPDATE crm.relations SET first_name = 'Ann', last_name = 'Bos'")
    await remote_sql(
        store,
        """INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, before, after) VALUES
           (1, 'relations', 1, 'update', 'remote', '{"email": "2@x.example"}', '{"email": "1@x.example"}'),
           (1, 'relations', 1, 'update', 'remote', '{"email": "old@x.example"}', '{"email": "2@x.example"}')""",
    )
    await erased(store, "1@x.example")
    assert await rows(store, "SELECT id, email, last_name FROM crm.relations ORDER BY 1") == [
        {"id": 2, "email": "2@x.example", "last_name": "Bos"},
        {"id": 3, "email": "3@x.example", "last_name": "Bos"},
    ]
    async with store.begin_remote() as connection:
        hidden = await suppressed(connection, 1)
        assert hidden is not None
        assert hidden.relation("2", "2@x.example") is None
        assert hidden.relation(None, "Old@x.example") is not None


async def test_removed_invoices_stay_removed(store: Store) -> None:
    """Where the books are kept elsewhere nothing need stay, and no list brings them back."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        theirs = {key for key, invoice in it.world.invoices.items() if invoice.relation_id == number}
        before = await it.value("SELECT count(*) FROM crm.invoices")
        await erased(store, invoices=Invoices.REMOVE)
        for key in theirs:
            it.world.invoices[key] = msgspec.structs.replace(it.world.invoices[key], relation_email="")
        await it.advance(7200)
        await it.pull(*EVERYTHING)
        assert await it.value("SELECT count(*) FROM crm.invoices") == before - len(theirs)
        assert await left(store) == []


async def test_a_kept_invoice_stays_anonymous_and_its_books_stay_right(store: Store) -> None:
    """The CRM corrects an amount later, and a new invoice of the erased person comes: numbers yes, names no."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        done = await erased(store)
        key, invoice = next((k, i) for k, i in it.world.invoices.items() if i.relation_id == number and not k[1])
        line = msgspec.structs.replace(invoice.lines[0], amount_cents=invoice.lines[0].amount_cents + 1000)
        it.world.invoices[key] = msgspec.structs.replace(invoice, lines=(line, *invoice.lines[1:]))
        fresh = msgspec.structs.replace(invoice, number="2024/99999", relation_email=EMAIL.upper(), created_at=NOON)
        it.world.invoices["2024/99999", False] = fresh
        await it.advance(7200)
        for _ in range(2):
            await it.pull(*EVERYTHING)
            assert await left(store) == []
        stand_in = f"erased-{done.receipt.hash[:12]}"
        columns = "full_name, relation_email, city, amount_incl, amount_vat IS NULL, raw, detail_raw, relation_id"
        for found in await it.rows(f"SELECT {columns} FROM crm.invoices WHERE number IN ('{key[0]}', '2024/99999')"):
            assert found[:3] == (stand_in, f"{stand_in}@erased.invalid", stand_in)
            assert found[3] is not None
            assert found[4:] == (False, None, None, None)
        assert TOWN not in str(await it.rows("SELECT * FROM crm.invoices"))


async def test_who_comes_back_is_let_in_by_hash_or_address(store: Store) -> None:
    """A customer again: by a decision that is written down, never by accident."""
    async with circle(store, world=world()) as it:
        make_person(it.world)
        await it.pull(*EVERYTHING)
        receipt = (await erased(store)).receipt
        async with store.begin() as connection:
            assert await erasure.readmit(connection, "", "nobody@x.example", "jan") == ()
            assert await erasure.readmit(connection, "", receipt.hash, "jan") == (receipt.id,)
        await it.pull(*EVERYTHING)
        assert await it.value(f"SELECT count(*) FROM crm.relations WHERE email = '{EMAIL}'") == 1
        async with store.begin() as connection:
            (kept,) = await erasure.list_receipts(connection)
        assert (kept.readmitted_by, kept.actor) == ("jan", "tester")
        assert kept.readmitted_at is not None


async def test_another_key_stops_pulls_instead_of_bringing_people_back(database: str, store: Store) -> None:
    """A forgotten or mistyped SYNCD_ERASE_KEY recognises nobody; that must not look like nobody is erased."""
    keyed = Store.open(database, pool_size=2, erase_key="right")
    async with circle(keyed, world=world()) as it:
        make_person(it.world)
        await it.pull(*EVERYTHING)
        await erased(keyed)
        await it.pull("orders")
    async with circle(store, world=it.world) as it:
        with pytest.raises(ConfigurationError, match="SYNCD_ERASE_KEY is not the one"):
            await it.pull("group_members")
        with pytest.raises(ConfigurationError, match="SYNCD_ERASE_KEY"):
            await erased(store, "somebody@x.example")
    assert await left(store) == []
    await keyed.close()


async def test_a_later_word_about_an_erased_person_goes_with_the_same_command(store: Store) -> None:
    """A report of a pull that was under way, a backup that was restored: erase again, under the same receipt."""
    account = await account_with(store, 1)
    first = await erased(store, "1@x.example")
    await run_sql(
        store,
        "INSERT INTO syncd.runs (account_id, stream, trigger, status, reason) "
        "VALUES (:a, 'orders', 'manual', 'failed', 'about 1@X.example')",
        a=account.id,
    )
    again = await erased(store, "1@x.example")
    assert again.receipt.id == first.receipt.id
    assert await left(store, ("1@x.example",)) == []


async def test_followers_of_the_history_are_told_to_forget(store: Store) -> None:
    """A copy elsewhere learns of the erasure by row number alone."""
    async with circle(store, world=world()) as it:
        ours = await fill_every_table(it, make_person(it.world))
        orders = await it.rows(f"SELECT id FROM crm.orders WHERE relation_id = {ours} ORDER BY 1")
        await erased(store)
        told = "SELECT row_id FROM syncd.changes WHERE kind = 'delete' AND table_name = '{}' ORDER BY 1"
        assert await it.rows(told.format("orders")) == orders
        assert await it.rows(told.format("relations")) == [(ours,)]
        kept = "SELECT after ? 'full_name', before FROM syncd.changes WHERE table_name = 'invoices' AND kind = 'update'"
        assert (True, None) in await it.rows(kept)


async def test_a_running_process_learns_of_each_erasure_and_readmission(database: str, store: Store) -> None:
    """It keeps the hashes that it has read; somebody else's command changes them while it runs."""
    await account_with(store, 3)
    operator = Store.open(database, pool_size=2)

    async def hidden() -> list[str]:
        async with store.begin_remote() as connection:
            found = await suppressed(connection, 1)
            people = ("1@x.example", "2@x.example")
            return [one for one in people if found is not None and found.relation(None, one) is not None]

    assert await hidden() == []
    await erased(operator, "1@x.example")
    assert await hidden() == ["1@x.example"]
    await erased(operator, "2@x.example")
    assert await hidden() == ["1@x.example", "2@x.example"]
    async with operator.begin() as connection:
        await erasure.readmit(connection, "", "1@X.example", "jan")
    assert await hidden() == ["2@x.example"]
    await operator.close()


async def test_what_is_another_relations_stays_though_it_bears_the_address(store: Store) -> None:
    """A billing address of a whole family, a friend in a free field: theirs is not the erased person's."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await it.pull(*EVERYTHING)
        other = next(order.relation_id for order in it.world.orders.values() if order.relation_id != number)
        ours, theirs = await local_id(it, number), await local_id(it, other)
        shared = f"SET relation_email = '{EMAIL}' WHERE relation_id = {theirs}"
        async with store.begin_remote() as connection:
            await connection.exec_driver_sql(f"UPDATE crm.orders {shared}")
            await connection.exec_driver_sql(f"UPDATE crm.invoices {shared}")
            await connection.exec_driver_sql(
                "INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, after)"
                f" SELECT 1, 'relation_fields', {ours}, 'update', 'local', to_jsonb(o) FROM"
                " (SELECT 'friend@x.example' AS value) o"
            )
        held = f"SELECT count(*) FROM crm.orders WHERE relation_id = {theirs}"
        orders = await it.value(held)
        found = await look(store, Order(EMAIL, None, Invoices.REMOVE, "tester"))
        assert found.person.elsewhere == (("default", str(other)),)
        await erased(store, invoices=Invoices.REMOVE)
        assert await it.value(held) == orders > 0
        async with store.begin_remote() as connection:
            hidden = await suppressed(connection, 1)
            assert hidden is not None
            assert hidden.relation(None, "friend@x.example") is None
            theirs_still = OrderRecord("1", None, None, None, (), str(other), EMAIL)
            come_again = OrderRecord("2", None, None, None, (), "999999", EMAIL.upper())
            scope = Scope(it.account.id, RunId(1), NOON, NOON, NOON)
            assert await hiding.of_orders(connection, scope, [theirs_still, come_again]) == {1}
        paid = next(order for order in it.world.orders.values() if order.relation_id == other)
        it.world.change_order(paid.id, is_paid=not paid.is_paid)
        await it.advance(7200)
        assert (await it.pull(*EVERYTHING)).is_success
        assert await it.value(f"SELECT is_paid FROM crm.orders WHERE remote_id = '{paid.id}'") is not paid.is_paid
