"""The person: who bears an address, what is held of them, and by which values texts about them are known.

Nothing is changed here. A person is the relations that have the address now, whatever its letter case, with the orders
and invoices that are linked to them, or bear an address of theirs and are linked to nobody. Former addresses of the
relations count too, unless somebody else has them now. Another relation whose orders or invoices bear the address is
not erased but named: only a person can tell whether it is the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.policy.erasure import Kind, Mentions, normal
from syncd.store.engine import Connection

_BEARERS = text("""
    SELECT r.id AS relation_id, r.account_id, a.name AS account, r.remote_id, r.email, r.first_name, r.suffix,
           r.last_name, CAST(r.raw AS text) AS raw
    FROM crm.relations r JOIN crm.accounts a ON a.id = r.account_id
    WHERE r.account_id = ANY(CAST(:accounts AS bigint[])) AND lower(r.email) = ANY(CAST(:spelled AS text[]))
    ORDER BY a.name, r.id
""")
# What is linked to somebody else is theirs, whatever address it bears: a billing address may be many people's.
_THEIRS = """(t.relation_id = ANY(CAST(:ids AS bigint[]))
              OR t.relation_id IS NULL AND lower(t.relation_email) = ANY(CAST(:spelled AS text[])))"""
_ORDERS = text(f"""
    SELECT t.id, t.account_id, t.relation_id, t.relation_remote_id, t.relation_email, t.relation_name
    FROM crm.orders t WHERE t.account_id = ANY(CAST(:accounts AS bigint[])) AND {_THEIRS} ORDER BY t.id
""")
_INVOICES = text(f"""
    SELECT t.id, t.account_id, t.number, t.is_credit, t.relation_id, t.relation_remote_id, t.relation_email,
           t.full_name, t.address, t.postal_code, t.city, t.pseudonymised_at IS NOT NULL AS has_stand_ins,
           f.path
    FROM crm.invoices t LEFT JOIN crm.invoice_files f ON f.invoice_id = t.id
    WHERE t.account_id = ANY(CAST(:accounts AS bigint[])) AND {_THEIRS} ORDER BY t.id
""")
_FIELDS = text("""
    SELECT v.value FROM crm.relation_fields v JOIN crm.fields f ON f.id = v.field_id
    WHERE v.relation_id = ANY(CAST(:ids AS bigint[])) AND v.value <> '' AND f.type IS DISTINCT FROM 'boolean'
      AND NOT v.value = ANY (f.options)
""")
# What the person was called before, as history and outbox tell it.
_FORMER = text("""
    SELECT CAST(c.before AS text) AS told FROM syncd.changes c
    WHERE c.row_id = ANY(CAST(:ids AS bigint[])) AND c.table_name IN ('relations', 'relation_fields')
    UNION ALL
    SELECT CAST(c.after AS text) FROM syncd.changes c
    WHERE c.row_id = ANY(CAST(:ids AS bigint[])) AND c.table_name IN ('relations', 'relation_fields')
    UNION ALL
    SELECT CAST(e.payload AS text) FROM syncd.lanes l JOIN syncd.entries e ON e.lane_id = l.id
    WHERE l.relation_id = ANY(CAST(:ids AS bigint[]))
      AND e.operation IN ('create_relation', 'change_email', 'update_profile', 'set_field')
    UNION ALL
    SELECT CAST(syncd.payload_of(c.operation, c.facet, c.payload, c.before, c.after) AS text) FROM syncd.captures c
    WHERE c.relation_id = ANY(CAST(:ids AS bigint[]))
      AND c.operation IN ('create_relation', 'change_email', 'update_profile', 'set_field')
""")
# Former addresses of the relation itself; what a free field or an invoice says is perhaps somebody else's.
_FORMER_ADDRESSES = text("""
    SELECT told FROM syncd.changes c, unnest(ARRAY[c.before ->> 'email', c.after ->> 'email']) AS told
    WHERE c.row_id = ANY(CAST(:ids AS bigint[])) AND c.table_name = 'relations'
    UNION
    SELECT told FROM syncd.lanes l JOIN syncd.entries e ON e.lane_id = l.id,
        unnest(ARRAY[e.payload ->> 'email', e.payload ->> 'old', e.payload ->> 'new']) AS told
    WHERE l.relation_id = ANY(CAST(:ids AS bigint[])) AND e.operation IN ('create_relation', 'change_email')
    UNION
    SELECT told FROM syncd.captures c,
        unnest(ARRAY[c.payload ->> 'email', c.payload ->> 'old', c.payload ->> 'new']) AS told
    WHERE c.relation_id = ANY(CAST(:ids AS bigint[])) AND c.operation IN ('create_relation', 'change_email')
""")
_ELSEWHERE = text("""
    SELECT DISTINCT a.name, r.remote_id FROM crm.relations r JOIN crm.accounts a ON a.id = r.account_id
    WHERE r.account_id = ANY(CAST(:accounts AS bigint[])) AND NOT r.id = ANY(CAST(:ids AS bigint[])) AND r.id IN (
        SELECT relation_id FROM crm.orders WHERE lower(relation_email) = ANY(CAST(:spelled AS text[]))
        UNION SELECT relation_id FROM crm.invoices WHERE lower(relation_email) = ANY(CAST(:spelled AS text[])))
    ORDER BY 1, 2
""")
_TAKEN = text("""
    SELECT lower(email) FROM crm.relations
    WHERE account_id = ANY(CAST(:accounts AS bigint[])) AND lower(email) = ANY(CAST(:spelled AS text[]))
      AND NOT id = ANY(CAST(:ids AS bigint[]))
""")
_UNDELIVERED = text("""
    SELECT a.name AS account, e.id AS entry_id, e.operation, e.status, e.captured_at
    FROM syncd.lanes l JOIN syncd.entries e ON e.lane_id = l.id JOIN crm.accounts a ON a.id = l.account_id
    WHERE l.relation_id = ANY(CAST(:ids AS bigint[]))
      AND e.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
    UNION ALL
    SELECT a.name, NULL, c.operation, 'captured', c.captured_at
    FROM syncd.captures c JOIN crm.accounts a ON a.id = c.account_id
    WHERE c.relation_id = ANY(CAST(:ids AS bigint[]))
    ORDER BY captured_at
""")
_COUNTS = text("""
    SELECT (SELECT count(*) FROM crm.relation_tags WHERE relation_id = ANY(CAST(:ids AS bigint[]))) AS relation_tags,
           (SELECT count(*) FROM crm.relation_fields WHERE relation_id = ANY(CAST(:ids AS bigint[])))
               AS relation_fields,
           (SELECT count(*) FROM crm.group_members WHERE relation_id = ANY(CAST(:ids AS bigint[]))) AS group_members,
           (SELECT count(*) FROM crm.list_subscriptions WHERE relation_id = ANY(CAST(:ids AS bigint[])))
               AS list_subscriptions,
           (SELECT count(*) FROM syncd.entries e JOIN syncd.lanes l ON l.id = e.lane_id
            WHERE l.relation_id = ANY(CAST(:ids AS bigint[]))) AS entries,
           (SELECT count(*) FROM syncd.captures WHERE relation_id = ANY(CAST(:ids AS bigint[]))) AS captures,
           (SELECT count(*) FROM syncd.changes WHERE row_id = ANY(CAST(:ids AS bigint[])) AND table_name IN
               ('relations', 'relation_tags', 'relation_fields', 'group_members', 'list_subscriptions')) AS changes
""")
_IN_HAND = text("""
    SELECT EXISTS (SELECT FROM syncd.lanes WHERE relation_id = ANY(CAST(:ids AS bigint[]))
                   AND claimed_by IS NOT NULL AND ready_at > clock_timestamp())
""")
# Keys of a relation's JSON whose values say nothing of one person.
_DULL = frozenset({"gender", "type", "customer", "funnel_state", "funnelstate", "funnel", "status", "country"})


@dataclass(frozen=True, slots=True)
class Bearer:
    """A relation that has the address. ``remote_id`` is None until the CRM gave one."""

    account: str
    account_id: int
    relation_id: int
    remote_id: str | None


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A local change that the CRM does not have: by kind and state, without its value. No entry while just captured."""

    account: str
    entry_id: int | None
    operation: str
    status: str
    captured_at: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """All that is held of a person. ``known`` are addresses and CRM ids with their account; ``mentions`` finds texts.

    ``elsewhere`` are the CRM's ids of relations with another address now, whose orders or invoices bear this one.
    """

    bearers: tuple[Bearer, ...]
    orders: tuple[int, ...]
    invoices: tuple[int, ...]
    numbers: tuple[tuple[int, Kind, str], ...] = field(repr=False)
    files: tuple[str, ...]
    known: tuple[tuple[int, Kind, str], ...] = field(repr=False)
    mentions: Mentions = field(repr=False)
    undelivered: tuple[Undelivered, ...]
    elsewhere: tuple[tuple[str, str], ...]
    held: Mapping[str, int]

    @property
    def is_known(self) -> bool:
        return bool(self.bearers or self.orders or self.invoices)

    @property
    def relation_ids(self) -> list[int]:
        return [bearer.relation_id for bearer in self.bearers]


async def survey(connection: Connection, email: str, accounts: Mapping[int, str]) -> Person:
    """Return what these accounts (names by id) hold of whoever bears this address."""
    spelled = _spelled([email])
    found = (await connection.execute(_BEARERS, {"accounts": list(accounts), "spelled": spelled})).all()
    ids = [row.relation_id for row in found]
    former = [row.told for row in await connection.execute(_FORMER, {"ids": ids}) if row.told]
    told = [leaf for text_ in former for leaf in _leaves(msgspec.json.decode(text_))]
    scope = {"accounts": list(accounts), "ids": ids}
    old_addresses = (await connection.execute(_FORMER_ADDRESSES, {"ids": ids})).scalars()
    addresses = await _own(connection, scope, [email, *(row.email for row in found), *old_addresses])
    spelled = _spelled(addresses)
    orders = (await connection.execute(_ORDERS, {**scope, "spelled": spelled})).all()
    invoices = (await connection.execute(_INVOICES, {**scope, "spelled": spelled})).all()
    elsewhere = (await connection.execute(_ELSEWHERE, {**scope, "spelled": spelled})).all()
    fields = list((await connection.execute(_FIELDS, {"ids": ids})).scalars())
    undelivered = [Undelivered(**row) for row in (await connection.execute(_UNDELIVERED, {"ids": ids})).mappings()]
    held = dict((await connection.execute(_COUNTS, {"ids": ids})).one()._mapping)
    names = [name for row in found for name in _names(row.first_name, row.suffix, row.last_name)]
    names += [row.relation_name for row in orders if row.relation_name]
    named = [row for row in invoices if not row.has_stand_ins]
    names += [row.full_name for row in named if row.full_name]
    values = [value for row in named for value in (row.address, row.postal_code, row.city) if value]
    values += [*fields, *told, *(leaf for row in found if row.raw for leaf in _leaves(msgspec.json.decode(row.raw)))]
    return Person(
        bearers=tuple(Bearer(row.account, row.account_id, row.relation_id, row.remote_id) for row in found),
        orders=tuple(row.id for row in orders),
        invoices=tuple(row.id for row in invoices),
        numbers=tuple((row.account_id, Kind.INVOICE, _number(row)) for row in invoices),
        files=tuple(row.path for row in invoices if row.path),
        known=_known(accounts, addresses, found, [*orders, *invoices]),
        mentions=Mentions(tuple(addresses), tuple(names), tuple(values)),
        undelivered=tuple(undelivered),
        elsewhere=tuple((account, remote_id or "?") for account, remote_id in elsewhere),
        held={name: count for name, count in held.items() if count},
    )


async def is_in_hand(connection: Connection, relation_ids: Sequence[int]) -> bool:
    """Tell whether a change of one of these relations is being sent at this moment."""
    return bool((await connection.execute(_IN_HAND, {"ids": list(relation_ids)})).scalar_one())


def _spelled(addresses: Iterable[str]) -> list[str]:
    """Return the spellings under which SQL may know an address in lower case: it may lower ASCII alone."""
    spelled: dict[str, None] = {}
    for address in addresses:
        plain = address.strip()
        ascii_only = "".join(sign.lower() if sign.isascii() else sign for sign in plain)
        spelled |= dict.fromkeys((normal(address), plain.lower(), ascii_only))
    return list(spelled)


async def _own(connection: Connection, scope: dict[str, list[int]], told: Sequence[object]) -> list[str]:
    """Return the addresses among what was told, without those that somebody else has now; the first is the person's."""
    addresses = {normal(each): each for each in told if isinstance(each, str) and _is_address(each)}
    first = next(iter(addresses), None)
    values = {**scope, "spelled": _spelled(addresses.values())}
    taken = {normal(each) for each in (await connection.execute(_TAKEN, values)).scalars()}
    return [address for key, address in addresses.items() if key == first or key not in taken]


def _is_address(told: str) -> bool:
    return told.count("@") == 1 and not any(sign.isspace() for sign in told.strip())


def _names(first: str | None, suffix: str | None, last: str | None) -> list[str]:
    parts = [part for part in (first, suffix, last) if part]
    return [*(name for name in (first, last) if name), " ".join(parts), " ".join(p for p in (first, last) if p)]


def _leaves(value: object, key: str = "") -> list[str]:
    match value:
        case str():
            return [value] if value and key.lower().removeprefix("relation_") not in _DULL else []
        case dict():
            return [leaf for name, item in value.items() for leaf in _leaves(item, str(name))]
        case list():
            return [leaf for item in value for leaf in _leaves(item, key)]
        case _:
            return []


def _number(row: Any) -> str:
    return f"{row.number}\0{'credit' if row.is_credit else 'invoice'}"


def _known(
    accounts: Iterable[int], addresses: Sequence[str], bearers: Iterable[Any], named: Iterable[Any]
) -> tuple[tuple[int, Kind, str], ...]:
    """Return by what the person is known: addresses, and the CRM's ids of relations that are here or are only named."""
    emails = [(account_id, Kind.EMAIL, address) for account_id in accounts for address in addresses]
    bound = [(row.account_id, Kind.REMOTE_ID, row.remote_id) for row in bearers if row.remote_id]
    told = [(row.account_id, Kind.REMOTE_ID, row.relation_remote_id) for row in named if row.relation_remote_id]
    return tuple(dict.fromkeys((*emails, *bound, *told)))
