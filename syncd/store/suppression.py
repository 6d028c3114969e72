"""Suppression: whom no pull may bring back, as one writing transaction sees it.

``Store.begin_remote`` asks in its first statement whether anybody was ever erased. If nobody was, ``suppressed``
returns None without asking anything: a database without erasures pays nothing. Else that statement told, under the lock
by which an erasure waits for the transaction, how often the hashes have changed; they are read when that is news.

A database whose hashes were made with another SYNCD_ERASE_KEY recognises nobody. That is never taken for "nobody is
erased": it is an error, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import text

from syncd.domain.errors import ConfigurationError
from syncd.policy.erasure import Hasher, Invoices, Kind, Pseudonym
from syncd.store.engine import Connection, Watch, watch_of

_KEY = text("SELECT salt, proof FROM syncd.erasure_keys")
_HASHES = text("""
    SELECT s.kind, s.hash, e.hash AS person, e.invoices
    FROM syncd.suppressions s JOIN syncd.erasures e ON e.id = s.erasure_id
    WHERE s.account_id IS NULL OR s.account_id = :account_id
    ORDER BY s.id
""")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a record that an erased person is known by: who it is, and what of their invoices."""

    person: Pseudonym
    invoices: Invoices


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Everybody erased from one account."""

    account_id: int
    hasher: Hasher
    fates: Mapping[tuple[str, bytes], Fate] = field(repr=False)

    def relation(self, remote_id: object, email: object) -> Fate | None:
        """Return whose record this is, if it names an erased person by id or by address."""
        found = None
        if isinstance(remote_id, str) and remote_id:
            found = self._fate(Kind.REMOTE_ID, self.hasher.remote_id(self.account_id, remote_id))
        if found is None and isinstance(email, str) and email:
            found = self._fate(Kind.EMAIL, self.hasher.email(email))
        return found

    def invoice(self, number: str, *, is_credit: bool) -> Fate | None:
        """Return whose invoice this was, if it was removed."""
        return self._fate(Kind.INVOICE, self.hasher.invoice(self.account_id, number, is_credit=is_credit))

    def _fate(self, kind: Kind, hashed: bytes) -> Fate | None:
        return self.fates.get((kind.value, hashed))


async def suppressed(connection: Connection, account_id: int) -> Suppressed | None:
    """Return whom this transaction may not write; None when nobody was ever erased. Where all were let in again it is
    nobody, but not None: stand-ins stay in what has them.

    Raises ConfigurationError when the hashes were made with another SYNCD_ERASE_KEY.
    """
    watch = watch_of(connection)
    if watch is None:
        return None
    found = watch.loaded.get(account_id)
    if not isinstance(found, Suppressed):
        found = watch.loaded[account_id] = await _load(connection, account_id, watch)
    return found


async def _load(connection: Connection, account_id: int, watch: Watch) -> Suppressed:
    hasher = await read_hasher(connection, watch.secret)
    rows = await connection.execute(_HASHES, {"account_id": account_id})
    fates = {(row.kind, bytes(row.hash)): Fate(Pseudonym(bytes(row.person)), Invoices(row.invoices)) for row in rows}
    if hasher is None:
        raise ConfigurationError("there are hashes of erased persons, but syncd.erasure_keys is empty: restore it")
    return Suppressed(account_id, hasher, fates)


async def read_hasher(connection: Connection, secret: str) -> Hasher | None:
    """Return what makes this database's hashes; None when nobody was ever erased. Raises as above."""
    row = (await connection.execute(_KEY)).one_or_none()
    if row is None or row.proof is None:
        return None
    hasher = Hasher.of(bytes(row.salt), secret)
    if hasher.proof != bytes(row.proof):
        raise ConfigurationError(
            "SYNCD_ERASE_KEY is not the one with which persons were erased from this database: with another one pulls "
            "would bring them back; set it to what it was"
        )
    return hasher
