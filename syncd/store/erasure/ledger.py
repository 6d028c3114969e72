"""The ledger: receipts and hashes. What is here tells that somebody was erased, when and by whom; never who."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.domain.errors import InfrastructureError
from syncd.policy.erasure import Hasher, Invoices, Kind
from syncd.store.engine import Connection
from syncd.store.suppression import read_hasher

# Two first erasures at once: the second waits here, then finds the salt.
_SALT = text("INSERT INTO syncd.erasure_keys (id) VALUES (1) ON CONFLICT (id) DO NOTHING")
_READ_SALT = text("SELECT salt FROM syncd.erasure_keys FOR UPDATE")
_PROVE = text("UPDATE syncd.erasure_keys SET proof = :proof WHERE proof IS NULL")
_FIND = text("""
    SELECT id FROM syncd.erasures
    WHERE hash = :hash AND account_id IS NOT DISTINCT FROM CAST(:account_id AS bigint)
      AND readmitted_at IS NULL AND (finished_at IS NULL OR CAST(:also_finished AS boolean))
    ORDER BY id DESC LIMIT 1
""")
_OPEN = text("""
    INSERT INTO syncd.erasures (hash, account_id, invoices, actor, by_hand)
    VALUES (:hash, :account_id, :invoices, :actor, CAST(CAST(:by_hand AS text) AS jsonb)) RETURNING id
""")
_SUPPRESS = text("""
    INSERT INTO syncd.suppressions (erasure_id, account_id, kind, hash)
    SELECT :erasure_id, i.account_id, i.kind, i.hash
    FROM unnest(CAST(:accounts AS bigint[]), CAST(:kinds AS text[]), CAST(:hashes AS bytea[]))
        AS i (account_id, kind, hash)
    WHERE NOT EXISTS (SELECT FROM syncd.suppressions s
                      WHERE s.erasure_id = :erasure_id AND s.hash = i.hash AND s.kind = i.kind
                        AND s.account_id IS NOT DISTINCT FROM i.account_id)
""")
# Locks the one row until the end: two changes of the hashes are never one version.
_MOVE = text("UPDATE syncd.erasure_keys SET version = version + 1")
# Waiting here is how two erasures of one person take turns.
_COUNTS = text("SELECT CAST(counts AS text) FROM syncd.erasures WHERE id = :id FOR UPDATE")
_COUNT = text("UPDATE syncd.erasures SET counts = CAST(CAST(:counts AS text) AS jsonb) WHERE id = :id")
_FINISH = text("""
    UPDATE syncd.erasures SET finished_at = now() WHERE id = :id
""")
_RECEIPTS = """
    SELECT e.id, encode(e.hash, 'hex') AS hash, a.name AS account, e.invoices, e.actor,
           CAST(e.counts AS text) AS counts, CAST(e.by_hand AS text) AS by_hand,
           e.started_at, e.finished_at, e.readmitted_at, e.readmitted_by
    FROM syncd.erasures e LEFT JOIN crm.accounts a ON a.id = e.account_id
"""
_ONE = text(_RECEIPTS + " WHERE e.id = :id")
_LIST = text(_RECEIPTS + " ORDER BY e.id DESC LIMIT :most")
_READMIT = text("""
    WITH readmitted AS (
        UPDATE syncd.erasures SET readmitted_at = now(), readmitted_by = :actor
        WHERE (hash = :hash OR id IN (SELECT erasure_id FROM syncd.suppressions WHERE hash = :hash AND kind = 'email'))
          AND readmitted_at IS NULL
        RETURNING id
    ), dropped AS (
        DELETE FROM syncd.suppressions WHERE erasure_id IN (SELECT id FROM readmitted)
    )
    SELECT id FROM readmitted ORDER BY id
""")

Hashed = tuple[int | None, Kind, bytes]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is kept of an erasure. ``account`` is None for all; ``counts`` are rows by table, ``by_hand`` what is to be
    done elsewhere, without any value of the person."""

    id: int
    hash: str
    account: str | None
    invoices: str
    actor: str
    counts: Mapping[str, int]
    by_hand: Sequence[Mapping[str, object]]
    started_at: datetime
    finished_at: datetime | None
    readmitted_at: datetime | None
    readmitted_by: str | None


@dataclass(frozen=True, slots=True)
class Opening:
    """What an erasure begins with. ``account_id`` is None for all accounts; then addresses are hashed for all, too.

    ``known`` are addresses, ids and removed invoices of the person, each with its account. ``is_afterthought``: nothing
    of the person is here, so what is left to do belongs to the receipt that there is.
    """

    email: str = field(repr=False)
    account_id: int | None
    invoices: Invoices
    actor: str
    known: Sequence[tuple[int, Kind, str]] = field(repr=False)
    by_hand: Sequence[Mapping[str, object]] = ()
    is_afterthought: bool = False


async def make_hasher(connection: Connection, secret: str) -> Hasher:
    """Return what makes this database's hashes; its salt is made the first time. Raises ConfigurationError when persons
    were erased with another secret."""
    found = await read_hasher(connection, secret)
    if found is not None:
        return found
    await connection.execute(_SALT)
    hasher = Hasher.of(bytes((await connection.execute(_READ_SALT)).scalar_one()), secret)
    await connection.execute(_PROVE, {"proof": hasher.proof})
    # Somebody may have been first, with another secret.
    return await read_hasher(connection, secret) or hasher


async def find_open(
    connection: Connection, secret: str, email: str, account_id: int | None, *, also_finished: bool = False
) -> int | None:
    """Return the erasure of an address that was not finished; with ``also_finished`` the last one, finished or not."""
    hasher = await read_hasher(connection, secret)
    if hasher is None:
        return None
    values = {"hash": hasher.email(email), "account_id": account_id, "also_finished": also_finished}
    return (await connection.execute(_FIND, values)).scalar_one_or_none()


async def begin(connection: Connection, secret: str, opening: Opening) -> tuple[int, Hasher]:
    """Open an erasure, or go on with one that was cut short, and write the hashes; return its number.

    Commit at once: from then on no pull that begins brings the person back.
    """
    hasher = await make_hasher(connection, secret)
    erasure_id = await find_open(
        connection, secret, opening.email, opening.account_id, also_finished=opening.is_afterthought
    )
    if erasure_id is None:
        values = {
            "hash": hasher.email(opening.email),
            "account_id": opening.account_id,
            "invoices": opening.invoices.value,
            "actor": opening.actor,
            "by_hand": msgspec.json.encode(opening.by_hand).decode(),
        }
        erasure_id = int((await connection.execute(_OPEN, values)).scalar_one())
    known = [(opening.account_id or 0, Kind.EMAIL, opening.email), *opening.known]
    await _suppress(connection, hasher, erasure_id, opening.account_id, known)
    return erasure_id, hasher


async def extend(
    connection: Connection,
    secret: str,
    erasure_id: int,
    account_id: int | None,
    known: Sequence[tuple[int, Kind, str]],
) -> None:
    """Write the hashes of what more a person turned out to be known by."""
    hasher = await make_hasher(connection, secret)
    await _suppress(connection, hasher, erasure_id, account_id, known)


async def _suppress(
    connection: Connection,
    hasher: Hasher,
    erasure_id: int,
    account_id: int | None,
    known: Sequence[tuple[int, Kind, str]],
) -> None:
    hashed = list(dict.fromkeys(_hashed(hasher, account_id, one) for one in known))
    values = {
        "erasure_id": erasure_id,
        "accounts": [account for account, _, _ in hashed],
        "kinds": [kind.value for _, kind, _ in hashed],
        "hashes": [value for _, _, value in hashed],
    }
    if (await connection.execute(_SUPPRESS, values)).rowcount:
        await connection.execute(_MOVE)


def _hashed(hasher: Hasher, account_id: int | None, one: tuple[int, Kind, str]) -> Hashed:
    owner, kind, value = one
    match kind:
        case Kind.EMAIL:
            return account_id, kind, hasher.email(value)
        case Kind.REMOTE_ID:
            return owner, kind, hasher.remote_id(owner, value)
        case Kind.INVOICE:
            number, _, is_credit = value.rpartition("\0")
            return owner, kind, hasher.invoice(owner, number, is_credit=is_credit == "credit")


async def take_turn(connection: Connection, erasure_id: int) -> dict[str, int]:
    """Lock the receipt for this transaction; return what was counted so far."""
    found = (await connection.execute(_COUNTS, {"id": erasure_id})).scalar_one_or_none()
    if found is None:
        raise InfrastructureError("the receipt of this erasure is gone; run the same command again")
    return msgspec.json.decode(found, type=dict[str, int])


async def count(connection: Connection, erasure_id: int, before: Mapping[str, int], more: Mapping[str, int]) -> None:
    """Add to a receipt, in the transaction that removed what is counted."""
    total = {name: before.get(name, 0) + more.get(name, 0) for name in sorted({*before, *more})}
    total = {name: rows for name, rows in total.items() if rows}
    await connection.execute(_COUNT, {"id": erasure_id, "counts": msgspec.json.encode(total).decode()})


async def finish(connection: Connection, erasure_id: int) -> Receipt:
    """Close an erasure; return its receipt."""
    await connection.execute(_FINISH, {"id": erasure_id})
    return await read_receipt(connection, erasure_id)


async def read_receipt(connection: Connection, erasure_id: int) -> Receipt:
    return _receipt((await connection.execute(_ONE, {"id": erasure_id})).one()._asdict())


async def list_receipts(connection: Connection, *, most: int = 1000) -> tuple[Receipt, ...]:
    """Return the receipts of all erasures, the latest first."""
    return tuple(_receipt(row._asdict()) for row in await connection.execute(_LIST, {"most": most}))


async def readmit(connection: Connection, secret: str, who: str, actor: str) -> tuple[int, ...]:
    """Let pulls bring a person back, named by the hash of a receipt or by address; return the receipts concerned."""
    hashed = bytes.fromhex(who) if len(who) == 64 and all(sign in "0123456789abcdefABCDEF" for sign in who) else None
    if hashed is None:
        hasher = await read_hasher(connection, secret)
        if hasher is None:
            return ()
        hashed = hasher.email(who)
    readmitted = tuple((await connection.execute(_READMIT, {"hash": hashed, "actor": actor})).scalars())
    if readmitted:
        await connection.execute(_MOVE)
    return readmitted


def _receipt(row: dict[str, object]) -> Receipt:
    decoded = {name: msgspec.json.decode(str(row[name])) for name in ("counts", "by_hand")}
    return Receipt(**{**row, **decoded})
