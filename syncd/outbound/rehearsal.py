"""Rehearsal: begin a conversation without sending anything, to learn what it would ask first.

A conversation that ends before its first request has refused the change by itself (an operation that is switched off,
a value that the CRM's reference forbids): the drain would bury it unsent, and a plan must say so. One whose first
request is a read will take at least two. Nothing is sent, and the conversation is closed where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncd.domain.changes import LocalChange
from syncd.log import redact
from syncd.providers.contract import Provider, Rejected, Target


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """``refusal`` is why nothing would be sent, or None; ``requests`` is the least number that it takes."""

    refusal: str | None
    requests: int


def rehearse(provider: Provider, change: LocalChange, target: Target) -> Rehearsed:
    """Ask a conversation for its first request."""
    try:
        conversation = provider.converse(change, target)
        request = next(conversation)
    except StopIteration as end:
        return Rehearsed(end.value.reason if isinstance(end.value, Rejected) else None, 0)
    except Exception as error:  # noqa: BLE001 - the boundary: a conversation's bug must cost its own entry only
        return Rehearsed(redact(f"the conversation broke off: {type(error).__name__}: {error}")[:300], 0)
    conversation.close()
    return Rehearsed(None, 1 if request.operation == provider.call(change).operation else 2)
