"""Reproject: read again what was kept of the CRM's words, with the decoder of now, and write what that changes.

For whoever has upgraded to a syncd that reads what an older one could not, or read wrongly. Nothing is asked of the
CRM. Each batch is read and compared without a transaction; only where the reading differs is one opened, the rows are
read once more under their locks, and written by the same writers as a pull's answer, so that undelivered edits, owners
and erasures count as ever. What changes is in the history with the origin ``reproject``.

It must never pass for an answer: rows are not seen by it, nothing is proven by it, no detail is asked for again, and
what was kept of a relation says nothing against an edit that was delivered since. Killed anywhere it is simply run
again: what is done is equal by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET

from syncd.domain.account import Account
from syncd.domain.ids import RunId
from syncd.domain.records import Refused, Row
from syncd.inbound.context import Progress
from syncd.policy.merge import Owners
from syncd.providers.contract import Provider, Stream
from syncd.store import Connection, Store, readings, runs, unread
from syncd.store.mirror import (
    Scope,
    Written,
    administration,
    catalogue,
    invoice_details,
    invoices,
    kept,
    orders,
    relations,
)
from syncd.store.mirror.catalogue import CATALOGUES
from syncd.store.mirror.kept import Kept
from syncd.store.mirror.normal import digest
from syncd.store.mirror.scope import NOTHING, Seen
from syncd.store.unread import Waiting

_NO_RUN = RunId(0)
_NEVER, _ALWAYS = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
BATCH_ROWS = 500


@dataclass(slots=True)
class Reprojected:
    """What came of one stream: ``looked`` at rows, ``changed`` them, ``read`` records that were unread; ``unread`` are
    so still, ``doubtful`` rows have values that cannot be read, ``deferred`` ones were held by an application."""

    account: str
    stream: str
    looked: int = 0
    changed: int = 0
    read: int = 0
    unread: int = 0
    doubtful: int = 0
    deferred: int = 0
    reasons: list[str] = field(default_factory=list)


class Reprojector:
    """Reads one account's kept words again. ``on_progress`` hears of every batch."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        account: Account,
        *,
        owners: Owners | None = None,
        batch_rows: int = BATCH_ROWS,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._store, self._provider, self._account = store, provider, account
        self._owners, self._batch_rows, self._on_progress = owners or Owners(), batch_rows, on_progress

    async def reproject(self, stream: Stream) -> Reprojected:
        """Read again the rows of a stream's table, then its unread records."""
        found = Reprojected(self._account.name, stream.name)
        if stream.reread is not None and stream.name in kept.STREAMS:
            await self._mirrored(stream, found)
        if stream.reread is not None:
            await self._unread(stream, found)
        return found

    async def _mirrored(self, stream: Stream, found: Reprojected) -> None:
        after = 0
        while True:
            async with self._store.reading() as connection:
                rows = await kept.page(
                    connection, self._account.id, stream.name, after=after, most=self._batch_rows, within=None
                )
            if not rows:
                return
            after, found.looked = rows[-1].id, found.looked + len(rows)
            differing = await asyncio.to_thread(_differing, stream, rows, found)
            if differing:
                await self._write(stream, [row.id for row in differing], found)
            if self._on_progress is not None:
                self._on_progress(Progress(stream.name, found.looked, 0))

    async def _write(self, stream: Stream, ids: Sequence[int], found: Reprojected) -> None:
        """Read some rows once more, now under their locks, and write them."""
        async with self._store.begin_remote() as connection:
            await runs.lock_stream(connection, self._account.id, stream.name)
            rows = await kept.page(
                connection, self._account.id, stream.name, after=0, most=len(ids), within=ids
            )  # fmt: skip
            pairs = [(old, row) for old, row in zip(rows, _reread(stream, rows), strict=True) if isinstance(row, Row)]
            pairs = [(old, row) for old, row in pairs if _is_other(stream, old, row)]
            written = await _writer(stream)(connection, self._scope(_ALWAYS), stream, pairs)
            await kept.tell_origin(connection)
        found.changed += written.updated
        found.deferred += written.deferred + len(ids) - len(rows)

    async def _unread(self, stream: Stream, found: Reprojected) -> None:
        after = 0
        while True:
            async with self._store.begin_remote() as connection:
                await runs.lock_stream(connection, self._account.id, stream.name)
                waiting = await unread.waiting(
                    connection, self._account.id, stream.name, after=after, most=self._batch_rows
                )
                if not waiting:
                    return
                after = waiting[-1].id
                await self._read_all(connection, stream, waiting, found)
                await kept.tell_origin(connection)

    async def _read_all(
        self, connection: Connection, stream: Stream, waiting: Sequence[Waiting], found: Reprojected
    ) -> None:
        """Write those records that can be read by now, each as of when the CRM showed it last."""
        assert stream.reread is not None
        done: list[int] = []
        for one, row in zip(waiting, stream.reread([one.raw.encode() for one in waiting]), strict=True):
            if isinstance(row, Refused):
                await unread.note_reason(connection, one.id, row.reason)
                found.unread += 1
                found.reasons += [row.reason] if row.reason not in found.reasons else []
                continue
            await self._write_read(connection, stream, one, row)
            done.append(one.id)
        await unread.forget(connection, done)
        found.read += len(done)

    async def _write_read(self, connection: Connection, stream: Stream, one: Waiting, row: Row[Any]) -> None:
        scope, seen = replace(self._scope(one.last_seen_at), is_retold=False), Seen()
        match stream.records:
            case "Order":
                row = await _owned(connection, row, one.parent_id)
                await orders.write(connection, scope, orders.prepare([row]), seen)
                await kept.note_seen(connection, "orders", (*seen.ids, *seen.new), one.last_seen_at)
            case "Invoice":
                await invoices.write(connection, scope, invoices.prepare([row]), seen)
                await kept.note_seen(connection, "invoices", (*seen.ids, *seen.new), one.last_seen_at)
            case records if records in CATALOGUES:
                kind = CATALOGUES[records]
                known = await catalogue.contents(connection, scope, kind)
                if row.record.remote_id not in known.rows:  # else a later answer has shown it
                    await catalogue.write(connection, scope, kind, known, [row])
            case _:
                # One record of a list is no list: whoever it was asked for is asked for again, first of all.
                await readings.forget_read(connection, scope, stream.name, [one.parent_id])

    def _scope(self, asked_at: datetime) -> Scope:
        return Scope(
            self._account.id,
            _NO_RUN,
            now=asked_at,
            asked_at=asked_at,
            touch_before=_NEVER,
            awaits_proof=False,
            owners=self._owners,
            is_retold=True,
        )


Pairs = Sequence[tuple[Kept, Row[Any]]]
Writer = Callable[[Connection, Scope, Stream, Pairs], Awaitable[Written]]


def _differing(stream: Stream, rows: Sequence[Kept], found: Reprojected) -> list[Kept]:
    """Return the rows that are read differently now. One that cannot be read any more, or would be another, stays."""
    differing = []
    for old, row in zip(rows, _reread(stream, rows), strict=True):
        if isinstance(row, Refused):
            found.doubtful += 1
            continue
        found.doubtful += bool(row.warnings)
        if _is_other(stream, old, row):
            differing.append(old)
    return differing


def _reread(stream: Stream, rows: Sequence[Kept]) -> Sequence[Row[Any] | Refused]:
    assert stream.reread is not None
    return stream.reread([row.raw for row in rows])


def _is_other(stream: Stream, old: Kept, row: Row[Any]) -> bool:
    """Tell whether a row is read otherwise than when it was written, by the digest kept with it. Details have none:
    their writer compares."""
    record = row.record
    match stream.records:
        case "Order":
            given = orders.hash_of(record)
            is_whose_same = UNSET in (record.relation_remote_id, record.relation_email, record.relation_name)
            is_same = given[:16] == old.content_hash[:16] and (is_whose_same or given[16:] == old.content_hash[16:32])
            return record.remote_id == old.key and not is_same
        case "Invoice":
            return record.number == old.key and invoices.hash_of(record) != old.content_hash
        case "InvoiceDetail":
            return bool(record.number == old.key)
        case "Administration":
            return digest(record) != old.content_hash
        case _:
            return record.remote_id == old.key and digest(record) != old.content_hash


def _writer(stream: Stream) -> Writer:
    match stream.records:
        case "Order":
            return _write_orders
        case "Invoice":
            return _write_invoices
        case "InvoiceDetail":
            return _write_details
        case "Relation":
            return _write_relations
        case "Administration":
            return _write_administration
        case _:
            return _write_catalogue


async def _write_orders(connection: Connection, scope: Scope, stream: Stream, pairs: Pairs) -> Written:
    """The seals stay those of the texts that the CRM sent: the database keeps JSON in a spelling of its own."""
    batch = orders.prepare([row for _, row in pairs])
    seals = {old.key: old.content_hash[32:48] for old, _ in pairs}
    batch = replace(batch, seals=[seals[key] for key in batch.remote_ids])
    return await orders.write(connection, scope, batch, Seen())


async def _write_invoices(connection: Connection, scope: Scope, stream: Stream, pairs: Pairs) -> Written:
    return await invoices.write(connection, scope, invoices.prepare([row for _, row in pairs]), Seen())


async def _write_details(connection: Connection, scope: Scope, stream: Stream, pairs: Pairs) -> Written:
    written = NOTHING
    for old, row in pairs:
        written += await invoice_details.write(connection, scope, old.id, row)
    return written


async def _write_relations(connection: Connection, scope: Scope, stream: Stream, pairs: Pairs) -> Written:
    """Every edit that is still known to have been delivered counts as made since: what was kept may be from before."""
    return await relations.write(connection, replace(scope, asked_at=_NEVER), [row for _, row in pairs])


async def _write_administration(connection: Connection, scope: Scope, stream: Stream, pairs: Pairs) -> Written:
    return await administration.write(connection, scope, pairs[-1][1]) if pairs else NOTHING


async def _write_catalogue(connection: Connection, scope: Scope, stream: Stream, pairs: Pairs) -> Written:
    kind = CATALOGUES[stream.records]
    known = await catalogue.contents(connection, scope, kind)
    return await catalogue.write(connection, scope, kind, known, [row for _, row in pairs])


async def _owned(connection: Connection, row: Row[Any], parent_id: int) -> Row[Any]:
    """Say whose order it is, where it was asked for by its relation and does not say so itself."""
    if not parent_id or row.record.relation_remote_id is not UNSET:
        return row
    owner = await readings.remote_id_of(connection, parent_id)
    record = row.record if owner is None else msgspec.structs.replace(row.record, relation_remote_id=owner)
    return Row(record, row.raw, row.warnings)
