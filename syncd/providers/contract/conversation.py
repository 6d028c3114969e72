"""A write to an API is a conversation: a generator that yields requests, receives answers and returns an outcome.

The driver (``outbound.converse``) sends each yielded ``Request`` and gives the ``Answer`` back; it never interprets.
A conversation never waits, and decides everything from what it was told, so that a test is a list of answers.

A **read-back** is the same without a write: it returns what the CRM shows of a change that was delivered, or the
outcome that kept it from being read.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

from syncd.policy.merge import Agreed
from syncd.policy.proof import Showing
from syncd.providers.contract.answers import Answer
from syncd.providers.contract.outcome import Outcome
from syncd.providers.contract.request import Request

Conversation: TypeAlias = Generator[Request, Answer, Outcome]
ReadBack: TypeAlias = Generator[Request, Answer, Showing | Outcome]


class Readable(StrEnum):
    """How a delivered change can be seen in the CRM."""

    NEVER = "never"
    BY_PULL = "by_pull"  # some stream shows it, and nothing shorter does
    BY_CALL = "by_call"  # a read-back shows it, and so do streams


class Target(msgspec.Struct, frozen=True):
    """Whom a change is about, as the mirror knows it when the lane is claimed.

    ``remote_id`` is None until the CRM gave one; ``email`` is the mirror's current (local) address; ``scope`` is the
    second half of an identity where the e-mail alone is none (GetResponse: the campaign id). ``is_repeat`` is true
    when an earlier try of this very change may have been applied: a change that is not repeat-safe must then be read
    back before it is sent again. ``since`` is when the change was made, or for a read-back when it was
    delivered: what the CRM shows from before it is not its doing. ``agreed`` is what the change presumes of the fields
    it moves, None where nothing is to be compared: a conversation that can tell cheaply what the CRM has says what it
    overwrites, and sends nothing where a field that gives way has moved. ``stood_at`` is set on a repeat, where the
    relation may have been as the change wants it before it was ever sent: the last time at which it may have become so.
    ``others`` are remote ids of relations that the CRM may have under an address which the change takes, or by which
    the relation is to be found, though the mirror has them under another: what an address leads to is none of them.
    """

    remote_id: str | None
    email: str | None
    scope: str | None = None
    is_repeat: bool = False
    since: datetime | None = None
    agreed: Agreed | None = None
    stood_at: datetime | None = None
    others: tuple[str, ...] = ()
