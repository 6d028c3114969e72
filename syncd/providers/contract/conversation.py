"""A write to an API is a conversation: a generator that yields requests, receives answers and returns an outcome.

The driver (``outbound.converse``) sends each yielded ``Request`` and gives the ``Answer`` back; it never interprets.
A conversation never waits, and decides everything from what it was told, so that a test is a list of answers.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias

import msgspec

from syncd.providers.contract.answers import Answer
from syncd.providers.contract.outcome import Outcome
from syncd.providers.contract.request import Request

Conversation: TypeAlias = Generator[Request, Answer, Outcome]


class Target(msgspec.Struct, frozen=True):
    """Whom a change is about, as the mirror knows it when the lane is claimed.

    ``remote_id`` is None until the CRM gave one; ``email`` is the mirror's current (local) address; ``scope`` is the
    second half of an identity where the e-mail alone is none (GetResponse: the campaign id). ``is_repeat`` is true
    when an earlier try of this very change may have been applied: a change that is not repeat-safe must then be read
    back before it is sent again.
    """

    remote_id: str | None
    email: str | None
    scope: str | None = None
    is_repeat: bool = False
