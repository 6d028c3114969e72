"""A request as a value. It holds no secret: ``transport`` signs it with the account's ``Auth`` at the last moment."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from syncd.policy.merge import Conflict

Pairs: TypeAlias = tuple[tuple[str, str], ...]


class Request(msgspec.Struct, frozen=True):
    """One HTTP request relative to the account's base URL.

    ``path`` is already percent-encoded, segment by segment, without a leading slash. At most one of ``form`` and
    ``json`` is set. ``operation`` names the endpoint row (for logs, limits and attempts); ``is_signed`` is false only
    for calls that must carry no credentials. ``accept`` is the media type asked for. ``needs_own_connection`` is true
    for calls that may not be repeated blindly: a kept connection may break under them and leave their fate unknown.
    ``overwrites`` are values that somebody else put there and that the call replaces: they are written down before it
    goes out, because nobody can read them any more if its answer is lost.
    """

    operation: str
    verb: str
    path: str
    query: Pairs = ()
    form: Pairs = ()
    json: bytes | None = None
    accept: str = "application/json"
    is_signed: bool = True
    needs_own_connection: bool = False
    overwrites: tuple[Conflict, ...] = ()
