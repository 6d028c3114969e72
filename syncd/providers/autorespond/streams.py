"""What can be pulled: each remote collection with its request, its decoder and, for windows, what an answer covers.

The CRM's windows are coarser than time. ``hours`` counts back from the CRM's own now when it gets to the request, so
a margin pays for the time that the request spends on its way; ``dateFrom`` means "created AFTER this date", which may
or may not exclude that day, so two days are added and only what holds under the exclusive reading is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any

from syncd.domain.errors import ConfigurationError, MalformedAnswer
from syncd.domain.records import InvoiceFile, Refused, Row, Subscription
from syncd.providers.autorespond import decode, envelope
from syncd.providers.autorespond.formats import Zone
from syncd.providers.autorespond.peek import peeks
from syncd.providers.autorespond.rows import Kind, believe, reread, rows_of, single
from syncd.providers.autorespond.wording import quoted
from syncd.providers.contract import Decoded, Endpoint, Peeked, Request, Response, Stream, StreamArguments, StreamKind

ON_ITS_WAY = timedelta(minutes=5)
_HOUR = timedelta(hours=1)
_HEAD, _MAGIC = 1024, b"%PDF-"
_DAYS_BEFORE = timedelta(days=2)


def streams(rows: Mapping[str, Endpoint], zone: Zone, administration: str | None) -> Mapping[str, Stream]:
    """Return every stream by name. That of the administration needs its id, and is there only if the id is known."""
    reads = _Reads(rows, zone)
    table = (
        reads.snapshot("fields", "FreeField", decode.FIELD),
        reads.snapshot("tags", "Tag", decode.TAG),
        reads.snapshot("groups", "Group", decode.GROUP),
        reads.snapshot("lists", "MailingList", decode.LIST),
        reads.orders(),
        reads.invoices(),
        reads.by_key("group_members", "Relation", decode.RELATION, "grpId"),
        reads.by_key("relation_orders", "Order", decode.ORDER, "id"),
        reads.by_key("relation_tags", "TagName", decode.TAG_NAME, "id"),
        reads.subscriptions(),
        reads.single("relation_details", "relation_by_id", "Relation", decode.RELATION, "id", StreamKind.SWEEP),
        reads.single(
            "invoice_details", "invoice_detail", "InvoiceDetail", decode.INVOICE_DETAIL, "invoiceNumber"
        ),
        reads.invoice_files(),
        reads.invoice_relations(),
    )  # fmt: skip
    own = () if administration is None else (reads.administration(administration),)
    return MappingProxyType({stream.name: stream for stream in (*own, *table)})


def hours_back(arguments: StreamArguments) -> int:
    """Return the ``hours`` that reach back to ``asked_from`` even if the request is a while on its way; at least 1."""
    span = arguments.now - _asked_from(arguments) + ON_ITS_WAY
    return max(1, -(-span // _HOUR))


def date_from(arguments: StreamArguments, zone: Zone) -> date:
    """Return the ``dateFrom`` whose answer holds everything since ``asked_from``, however AFTER is meant."""
    return zone.day(_asked_from(arguments)) - _DAYS_BEFORE


class _Reads:
    """Builds streams over one table of endpoints and one zone."""

    def __init__(self, rows: Mapping[str, Endpoint], zone: Zone) -> None:
        self._rows, self._zone = rows, zone

    def snapshot(self, name: str, record: str, kind: Kind[Any]) -> Stream:
        row = self._rows[name]
        read = self._list(row, kind)
        return Stream(name, StreamKind.SNAPSHOT, name, record, lambda _: row.request(), read, **self._kept(kind))

    def orders(self) -> Stream:
        row = self._rows["orders"]

        def request(arguments: StreamArguments) -> Request:
            return row.request(paid="-", hours=str(hours_back(arguments)))

        def covers_from(arguments: StreamArguments) -> datetime:
            return arguments.now - hours_back(arguments) * _HOUR + ON_ITS_WAY

        def look(response: Response) -> Iterator[Peeked]:
            return peeks(envelope.pieces(response, row), decode.ORDER, row.operation, self._zone)

        read = self._list(row, decode.ORDER)
        kept = self._kept(decode.ORDER)
        return Stream(
            "orders", StreamKind.WINDOW, "orders", "Order", request, read, covers_from=covers_from, peek=look, **kept
        )

    def invoices(self) -> Stream:
        row, zone = self._rows["invoices"], self._zone

        def request(arguments: StreamArguments) -> Request:
            return row.request(dateFrom=date_from(arguments, zone).isoformat())

        def covers_from(arguments: StreamArguments) -> datetime:
            first_day = date_from(arguments, zone) + timedelta(days=1)
            return datetime.combine(first_day, time(), zone.zone).astimezone(UTC)

        read = self._list(row, decode.INVOICE)
        kept = self._kept(decode.INVOICE)
        return Stream(
            "invoices", StreamKind.WINDOW, "invoices", "Invoice", request, read, covers_from=covers_from, **kept
        )

    def by_key(self, name: str, record: str, kind: Kind[Any], path: str) -> Stream:
        row = self._rows[name]
        read = self._list(row, kind)
        return Stream(name, StreamKind.SWEEP, name, record, _keyed(row, path), read, **self._kept(kind))

    def subscriptions(self) -> Stream:
        """The answer is a list of events; a row is the latest event of each list."""
        row = self._rows["relation_subscriptions"]
        read = self._list(row, decode.SUBSCRIPTION)

        def latest(response: Response) -> Iterator[Decoded]:
            batches = tuple(read(response))
            yield Decoded(
                latest_rows(row for batch in batches for row in batch.rows),
                tuple(warning for batch in batches for warning in batch.warnings),
                tuple(record for batch in batches for record in batch.refused),
                any(batch.is_strange for batch in batches),
            )

        name, kept = "relation_subscriptions", self._kept(decode.SUBSCRIPTION)
        return Stream(name, StreamKind.SWEEP, name, "Subscription", _keyed(row, "id"), latest, **kept)

    def single(
        self, name: str, operation: str, record: str, kind: Kind[Any], path: str, how: StreamKind = StreamKind.FOLLOW_UP
    ) -> Stream:
        row = self._rows[operation]
        return Stream(name, how, operation, record, _keyed(row, path), self._one(row, kind), **self._kept(kind))

    def invoice_files(self) -> Stream:
        """The answer is a PDF, or is refused; its bytes are the reader's to keep."""
        row = self._rows["invoice_file"]

        def read(response: Response) -> Iterator[Decoded]:
            head = next(response.chunks(_HEAD), b"")
            envelope.refuse_html(head.strip())
            content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type != row.accept:
                raise MalformedAnswer(f"The answer is no PDF: its type is {quoted(content_type) or 'not said'}.")
            if not head.startswith(_MAGIC):
                raise MalformedAnswer("The answer is no PDF, although it says so.")
            yield Decoded((Row(InvoiceFile(content_type), b""),))

        name, number = "invoice_files", "invoiceNumber"
        return Stream(name, StreamKind.FOLLOW_UP, row.operation, "InvoiceFile", _keyed(row, number), read)

    def invoice_relations(self) -> Stream:
        """The key is an e-mail address; the answer is the relation that has it."""
        row = self._rows["relation_by_email"]

        def request(arguments: StreamArguments) -> Request:
            if not arguments.key:
                raise ConfigurationError(f"{row.operation} can only be asked with an e-mail address.")
            return row.request(email=arguments.key)

        name, how = "invoice_relations", StreamKind.SWEEP
        read = self._one(row, decode.RELATION)
        return Stream(name, how, row.operation, "Relation", request, read, **self._kept(decode.RELATION))

    def administration(self, remote_id: str) -> Stream:
        row = self._rows["administration"]

        def read(response: Response) -> Iterator[Decoded]:
            payload = decode.without_access_code(envelope.payload(_whole(response), row))
            yield from self._row(payload, decode.ADMINISTRATION, row)

        request = row.request({"id": remote_id})
        name, kept = "administration", self._kept(decode.ADMINISTRATION)
        return Stream(name, StreamKind.SNAPSHOT, name, "Administration", lambda _: request, read, **kept)

    def _list(self, row: Endpoint, kind: Kind[Any]) -> Callable[[Response], Iterator[Decoded]]:
        def read(response: Response) -> Iterator[Decoded]:
            taken, refused = 0, list[Refused]()
            for piece in envelope.pieces(response, row):
                for batch in rows_of(piece, kind, row.operation, self._zone, refused):
                    taken += len(batch.rows)
                    yield batch
            believe(taken, refused)

        return read

    def _one(self, row: Endpoint, kind: Kind[Any]) -> Callable[[Response], Iterator[Decoded]]:
        def read(response: Response) -> Iterator[Decoded]:
            yield from self._row(envelope.payload(_whole(response), row), kind, row)

        return read

    def _row(self, payload: bytes, kind: Kind[Any], row: Endpoint) -> Iterator[Decoded]:
        found = single(payload, kind, row.operation, self._zone)
        if found.rows:
            yield found

    def _kept(self, kind: Kind[Any]) -> dict[str, Any]:
        """Return what a stream says of the records that it reads: how their texts are read again, and their keys."""

        def read_again(raws: Sequence[bytes]) -> Sequence[Row[Any] | Refused]:
            return reread(raws, kind, self._zone)

        return {"reread": read_again, "keys": kind.keys}


def latest_rows(events: Iterable[Row[Subscription]]) -> tuple[Row[Subscription], ...]:
    """Return the latest event of each list; of two equally late (or undated) ones that which stands further down."""
    latest: dict[str, Row[Subscription]] = {}
    for event in events:
        known = latest.get(event.record.list_remote_id)
        if known is None or _is_later(event.record, known.record):
            latest[event.record.list_remote_id] = event
    return tuple(latest.values())


def _is_later(event: Subscription, known: Subscription) -> bool:
    if event.event_at is None or known.event_at is None:
        return event.event_at is not None or known.event_at is None
    return event.event_at >= known.event_at


def _keyed(row: Endpoint, name: str) -> Callable[[StreamArguments], Request]:
    def request(arguments: StreamArguments) -> Request:
        if not arguments.key:
            raise ConfigurationError(f"{row.operation} can only be asked with the {name} of what it belongs to.")
        return row.request({name: arguments.key})

    return request


def _asked_from(arguments: StreamArguments) -> datetime:
    if arguments.asked_from is None:
        raise ConfigurationError("A window stream can only be asked from a point in time on.")
    return arguments.asked_from


def _whole(response: Response) -> bytes:
    return b"".join(response.chunks())
