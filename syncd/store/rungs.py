"""When each reach of the cadence ladder was last read and last tried: by the CRM's time, as coverage is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.ladder import Footing
from syncd.store.engine import Connection

_READ = text("""
    SELECT reach_s, read_at, tried_at FROM syncd.rungs WHERE account_id = :account_id AND stream = :stream
""")
_NOTE = """
    INSERT INTO syncd.rungs (account_id, stream, reach_s, {column})
    SELECT :account_id, :stream, reach_s, :now FROM unnest(CAST(:reaches AS float8[])) AS r (reach_s)
    ON CONFLICT (account_id, stream, reach_s) DO UPDATE SET {column} = excluded.{column}
"""
_NOTE_READ, _NOTE_TRIED = text(_NOTE.format(column="read_at")), text(_NOTE.format(column="tried_at"))


async def footings(connection: Connection, account_id: AccountId, stream: str) -> Mapping[float, Footing]:
    """Return where a stream's ladder stands, by reach in seconds; reaches of earlier settings are among them."""
    rows = await connection.execute(_READ, {"account_id": account_id, "stream": stream})
    return {row.reach_s: Footing(row.read_at, row.tried_at) for row in rows}


async def note_tried(connection: Connection, account_id: AccountId, stream: str, reach_s: float, now: datetime) -> None:
    """Note that so much is about to be asked for. Call before the request, in a transaction of its own."""
    await connection.execute(_NOTE_TRIED, _values(account_id, stream, [reach_s], now))


async def note_read(
    connection: Connection, account_id: AccountId, stream: str, reaches: Sequence[float], now: datetime
) -> None:
    """Note that so much was read with proof. Call in the transaction that wrote it."""
    if reaches:
        await connection.execute(_NOTE_READ, _values(account_id, stream, reaches, now))


def _values(account_id: AccountId, stream: str, reaches: Sequence[float], now: datetime) -> dict[str, object]:
    return {"account_id": account_id, "stream": stream, "reaches": list(reaches), "now": now}
