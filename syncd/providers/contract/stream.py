"""A stream is a remote collection that can be pulled: how to ask for it, how to page it, how to decode it.

``Stream.decode`` turns one complete 2xx answer into batches of rows, lazily, so that a gigabyte needs no gigabyte of
memory. It raises ``MalformedAnswer`` at the first byte it cannot believe, however late that comes: the caller writes
in one transaction and rolls back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from syncd.domain.records import Refused, Row
from syncd.providers.contract.answers import Response
from syncd.providers.contract.paginator import Paginator, SinglePage
from syncd.providers.contract.request import Request


class StreamKind(StrEnum):
    """How a stream is read. Snapshot: whole. Window: by time. Sweep: one parent at a time. Follow-up: one row each."""

    SNAPSHOT = "snapshot"
    WINDOW = "window"
    SWEEP = "sweep"
    FOLLOW_UP = "follow_up"


@dataclass(frozen=True, slots=True)
class StreamArguments:
    """What a stream may need to ask. A window stream gets ``asked_from`` and ``now``; a sweep or follow-up ``key``.

    ``now`` is the CRM's time as far as we know it (ours corrected by the measured skew), aware UTC. ``key`` is the
    remote id of the parent (a group, a relation) or the key of the row (an invoice number).
    """

    now: datetime
    asked_from: datetime | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """One batch of rows of one answer, in the answer's order; at most a few thousand rows.

    ``warnings`` speak of records that had to be left out (a key that is there but empty); those about a row that is
    kept are with the row. ``refused`` are these records themselves. ``is_strange``: some record has a key that the
    provider does not know, or may have one.
    """

    rows: Sequence[Row[Any]]
    warnings: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    is_strange: bool = False


@dataclass(frozen=True, slots=True)
class Peeked:
    """One batch of an answer that nobody has decoded yet: ``count`` records.

    ``keys`` finds the remote id of each (None where only decoding can tell), ``raws`` the JSON text of each. ``rows``
    decodes the records at the chosen positions, and raises ``MalformedAnswer`` as ``Stream.decode`` does.
    """

    count: int
    keys: Callable[[], Sequence[str | None]]
    raws: Callable[[], Sequence[bytes]]
    rows: Callable[[Sequence[int]], Decoded]


@dataclass(frozen=True, slots=True)
class Stream:
    """One remote collection.

    ``records`` names the domain record the rows hold (``Order``, ``Tag``, ...). ``request`` builds the first request.
    ``covers_from`` tells, for a window stream, from which instant on an answer to these arguments is complete (the
    CRM's parameter is coarser than time: whole hours, whole days). ``peek``, where a stream has it, reads the same
    answer without decoding it, for a reader that knows most of the records already. ``reread`` reads the texts of
    records that were kept, one result each. ``keys`` are the keys that the provider knows, each with the JSON types
    that it reads there; those of the records in a list ``lines`` are called ``lines[].name``. Where it is None, nothing
    is told about the shape of answers.
    """

    name: str
    kind: StreamKind
    operation: str
    records: str
    request: Callable[[StreamArguments], Request]
    decode: Callable[[Response], Iterator[Decoded]]
    paginator: Paginator = field(default_factory=SinglePage)
    covers_from: Callable[[StreamArguments], datetime] | None = None
    peek: Callable[[Response], Iterator[Peeked]] | None = None
    reread: Callable[[Sequence[bytes]], Sequence[Row[Any] | Refused]] | None = None
    keys: Mapping[str, frozenset[str]] | None = None
