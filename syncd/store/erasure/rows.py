"""Orders and invoices: removed in small transactions, or kept with stand-ins.

What is removed leaves one row in the history, ``delete`` and without values, so that whoever follows it removes it from
their copy; a kept invoice leaves an ``update`` with the stand-ins. Older history of these rows goes, but the first row
of a kept invoice (it holds no values, and pulls find by it which answers must show the invoice).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.policy.erasure import ERASED, Invoices, Mentions, Pseudonym, pseudonymised
from syncd.store.engine import Connection, Store
from syncd.store.erasure.ledger import count, take_turn
from syncd.store.erasure.waiting import impatient

MOST = 200
TABLES = frozenset({"crm.orders", "crm.invoices", "crm.invoice_files", "syncd.invoice_fetches"})
_ALTERED = ("relation_email", "full_name", "company", "address", "postal_code", "city", "vat_number", "description")

_HOLD = "SELECT id FROM crm.{table} WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR UPDATE NOWAIT"
_LINES = "SELECT count(*) FROM crm.{lines} WHERE {key} = ANY(CAST(:ids AS bigint[]))"
_FORGET = """
    DELETE FROM syncd.{table} WHERE table_name = :name AND row_id = ANY(CAST(:ids AS bigint[]))
"""
_DROP = "DELETE FROM crm.{table} WHERE id = ANY(CAST(:ids AS bigint[])) RETURNING id, account_id"
_TELL = text("""
    INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, after)
    SELECT i.account_id, :name, i.row_id, :kind, 'local', CAST(i.after AS jsonb)
    FROM unnest(CAST(:accounts AS bigint[]), CAST(:ids AS bigint[]), CAST(:afters AS text[]))
        AS i (account_id, row_id, after)
""")
_READ = text(f"""
    SELECT id, account_id, detail_error, {", ".join(_ALTERED)} FROM crm.invoices
    WHERE id = ANY(CAST(:ids AS bigint[])) AND pseudonymised_at IS NULL ORDER BY id FOR UPDATE NOWAIT
""")
# A hash of the old record would let whoever has it try values against it: zeros match no record.
_STAND_IN = text(f"""
    UPDATE crm.invoices v
    SET {", ".join(f"{name} = i.{name}" for name in _ALTERED)}, detail_error = i.detail_error,
        relation_id = NULL, relation_remote_id = NULL, raw = NULL, detail_raw = NULL,
        content_hash = decode(repeat('00', 16), 'hex'), pseudonymised_at = now(), changed_at = now()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:detail_error AS text[]),
                {", ".join(f"CAST(:{name} AS text[])" for name in _ALTERED)})
        AS i (id, detail_error, {", ".join(_ALTERED)})
    WHERE v.id = i.id
""")
_LINE_TEXTS = text("""
    SELECT invoice_id, position, description FROM crm.invoice_lines
    WHERE invoice_id = ANY(CAST(:ids AS bigint[])) AND description IS NOT NULL
""")
_LINE_ERASE = text("""
    UPDATE crm.invoice_lines l SET description = :erased
    FROM unnest(CAST(:ids AS bigint[]), CAST(:positions AS integer[])) AS i (invoice_id, position)
    WHERE l.invoice_id = i.invoice_id AND l.position = i.position
""")
_FORGET_VALUES = text("""
    DELETE FROM syncd.changes
    WHERE table_name = 'invoices' AND row_id = ANY(CAST(:ids AS bigint[])) AND kind <> 'insert'
""")
_DROP_FILES = text("DELETE FROM crm.invoice_files WHERE invoice_id = ANY(CAST(:ids AS bigint[])) RETURNING path")
_DROP_FETCHES = text("DELETE FROM syncd.invoice_fetches WHERE invoice_id = ANY(CAST(:ids AS bigint[]))")


@dataclass(frozen=True, slots=True)
class Goal:
    """One erasure under way: its receipt, who stands in, what becomes of invoices, and which texts are the person's."""

    erasure_id: int
    person: Pseudonym
    invoices: Invoices
    mentions: Mentions = field(repr=False)


async def erase_orders(store: Store, goal: Goal, ids: Sequence[int]) -> None:
    """Remove orders with their lines, a few at a time. Raises Busy; what was removed by then stays removed."""
    for start in range(0, len(ids), MOST):
        async with impatient(store) as connection:
            before = await take_turn(connection, goal.erasure_id)
            gone = await _remove(connection, "orders", "order_lines", "order_id", ids[start : start + MOST])
            await count(connection, goal.erasure_id, before, gone)


async def erase_invoices(
    store: Store, goal: Goal, ids: Sequence[int], unshelve: Callable[[Sequence[str]], Awaitable[None]]
) -> None:
    """Remove invoices, or put stand-ins in them, a few at a time. Raises Busy; what was done by then stays done.

    ``unshelve`` hears the places of the files that were forgotten.
    """
    for start in range(0, len(ids), MOST):
        batch = ids[start : start + MOST]
        async with impatient(store) as connection:
            before = await take_turn(connection, goal.erasure_id)
            files = list((await connection.execute(_DROP_FILES, {"ids": list(batch)})).scalars())
            await connection.execute(_DROP_FETCHES, {"ids": list(batch)})
            if goal.invoices is Invoices.REMOVE:
                gone = await _remove(connection, "invoices", "invoice_lines", "invoice_id", batch)
            else:
                gone = await _stand_in(connection, goal, batch)
            await count(connection, goal.erasure_id, before, {**gone, "crm.invoice_files": len(files)})
        await unshelve(files)


async def _remove(connection: Connection, table: str, lines: str, key: str, ids: Sequence[int]) -> Mapping[str, int]:
    values = {"ids": list(ids), "name": table}
    await connection.execute(text(_HOLD.format(table=table)), values)
    counted = (await connection.execute(text(_LINES.format(lines=lines, key=key)), values)).scalar_one()
    changes = (await connection.execute(text(_FORGET.format(table="changes")), values)).rowcount
    conflicts = (await connection.execute(text(_FORGET.format(table="conflicts")), values)).rowcount
    gone = (await connection.execute(text(_DROP.format(table=table)), values)).all()
    await tell(connection, table, "delete", [(row.account_id, row.id, None) for row in gone])
    return {
        f"crm.{table}": len(gone),
        f"crm.{lines}": counted,
        "syncd.changes": changes,
        "syncd.conflicts": conflicts,
    }


async def tell(
    connection: Connection, table: str, kind: str, rows: Sequence[tuple[int, int, Mapping[str, object] | None]]
) -> None:
    """Tell those who follow the history what became of rows (account, id, new values)."""
    if rows:
        values = {
            "name": table,
            "kind": kind,
            "accounts": [account_id for account_id, _, _ in rows],
            "ids": [row_id for _, row_id, _ in rows],
            "afters": [None if after is None else msgspec.json.encode(after).decode() for _, _, after in rows],
        }
        await connection.execute(_TELL, values)


async def _stand_in(connection: Connection, goal: Goal, ids: Sequence[int]) -> Mapping[str, int]:
    rows = [row._asdict() for row in await connection.execute(_READ, {"ids": list(ids)})]
    if not rows:
        return {}
    kept = {"ids": [row["id"] for row in rows]}
    changed = [pseudonymised(row, goal.person, goal.mentions) for row in rows]
    columns = {name: [row[name] for row in changed] for name in (*_ALTERED, "detail_error")}
    await connection.execute(_STAND_IN, {**kept, **columns})
    lines = await _clean_lines(connection, goal, kept["ids"])
    forgotten = (await connection.execute(_FORGET_VALUES, kept)).rowcount
    conflicts = (
        await connection.execute(text(_FORGET.format(table="conflicts")), {**kept, "name": "invoices"})
    ).rowcount
    news = [(new["account_id"], new["id"], _difference(old, new)) for old, new in zip(rows, changed, strict=True)]
    await tell(connection, "invoices", "update", [(int(str(a)), int(str(i)), after) for a, i, after in news])
    return {
        "crm.invoices (stand-ins)": len(rows),
        "crm.invoice_lines (texts)": lines,
        "syncd.changes": forgotten,
        "syncd.conflicts": conflicts,
    }


def _difference(old: Mapping[str, Any], new: Mapping[str, object]) -> Mapping[str, object]:
    return {name: new[name] for name in _ALTERED if new[name] != old[name]}


async def _clean_lines(connection: Connection, goal: Goal, ids: Sequence[int]) -> int:
    found = await connection.execute(_LINE_TEXTS, {"ids": list(ids)})
    named = [(row.invoice_id, row.position) for row in found if goal.mentions.of(row.description)]
    if named:
        invoice_ids, positions = zip(*named, strict=True)
        values = {"erased": ERASED, "ids": list(invoice_ids), "positions": list(positions)}
        await connection.execute(_LINE_ERASE, values)
    return len(named)
