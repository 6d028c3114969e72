"""Unread: records of the CRM that could not be read, kept whole until they can be.

They are written in the transaction that proves their window, so a proof means: all that the CRM showed of that time is
here, in the mirror or among these. A hole instead would be asked for again for ever, bring the same text each time, and
keep its neighbours from being proven. What is here leaves in one of three ways: it is read (``syncd reproject``), a
later answer shows the record readable or not at all where it must be, or its person is erased.

A person who was erased is kept out of here, too: a record that names them by address or id is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.domain.records import Refused
from syncd.store.engine import Connection
from syncd.store.mirror.normal import seal
from syncd.store.mirror.scope import Scope
from syncd.store.suppression import Suppressed, suppressed

_ROWS = """
    unnest(CAST(:keys AS text[]), CAST(:raws AS text[]), CAST(:digests AS bytea[]), CAST(:reasons AS text[]))
        AS i (remote_id, raw, digest, reason)
"""
_KEEP = text(f"""
    INSERT INTO syncd.unread AS u (account_id, stream, parent_id, remote_id, raw, digest, reason)
    SELECT DISTINCT ON (i.digest) CAST(:account_id AS bigint), CAST(:stream AS text), CAST(:parent_id AS bigint),
           i.remote_id, i.raw, i.digest, i.reason
    FROM {_ROWS}
    ON CONFLICT (account_id, stream, parent_id, digest) DO UPDATE SET last_seen_at = now(), reason = excluded.reason
    WHERE u.last_seen_at < :touch_before
""")
_DROP_OTHERS = text("""
    DELETE FROM syncd.unread
    WHERE account_id = :account_id AND stream = :stream AND parent_id = :parent_id
      AND NOT digest = ANY(CAST(:digests AS bytea[]))
""")
_WAITING = """
    SELECT u.id, m.id AS row_id FROM syncd.unread u
    JOIN crm.{table} m ON m.account_id = u.account_id AND m.{key} = u.remote_id
    WHERE u.account_id = :account_id AND u.stream = ANY(CAST(:streams AS text[]))
      AND NOT u.digest = ANY(CAST(:digests AS bytea[]))
"""
_PARENTS = text("""
    SELECT DISTINCT parent_id FROM syncd.unread
    WHERE account_id = :account_id AND stream = :stream AND parent_id = ANY(CAST(:parents AS bigint[]))
""")
_FORGET = text("DELETE FROM syncd.unread WHERE id = ANY(CAST(:ids AS bigint[]))")
_READ = text("""
    SELECT id, stream, parent_id, remote_id, raw, last_seen_at FROM syncd.unread
    WHERE account_id = :account_id AND stream = :stream AND id > :after ORDER BY id LIMIT :most
""")
_REASON = text("UPDATE syncd.unread SET reason = :reason WHERE id = :id AND reason <> :reason")
_COUNT = text("""
    SELECT a.name AS account, u.stream, count(*) AS records, min(u.first_seen_at) AS since,
           (array_agg(u.reason ORDER BY u.id))[1] AS reason
    FROM syncd.unread u JOIN crm.accounts a ON a.id = u.account_id
    GROUP BY a.name, u.stream ORDER BY a.name, u.stream
""")
_PERSONAL = frozenset({"email", "firstName", "lastName"})
_IDS = frozenset({"relationid", "relation_id"})
_STREAMS = {"orders": ("orders", "relation_orders"), "invoices": ("invoices",)}


@dataclass(frozen=True, slots=True)
class UnreadCount:
    """How many records of a stream wait to be read, since when, and why the oldest of them does."""

    account: str
    stream: str
    records: int
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """One record that waits. ``last_seen_at`` is when the CRM showed it last: it speaks for that time."""

    id: int
    stream: str
    parent_id: int
    remote_id: str | None
    raw: str
    last_seen_at: datetime


async def keep(
    connection: Connection, scope: Scope, stream: str, refused: Sequence[Refused], *, parent_id: int = 0
) -> None:
    """Keep records that could not be read; those that are kept already are noted as seen once a day."""
    if not refused:
        return
    hidden = await suppressed(connection, scope.account_id)
    kept = [one for one in refused if not is_hidden(hidden, one.raw)]
    values = {
        "keys": [one.key for one in kept],
        "raws": [one.raw.decode() for one in kept],
        "digests": digests(kept),
        "reasons": [one.reason for one in kept],
    }
    given = {"account_id": scope.account_id, "stream": stream, "parent_id": parent_id}
    await connection.execute(_KEEP, {**given, **values, "touch_before": scope.touch_before})


async def keep_only(
    connection: Connection, scope: Scope, stream: str, refused: Sequence[Refused], *, parent_id: int = 0
) -> None:
    """Keep what a whole answer held that could not be read, and forget what it does not hold any more."""
    given = {"account_id": scope.account_id, "stream": stream, "parent_id": parent_id}
    await connection.execute(_DROP_OTHERS, {**given, "digests": digests(refused)})
    await keep(connection, scope, stream, refused, parent_id=parent_id)


async def keep_of_parents(
    connection: Connection, scope: Scope, stream: str, refused: Mapping[int, Sequence[Refused]]
) -> None:
    """Do so for the parents that a sweep has asked for: what is kept of one is what its last answer held."""
    given = {"account_id": scope.account_id, "stream": stream, "parents": list(refused)}
    kept = set((await connection.execute(_PARENTS, given)).scalars())
    for parent_id, records in refused.items():
        if records or parent_id in kept:
            await keep_only(connection, scope, stream, records, parent_id=parent_id)


async def forget_shown(
    connection: Connection, scope: Scope, table: str, shown: Iterable[int], digests: Sequence[bytes]
) -> None:
    """Forget orders or invoices that an answer has shown readable, by our ids; ``digests`` are those of what it showed
    unread."""
    finding = text(_WAITING.format(table=table, key="number" if table == "invoices" else "remote_id"))
    values = {"account_id": scope.account_id, "streams": list(_STREAMS[table]), "digests": list(digests)}
    found = {row.row_id: row.id for row in await connection.execute(finding, values)}
    if found:
        await forget(connection, [found[row_id] for row_id in set(shown) & found.keys()])


async def mirrored(connection: Connection, scope: Scope, table: str, keys: Sequence[str]) -> list[int]:
    """Return our ids of the orders or invoices that are mirrored under these keys: shown, though not readably."""
    if not keys:
        return []
    key = "number" if table == "invoices" else "remote_id"
    finding = text(f"SELECT id FROM crm.{table} WHERE account_id = :account_id AND {key} = ANY(CAST(:keys AS text[]))")
    values = {"account_id": scope.account_id, "keys": list(keys)}
    return list((await connection.execute(finding, values)).scalars())


async def forget(connection: Connection, ids: Sequence[int]) -> None:
    """Forget records that have been read."""
    if ids:
        await connection.execute(_FORGET, {"ids": list(ids)})


async def waiting(
    connection: Connection, account_id: AccountId, stream: str, *, after: int = 0, most: int = 500
) -> tuple[Waiting, ...]:
    """Return records of a stream that wait, by number."""
    values = {"account_id": account_id, "stream": stream, "after": after, "most": most}
    return tuple(Waiting(**row) for row in (await connection.execute(_READ, values)).mappings())


async def note_reason(connection: Connection, unread_id: int, reason: str) -> None:
    """Note why a record can still not be read."""
    await connection.execute(_REASON, {"id": unread_id, "reason": reason})


async def count_unread(connection: Connection) -> tuple[UnreadCount, ...]:
    """Count what waits to be read, by account and stream."""
    return tuple(UnreadCount(**row) for row in (await connection.execute(_COUNT)).mappings())


def digests(refused: Sequence[Refused]) -> list[bytes]:
    """Return by what the texts of records are known again."""
    return [seal(one.raw) for one in refused]


def is_hidden(hidden: Suppressed | None, raw: bytes) -> bool:
    """Tell whether a JSON text names an erased person by address or by the CRM's id, wherever it stands in it."""
    if hidden is None:
        return False
    words, ids = named_in(raw)
    return any(hidden.relation(None, word) for word in words if "@" in word) or any(
        hidden.relation(one, None) for one in ids
    )


def named_in(raw: bytes) -> tuple[list[str], list[str]]:
    """Return the texts of a record, and the CRM's ids of relations in it."""
    words: list[str] = []
    ids: list[str] = []
    try:
        _gather(msgspec.json.decode(raw), words, ids)
    except (msgspec.DecodeError, ValueError, RecursionError):
        words += raw.decode(errors="replace").split('"')
    return words, ids


def _gather(value: object, words: list[str], ids: list[str]) -> None:
    match value:
        case str():
            words.append(value)
            if value[:1] in ("{", "["):  # the beginning of an answer, kept as a text
                words.extend(value.split('"'))
        case dict():
            is_person = not _PERSONAL.isdisjoint(value)
            for key, item in value.items():
                if key.lower() in _IDS or (is_person and key == "id"):
                    ids.append(str(item))
                _gather(item, words, ids)
        case list():
            for item in value:
                _gather(item, words, ids)
