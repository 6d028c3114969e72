"""Finding what is to be explained: a relation by address or number, and the facets that an account has names for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.log import redact_record
from syncd.policy.facet_choice import NamedFacet
from syncd.store.engine import Connection
from syncd.store.outbox_leaving import LEAVES

_MOST_ID = 2**63 - 1
_CANDIDATES = 5000
_LIKE = 0.6


@dataclass(frozen=True, slots=True)
class RelationFound:
    """One relation of the mirror as it is now. ``answer`` is the JSON text that the CRM last told it with, without
    secrets."""

    id: int
    account_id: AccountId
    account: str
    remote_id: str | None
    email: str | None
    first_name: str | None
    suffix: str | None
    last_name: str | None
    gender: str | None
    type: str | None
    customer: str | None
    funnel_state: str | None
    answer: str | None
    first_seen_at: datetime
    last_seen_at: datetime
    changed_at: datetime
    missing_since: datetime | None


_COLUMNS = """
    SELECT r.id, r.account_id, a.name AS account, r.remote_id, r.email, r.first_name, r.suffix, r.last_name, r.gender,
           r.type, r.customer, r.funnel_state, CAST(r.raw AS text) AS answer, r.first_seen_at, r.last_seen_at,
           r.changed_at, r.missing_since
"""
_SELECT = f"""
    {_COLUMNS}
    FROM crm.accounts a JOIN crm.relations r ON r.account_id = a.id
    WHERE (CAST(:account AS text) IS NULL OR a.name = :account) AND {{which}}
    ORDER BY r.missing_since NULLS FIRST, r.id LIMIT 20
"""
_BY_EMAIL = text(_SELECT.format(which="lower(r.email) = lower(:key)"))
_BY_ID = text(_SELECT.format(which="r.id = :id"))
_BY_REMOTE_ID = text(_SELECT.format(which="r.remote_id = :key"))

# Read only when nothing was found, so these two may look through a table: who left the address by a change that is not
# delivered is found by index, who left it before in the history of relations.
_BY_FORMER_ADDRESS = text(
    f"""
    {_COLUMNS}
    FROM crm.accounts a
    CROSS JOIN LATERAL (
        SELECT relation_id FROM syncd.entries
        WHERE {LEAVES} AND account_id = a.id AND lower(payload ->> 'old') = lower(:key)
        UNION
        SELECT relation_id FROM syncd.captures c
        WHERE c.account_id = a.id AND c.operation = 'change_email' AND lower(c.payload ->> 'old') = lower(:key)
        UNION
        SELECT row_id FROM syncd.changes c
        WHERE c.account_id = a.id AND c.table_name = 'relations' AND lower(c.before ->> 'email') = lower(:key)
    ) AS left_it
    JOIN crm.relations r ON r.id = left_it.relation_id
    WHERE (CAST(:account AS text) IS NULL OR a.name = :account)
    ORDER BY r.missing_since NULLS FIRST, r.id LIMIT 20
    """
)
_ALIKE = text(
    """
    SELECT lower(r.email) FROM crm.relations r JOIN crm.accounts a ON a.id = r.account_id
    WHERE (CAST(:account AS text) IS NULL OR a.name = :account) AND r.email IS NOT NULL
      AND (lower(r.email) LIKE :start || '%' OR split_part(lower(r.email), '@', 2) = :domain)
    ORDER BY (lower(r.email) LIKE :start || '%') DESC, r.id LIMIT :most
    """
)

_NAMED = text(
    """
    SELECT 'tag' AS kind, id, name, ARRAY[remote_id] AS others FROM crm.tags WHERE account_id = :account_id
    UNION ALL SELECT 'field', id, name, ARRAY[code, remote_id] FROM crm.fields WHERE account_id = :account_id
    UNION ALL SELECT 'group', id, title, ARRAY[remote_id] FROM crm.groups WHERE account_id = :account_id
    UNION ALL SELECT 'list', id, name, ARRAY[code, remote_id] FROM crm.lists WHERE account_id = :account_id
    ORDER BY kind, id
    """
)

_ENTRY = text("SELECT relation_id, account_id, facet FROM syncd.entries WHERE id = :entry_id")


async def find_relations(connection: Connection, key: str, account: str | None) -> tuple[RelationFound, ...]:
    """Return the relations that an address, a local id or a remote id may mean; ``id:`` and ``remote:`` leave no doubt.

    A bare number is a local id if there is one, else a remote id.
    """
    kind, colon, rest = key.partition(":")
    if colon and kind == "remote":
        return await _rows(connection, "remote", rest, account)
    if colon and kind == "id":
        return await _rows(connection, "id", rest, account)
    if "@" in key:
        return await _rows(connection, "email", key, account)
    return await _rows(connection, "id", key, account) or await _rows(connection, "remote", key, account)


async def find_by_former_address(
    connection: Connection, address: str, account: str | None
) -> tuple[RelationFound, ...]:
    """Return the relations that had an address before, as far as the outbox and the history are kept. They may have it
    again: ask only when nobody is found by it."""
    binds = {"account": account, "key": address}
    return _without_secrets((await connection.execute(_BY_FORMER_ADDRESS, binds)).mappings())


async def near_addresses(connection: Connection, key: str, account: str | None) -> tuple[str, ...]:
    """Return up to three addresses of the mirror that look like one that is not there: alike before the @."""
    wanted = key.strip().lower()
    start = wanted[:2].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    binds = {"account": account, "start": start, "domain": wanted.partition("@")[2], "most": _CANDIDATES}
    known: dict[str, list[str]] = {}
    for address in (await connection.execute(_ALIKE, binds)).scalars():
        known.setdefault(address.partition("@")[0], []).append(address)
    close = get_close_matches(wanted.partition("@")[0], known, n=3, cutoff=_LIKE)
    return tuple(dict.fromkeys(address for name in close for address in known[name]))[:3]


async def named_facets(connection: Connection, account_id: AccountId) -> tuple[NamedFacet, ...]:
    """Return every tag, field, group and list of an account with its names."""
    rows = await connection.execute(_NAMED, {"account_id": account_id})
    return tuple(
        NamedFacet(row.kind, row.id, row.name, tuple(other for other in row.others if other is not None))
        for row in rows
    )


async def find_entry(connection: Connection, entry_id: int) -> tuple[int | None, AccountId, str] | None:
    """Return relation, account and facet of an entry; None when there is none."""
    row = (await connection.execute(_ENTRY, {"entry_id": entry_id})).one_or_none()
    return None if row is None else (row.relation_id, AccountId(row.account_id), row.facet)


async def _rows(connection: Connection, by: str, key: str, account: str | None) -> tuple[RelationFound, ...]:
    binds: dict[str, object] = {"account": account, "key": key}
    statement = {"email": _BY_EMAIL, "remote": _BY_REMOTE_ID, "id": _BY_ID}[by]
    if by == "id":
        if not (key.isascii() and key.isdigit() and int(key) <= _MOST_ID):
            return ()
        binds = {"account": account, "id": int(key)}
    return _without_secrets((await connection.execute(statement, binds)).mappings())


def _without_secrets(rows: Iterable[Mapping[Any, Any]]) -> tuple[RelationFound, ...]:
    """Return the relations of some rows: however one was found, nobody is shown what its record must not tell."""
    return tuple(RelationFound(**{**row, "answer": row["answer"] and redact_record(row["answer"])}) for row in rows)
