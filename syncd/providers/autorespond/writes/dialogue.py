"""One side of a conversation: asks by operation name, and gets a payload or the outcome that ends it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from msgspec.structs import replace

from syncd.domain.errors import MalformedAnswer
from syncd.domain.records import Refused, Row
from syncd.policy.merge import Conflict
from syncd.providers.autorespond import envelope
from syncd.providers.autorespond.formats import Zone
from syncd.providers.autorespond.judgement import Judge, Reply, Said
from syncd.providers.autorespond.rows import Kind, one_of, rows_of
from syncd.providers.contract import (
    Answer,
    Answered,
    Delivered,
    Endpoint,
    Outcome,
    Proof,
    Rejected,
    Request,
    Retryable,
    Unknown,
)

T = TypeVar("T")
Asking: TypeAlias = Generator[Request, Answer, T]
_NOWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Found:
    """A read that worked: its rows' records, none if the thing asked for does not exist."""

    records: tuple[Any, ...] = ()

    @property
    def first(self) -> Any:
        return self.records[0] if self.records else None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What every conversation needs: the table of endpoints, the judge of answers, the zone of dates, two choices."""

    rows: Mapping[str, Endpoint]
    judge: Judge
    zone: Zone
    full_payload: bool = False
    verify_writes: bool = False

    def write(
        self,
        operation: str,
        path: Mapping[str, str] = _NOWHERE,
        overwrites: tuple[Conflict, ...] = (),
        /,
        **parameters: str | None,
    ) -> Asking[Reply]:
        """Send a write and return what the CRM said to it; say before what of the CRM's it ``overwrites``."""
        row = self.rows[operation]
        answer = yield replace(row.request(path, **parameters), overwrites=overwrites)
        return self.judge.reply(answer, row)

    def read_one(
        self, operation: str, kind: Kind[Any], path: Mapping[str, str] = _NOWHERE, /, **parameters: str | None
    ) -> Asking[Found | Outcome]:
        """Read one object; that it does not exist is an answer, not a failure."""
        row = self.rows[operation]
        answer = yield row.request(path, **parameters)
        reply = self.judge.reply(answer, row)
        if isinstance(reply, Rejected) and reply.is_absent:
            return Found()
        if not isinstance(reply, Said):
            return reply
        try:
            return _found(one_of(reply.payload, kind, operation, self.zone))
        except MalformedAnswer as malformed:
            return Retryable(f"{operation}: {malformed}")

    def read_list(self, operation: str, kind: Kind[Any], path: Mapping[str, str] = _NOWHERE) -> Asking[Found | Outcome]:
        """Read a whole list, small enough to be held."""
        row = self.rows[operation]
        answer = yield row.request(path)
        if not isinstance(answer, Answered):
            return _outcome(self.judge.reply(answer, row))
        refusal = self.judge.refusal(answer.response, row)
        if refusal is not None:
            return refusal
        refused: list[Refused] = []
        try:
            pieces = envelope.pieces(answer.response, row)
            batches = [batch for piece in pieces for batch in rows_of(piece, kind, operation, self.zone, refused)]
        except MalformedAnswer as malformed:
            return Retryable(f"{operation}: {malformed}")
        if refused:  # what could not be read may be the very thing that is looked for
            return Retryable(refused[0].reason)
        return Found(tuple(row.record for batch in batches for row in batch.rows))


def accepted(said: Said, remote_id: str | None = None, detail: str = "") -> Delivered:
    """Return the outcome of a write that the CRM said yes to, and that nothing has shown yet."""
    silent = "" if said.payload else "the CRM answered without a word"
    return Delivered(Proof.ACCEPTED, remote_id, detail or silent)


def undecided(outcome: Outcome) -> Outcome:
    """Return what a failed read-back means for a write whose fate is unknown: a refusal to show it decides nothing."""
    return Unknown(f"reading back was refused: {outcome.reason}") if isinstance(outcome, Rejected) else outcome


def _found(row: Row[Any] | None) -> Found:
    return Found() if row is None else Found((row.record,))


def _outcome(reply: Reply) -> Outcome:
    return Retryable("an answer without a response") if isinstance(reply, Said) else reply
