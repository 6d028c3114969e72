"""A person of whom every table knows something, and a look at every row of both schemas for what is left of them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from syncd.clock import SystemClock
from syncd.policy.erasure import Invoices
from syncd.sandbox import World
from syncd.service.erasing import Erased, Order, erase, look
from syncd.store import Store
from tests.support.outbox import rows
from tests.support.pulling import Circle

EMAIL, FIRST, LAST, FORMER = "Zebedeus.Kwartel@Canary.example", "Zebedeus", "Kwartelslag", "Oudekwartel"
FIELD, STREET, CODE, TOWN = "loopt mank sinds 1987", "Kanariepad 77", "9876 ZQ", "Vogelwaarde"
VALUES = (EMAIL, "canary.example", FIRST, LAST, FORMER, FIELD, STREET, CODE, TOWN, "0612349876")
EVERYTHING = (
    "administration",
    "fields",
    "tags",
    "groups",
    "lists",
    "group_members",
    "orders",
    "invoices",
    "invoice_details",
    "relation_details",
    "relation_tags",
    "relation_subscriptions",
    "relation_orders",
)


def make_person(world: World) -> int:
    """Make a canary of a relation that has orders, invoices, tags, a group and a list; return the CRM's id."""
    number = next(
        invoice.relation_id for invoice in world.invoices.values() if not invoice.is_credit and not invoice.company
    )
    world.change_relation(number, email=EMAIL, first_name=FIRST, last_name=LAST)
    relation = world.relations[number]
    for tag in list(world.tags)[:2]:
        world.tag(relation, tag)
    world.join(relation, next(iter(world.groups)))
    world.subscribe(relation, next(iter(world.lists)), skips_optin=True)
    for key, invoice in world.invoices.items():
        if invoice.relation_id == number:
            world.invoices[key] = msgspec.structs.replace(
                invoice,
                relation_email=EMAIL,
                full_name=f"{FIRST} {LAST}",
                company="",
                address=STREET,
                postal_code=CODE,
                city=TOWN,
                vat_number="NL812345678B01",
                description=f"Factuur voor {LAST}",
            )
    return number


async def local_id(it: Circle, number: int) -> int:
    return int(await it.value(f"SELECT id FROM crm.relations WHERE remote_id = '{number}'"))


async def fill_every_table(it: Circle, number: int) -> int:
    """Let every table know something of the person, pulled or made here; return our id of them."""
    await it.pull(*EVERYTHING)
    ours = await local_id(it, number)
    await it.edit(
        f"UPDATE crm.relations SET last_name = '{FORMER}' WHERE id = {ours}",
        f"UPDATE crm.relations SET last_name = '{LAST}' WHERE id = {ours}",
        f"INSERT INTO crm.relation_fields (relation_id, field_id, value) SELECT {ours}, id, '{FIELD}' FROM crm.fields"
        " WHERE is_writable AND lower(type) = 'string' AND missing_since IS NULL LIMIT 1",
    )
    await it.edit(
        f"INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, block_reason) VALUES (1, {ours}, 9, '{EMAIL}')",
        "INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, xact,"
        " captured_at, status, error, reason, settled_at) SELECT l.id, row_number() OVER (ORDER BY c.id), c.account_id,"
        " c.relation_id, operation, facet, syncd.payload_of(operation, facet, payload, before, after), xact,"
        " captured_at, 'accepted',"
        f" 'no {FIRST} here', 'asked by {EMAIL}', now() FROM syncd.captures c JOIN syncd.lanes l USING (relation_id)",
        "DELETE FROM syncd.captures",
    )
    await it.edit(*_of_the_machinery(ours))
    return ours


def _of_the_machinery(ours: int) -> list[str]:
    """Return what outbox and pulls may have written of the person, in rows of theirs and in rows of no one."""
    entry = f"(SELECT min(id) FROM syncd.entries WHERE relation_id = {ours})"
    lane = f"(SELECT id FROM syncd.lanes WHERE relation_id = {ours})"
    other = f"(SELECT min(id) FROM crm.relations WHERE id <> {ours})"
    attempt = "account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s, requests, outcome, detail"
    return [
        f"UPDATE syncd.entries SET status = 'parked', settled_at = NULL WHERE id = {entry}",
        f"""INSERT INTO syncd.attempts ({attempt}) VALUES
            (1, {lane}, 1, {entry}, 'set_field', now(), 1, 1, 'rejected', '{{"error": "{EMAIL} is unknown"}}'),
            (1, 999, 1, 999999, 'set_field', now(), 1, 1, 'rejected', 'of an entry long gone: {EMAIL.upper()}')""",
        f"""INSERT INTO syncd.conflicts (account_id, table_name, row_id, field, base, local, remote, owner) VALUES
            (1, 'relations', {ours}, 'last_name', '{FORMER}', '{LAST}', '{FORMER}', 'hold'),
            (1, 'relations', {other}, 'email', '{EMAIL.lower()}', 'x@x.example', 'y@x.example', 'hold')""",
        f"""INSERT INTO syncd.incidents (account_id, kind, subject, summary, detail) VALUES
            (1, 'parked', 'entry:' || {entry}, 'look in the CRM', '{{"sent": "{FIELD}"}}'),
            (1, 'shape', 'relation {EMAIL}', 'odd record of {FIRST} {LAST}', '{{"record": {{"e": "{EMAIL}"}}}}'),
            (1, 'shape', 'somebody else', 'odd record of Ann', '{{"record": {{"e": "ann@x.example"}}}}')""",
        f"""INSERT INTO syncd.holds (account_id, status, reason) VALUES (1, 'open', 'mass change by {EMAIL}')""",
        f"""INSERT INTO syncd.decisions (account_id, verb, entry_id, actor, reason) VALUES
            (1, 'retry', {entry}, 'jan', 'phoned {LAST} on 0612349876'),
            (1, 'pause', NULL, 'jan', 'mail by {EMAIL}')""",
        f"""INSERT INTO syncd.runs (account_id, stream, trigger, status, warnings, reason) VALUES
            (1, 'orders', 'manual', 'failed', '["{FIRST} came twice", "an order has no date"]',
             'stopped at {EMAIL}')""",
        f"UPDATE syncd.account_states SET pause_reason = 'refused while reading {LAST.upper()}'",
        f"""INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, before, after) VALUES
            (1, 'relations', {other}, 'update', 'remote', '{{"email": "{EMAIL}"}}', '{{"email": "b@x.example"}}'),
            (1, 'relation_fields', {ours}, 'update', 'local', NULL, '{{"value": "{FIELD} 0612349876"}}')""",
        f"INSERT INTO syncd.readings (account_id, stream, row_id) VALUES (1, 'relation_odd', {ours})",
    ]


async def add_file(store: Store) -> None:
    """Mirror a PDF of one of the person's invoices."""
    async with store.begin_remote() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO crm.invoice_files (invoice_id, path, sha256, size_bytes, content_type)"
            f" SELECT min(id), 'invoices/1.pdf', '\\x00', 1, 'application/pdf' FROM crm.invoices"
            f" WHERE relation_email = '{EMAIL}'"
        )


async def erased(store: Store, email: str = EMAIL, **given: Any) -> Erased:
    """Erase at once, with everything that is not delivered."""
    order = Order(email, **{"account": None, "invoices": Invoices.KEEP, "actor": "tester", "may_drop": True} | given)
    return await erase(store, SystemClock(), order, await look(store, order))


async def left(store: Store, values: tuple[str, ...] = VALUES) -> list[str]:
    """Return table, value and row of everything that is left of the person in either schema."""
    tables = await rows(
        store,
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN ('crm', 'syncd')",
    )
    found = []
    for table in tables:
        dumped = await rows(store, f"SELECT CAST(t AS text) AS told FROM {table['name']} t")
        for row in dumped:
            found += [f"{table['name']}: {one}: {row['told']}" for one in values if _in(one, row["told"])]
    return found


def _in(value: str, told: str) -> bool:
    return re.search(re.escape(value), told, re.IGNORECASE) is not None


async def until_suppressed(store: Store) -> None:
    """Return as soon as an erasure under way has committed its hashes; each look is a round trip of its own."""
    while not await rows(store, "SELECT id FROM syncd.suppressions LIMIT 1"):
        continue
