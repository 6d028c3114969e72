"""Kept records: what could not be read, or showed that something is odd, of the person.

An unread record goes whole where it is the person's beyond doubt: by address, by the CRM's id, by who was asked for.
It is never cleaned: a cleaned one would be read some day as if the CRM had said so. A record that shows an oddity is a
sample of no use to anybody else, and goes at the first mention.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import text

from syncd.policy.erasure import Kind, Mentions, patterns
from syncd.store.engine import Connection, Store
from syncd.store.erasure.ledger import count, take_turn
from syncd.store.erasure.person import Person
from syncd.store.erasure.rows import Goal
from syncd.store.erasure.waiting import impatient
from syncd.store.unread import named_in

TABLES = frozenset({"syncd.unread", "syncd.shapes"})
_UNREAD = text("""
    SELECT id, account_id, raw, stream LIKE 'relation\\_%' AND parent_id = ANY(CAST(:ids AS bigint[])) AS is_theirs
    FROM syncd.unread
""")
_FORGET = text("DELETE FROM syncd.unread WHERE id = ANY(CAST(:ids AS bigint[]))")
_RECORDS = text("""
    SELECT account_id, stream, key, record FROM syncd.shapes
    WHERE lower(record) LIKE ANY (CAST(:likely AS text[]))
""")
_CLEAR = text("""
    UPDATE syncd.shapes SET record = NULL WHERE account_id = :account_id AND stream = :stream AND key = :key
""")


async def erase_kept(store: Store, goal: Goal, person: Person) -> None:
    """Remove the records of a person that are kept for later. Raises Busy; what was removed by then stays removed."""
    async with impatient(store) as connection:
        before = await take_turn(connection, goal.erasure_id)
        unread = await _theirs(connection, goal.mentions, person)
        if unread:
            await connection.execute(_FORGET, {"ids": unread})
        records = await _clear_records(connection, goal)
        gone = {"syncd.unread": len(unread), "syncd.shapes (records)": records}
        await count(connection, goal.erasure_id, before, gone)


async def is_kept(connection: Connection, person: Person) -> bool:
    """Tell whether a record of a person is kept unread, who may be known by nothing else."""
    return bool(await _theirs(connection, person.mentions, person))


async def _theirs(connection: Connection, mentions: Mentions, person: Person) -> Sequence[int]:
    ids = {(account_id, value) for account_id, kind, value in person.known if kind is Kind.REMOTE_ID}
    rows = await connection.execute(_UNREAD, {"ids": person.relation_ids})
    return [row.id for row in rows if row.is_theirs or _is_theirs(mentions, row.account_id, row.raw, ids)]


def _is_theirs(mentions: Mentions, account_id: int, raw: str, ids: Collection[tuple[int, str]]) -> bool:
    words, named = named_in(raw.encode())
    return any((account_id, one) in ids for one in named) or any(mentions.surely(word) for word in words)


async def _clear_records(connection: Connection, goal: Goal) -> int:
    found = (await connection.execute(_RECORDS, {"likely": patterns(goal.mentions.all)})).all()
    told = [row for row in found if goal.mentions.cleaned(value := msgspec.json.decode(row.record)) != value]
    for row in told:
        await connection.execute(_CLEAR, {"account_id": row.account_id, "stream": row.stream, "key": row.key})
    return len(told)
