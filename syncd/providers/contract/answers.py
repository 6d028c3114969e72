"""What came of a request. The three cases differ in the one thing that matters: may the CRM have acted on it?

* ``NotSent``: certainly not (refused connection, name not found, TLS failed, cancelled before the first byte).
* ``Answered``: a complete answer came, of whatever status.
* ``MaybeApplied``: bytes went out and no complete answer came back (timeout, reset, cut-off body, answer too large).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TypeAlias

import msgspec


class Response(msgspec.Struct, frozen=True):
    """A complete HTTP answer. ``headers`` keys are lower case; small bodies are in ``body``, large ones in ``spool``.

    ``spool`` is a seekable binary file that belongs to the transport call that made it and closes with it.
    """

    status: int
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    spool: IO[bytes] | None = None
    elapsed_s: float = 0.0

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """Yield the body from its start in pieces of at most ``size`` bytes."""
        if self.spool is None:
            if self.body:
                yield self.body
            return
        self.spool.seek(0)
        while piece := self.spool.read(size):
            yield piece


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request never reached the CRM. ``reason`` is one clause without address or secret."""

    reason: str


class Answered(msgspec.Struct, frozen=True):
    response: Response


@dataclass(frozen=True, slots=True)
class MaybeApplied:
    """The request may have reached the CRM, and no complete answer tells. ``status`` is set if a status line came."""

    reason: str
    status: int | None = None


Answer: TypeAlias = NotSent | Answered | MaybeApplied
