"""Texts: what is of no one in particular and may still speak of the person. What does is replaced whole.

Which columns are looked through is the register's to say (``columns``). The database finds candidates with LIKE, at
the speed of a scan and without a lock; whether a text really mentions the person is decided here, and what was found
is written in small transactions, row by row only where it still is what was read.

In rows of others (their outbox, history, conflicts) only what is the person's beyond doubt counts, and a change that
is not delivered yet is left: what is sent to the CRM is never altered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import text

from syncd.policy.erasure import ERASED, Mentions, patterns
from syncd.store.engine import Connection, Store
from syncd.store.erasure.columns import How, texts
from syncd.store.erasure.ledger import count, take_turn
from syncd.store.erasure.rows import Goal
from syncd.store.erasure.waiting import impatient

MOST = 200
_ROUNDS = 5
_KINDS = text("""
    SELECT format('%s.%s', table_schema, table_name) AS table_name, column_name, data_type
    FROM information_schema.columns WHERE table_schema IN ('crm', 'syncd')
""")
_UNIQUE = {"syncd.incidents.subject"}  # told apart by it: what replaces it must differ too
_THEIR_ROWS = """(row_id = ANY(CAST(:ids AS bigint[])) AND table_name IN
    ('relations', 'relation_tags', 'relation_fields', 'group_members', 'list_subscriptions'))"""
_THEIR_ENTRIES = "SELECT id FROM syncd.entries WHERE relation_id = ANY(CAST(:ids AS bigint[]))"
# Rows that are the person's own go whole, with their relation; of others' outbox only what is settled is touched.
_LEFT_ALONE = {
    "syncd.entries": f"""
        status IN ('pending', 'held', 'dead', 'parked', 'diverged') OR id IN ({_THEIR_ENTRIES})
    """,
    "syncd.attempts": f"entry_id IN ({_THEIR_ENTRIES})",
    "syncd.changes": _THEIR_ROWS,
    "syncd.conflicts": _THEIR_ROWS,
    "syncd.incidents": f"subject IN (SELECT 'entry:' || id FROM ({_THEIR_ENTRIES}) AS e)",
    "syncd.decisions": f"coalesce(entry_id, 0) IN ({_THEIR_ENTRIES})",
}


async def erase_texts(store: Store, goal: Goal, relation_ids: Sequence[int]) -> None:
    """Replace what mentions the person, but in rows that go with their relations.

    Raises Busy; what was replaced by then stays replaced.
    """
    async with store.begin() as connection:
        kinds = {(row.table_name, row.column_name): row.data_type for row in await connection.execute(_KINDS)}
    for table, columns in texts().items():
        for column, how in columns.items():
            if (table, column) in kinds:
                place = _Place(table, column, how, kinds[table, column] == "jsonb")
                await _clean(store, goal, place, relation_ids)


@dataclass(frozen=True, slots=True)
class _Place:
    """One column that may speak of anybody."""

    table: str
    column: str
    how: How
    is_json: bool


async def _clean(store: Store, goal: Goal, place: _Place, relation_ids: Sequence[int]) -> None:
    """Clean one column; rows that moved meanwhile are met in the next round."""
    for _ in range(_ROUNDS):
        async with store.begin() as connection:
            found = await _found(connection, goal.mentions, place, relation_ids)
        news = _news(goal.mentions, found, place)
        if not news:
            return
        for start in range(0, len(news), MOST):
            await _write(store, goal, place, news[start : start + MOST])


async def _found(
    connection: Connection, mentions: Mentions, place: _Place, relation_ids: Sequence[int]
) -> Sequence[tuple[str, str]]:
    """Return where each candidate is, and its text."""
    likely = patterns(mentions.all if place.how is How.TEXT else mentions.sure)
    told = f"CAST({place.column} AS text)"
    finding = text(f"""
        SELECT CAST(ctid AS text), {told} FROM {place.table}
        WHERE lower({told}) LIKE ANY (CAST(:likely AS text[]))
          AND CAST(:ids AS bigint[]) IS NOT NULL AND NOT ({_LEFT_ALONE.get(place.table, "false")})
    """)
    values = {"likely": likely, "ids": list(relation_ids)}
    return [(where, said) for where, said in await connection.execute(finding, values)]


def _news(mentions: Mentions, found: Sequence[tuple[str, str]], place: _Place) -> list[tuple[str, str, str]]:
    """Return place, text and new text of what truly mentions the person."""
    is_surely = place.how is How.OTHERS
    is_unique = f"{place.table}.{place.column}" in _UNIQUE
    news = []
    for where, told in found:
        if place.is_json:
            value = msgspec.json.decode(told)
            cleaned = mentions.cleaned(value, surely=is_surely)
            if cleaned != value:
                news.append((where, told, msgspec.json.encode(cleaned).decode()))
        elif mentions.surely(told) if is_surely else mentions.of(told):
            news.append((where, told, f"{ERASED} {where}" if is_unique else ERASED))
    return news


async def _write(store: Store, goal: Goal, place: _Place, news: Sequence[tuple[str, str, str]]) -> None:
    writing = text(f"""
        UPDATE {place.table} t SET {place.column} = CAST(i.new AS {"jsonb" if place.is_json else "text"})
        FROM unnest(CAST(CAST(:places AS text[]) AS tid[]), CAST(:olds AS text[]), CAST(:news AS text[]))
            AS i (place, old, new)
        WHERE t.ctid = i.place AND CAST(t.{place.column} AS text) = i.old
    """)
    places, olds, new_texts = (list(part) for part in zip(*news, strict=True))
    async with impatient(store) as connection:
        before = await take_turn(connection, goal.erasure_id)
        done = await connection.execute(writing, {"places": places, "olds": olds, "news": new_texts})
        await count(connection, goal.erasure_id, before, {f"{place.table} (texts)": done.rowcount})
