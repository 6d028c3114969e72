"""Kept: what the mirror holds of the CRM's own words, page by page, to be read again.

Rows that the CRM does not show any more, and invoices that hold stand-ins, are left out: nobody says those words now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

_TABLES = {
    "administration": ("accounts", "id = :account_id", "remote_id", "raw"),
    "fields": ("fields", "account_id = :account_id AND missing_since IS NULL", "remote_id", "raw"),
    "tags": ("tags", "account_id = :account_id AND missing_since IS NULL", "remote_id", "raw"),
    "groups": ("groups", "account_id = :account_id AND missing_since IS NULL", "remote_id", "raw"),
    "lists": ("lists", "account_id = :account_id AND missing_since IS NULL", "remote_id", "raw"),
    "relation_details": ("relations", "account_id = :account_id AND missing_since IS NULL", "remote_id", "raw"),
    "orders": ("orders", "account_id = :account_id AND missing_since IS NULL", "remote_id", "raw"),
    "invoices": (
        "invoices",
        "account_id = :account_id AND missing_since IS NULL AND pseudonymised_at IS NULL",
        "number",
        "raw",
    ),
    "invoice_details": (
        "invoices",
        "account_id = :account_id AND missing_since IS NULL AND pseudonymised_at IS NULL AND detail_status = 'done'",
        "number",
        "detail_raw",
    ),
}
STREAMS = tuple(_TABLES)
# What a transaction that only reads again has changed is told as such, whoever wrote it down.
_TELL = text("""
    WITH conflicts AS (UPDATE syncd.conflicts SET run_id = NULL WHERE run_id = 0)
    UPDATE syncd.changes SET origin = 'reproject', run_id = NULL
    WHERE xact = pg_current_xact_id() AND origin = 'remote'
""")
_SEEN_AT = """
    UPDATE crm.{table} SET last_seen_at = :seen_at WHERE id = ANY(CAST(:ids AS bigint[])) AND last_seen_at = now()
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """One row's kept words: our id, by what the CRM knows it, the JSON text, and the digest of how it was read last."""

    id: int
    key: str
    raw: bytes
    content_hash: bytes


async def page(
    connection: Connection, account_id: AccountId, stream: str, *, after: int, most: int, within: Sequence[int] | None
) -> tuple[Kept, ...]:
    """Return the next rows of a stream's table by id; with ``within`` only those, locked until the transaction ends."""
    table, which, key, raw = _TABLES[stream]
    reading = text(f"""
        SELECT id, {key} AS key, CAST({raw} AS text) AS raw, content_hash FROM crm.{table}
        WHERE {which} AND {raw} IS NOT NULL AND content_hash IS NOT NULL AND {key} IS NOT NULL AND id > :after
          AND (CAST(:within AS bigint[]) IS NULL OR id = ANY(CAST(:within AS bigint[])))
        ORDER BY id LIMIT :most {"" if within is None else "FOR NO KEY UPDATE SKIP LOCKED"}
    """)
    values = {
        "account_id": account_id,
        "after": after,
        "most": most,
        "within": None if within is None else list(within),
    }
    rows = await connection.execute(reading, values)
    return tuple(Kept(row.id, row.key, row.raw.encode(), bytes(row.content_hash)) for row in rows)


async def count(connection: Connection, account_id: AccountId, stream: str) -> int:
    """Return how many rows there are to be read again."""
    table, which, _, raw = _TABLES[stream]
    counting = text(f"SELECT count(*) FROM crm.{table} WHERE {which} AND {raw} IS NOT NULL")
    return int((await connection.execute(counting, {"account_id": account_id})).scalar_one())


async def tell_origin(connection: Connection) -> None:
    """Let the history say of all that this transaction changed that it was read again, by no run."""
    await connection.execute(_TELL)


async def note_seen(connection: Connection, table: str, ids: Sequence[int], seen_at: object) -> None:
    """Date rows that were just written back to when the CRM showed them: an answer from after that knows better."""
    if ids:
        await connection.execute(text(_SEEN_AT.format(table=table)), {"ids": list(ids), "seen_at": seen_at})
