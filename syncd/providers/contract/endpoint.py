"""An endpoint is a row. A provider's whole API is a table of these; nothing about a call is hidden in code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import quote

import msgspec

from syncd.providers.contract.request import Request

_NOWHERE: Mapping[str, str] = MappingProxyType({})


class Effect(StrEnum):
    """What repeating a call does: the one fact that decides how an unknown outcome is treated."""

    SAFE = "safe"  # reads
    REPEAT_SAFE = "repeat_safe"  # the second identical call changes nothing
    ONCE = "once"  # every call has an effect of its own
    CONSENT = "consent"  # as once, and it records a person's consent or mails them

    @property
    def is_repeat_safe(self) -> bool:
        """Whether a call whose fate is unknown may simply be sent again."""
        return self is Effect.REPEAT_SAFE or self is Effect.SAFE


class Place(StrEnum):
    """Where an endpoint's parameters go."""

    QUERY = "query"
    FORM = "form"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of an API.

    ``path`` is a template with ``{names}``; ``parameters`` are the allowed names of the rest; ``payload_key`` is the
    envelope key besides ``data`` that may hold the payload; ``shape`` says what the payload must be (``list``,
    ``object``, ``boolean``, ``text``, ``id``, ``file``); ``heading`` is the title in the API reference. ``mails`` marks
    calls that mail people, record consent or end a subscription: they stay off until a setting allows them.
    """

    operation: str
    verb: str
    path: str
    effect: Effect
    shape: str
    heading: str
    parameters: tuple[str, ...] = ()
    place: Place = Place.QUERY
    payload_key: str | None = None
    accept: str = "application/json"
    is_signed: bool = True
    mails: bool = False

    def overridden(self, verb: str | None, place: Place | None) -> Endpoint:
        """Return this row with another verb or parameter place, as the settings ask."""
        return replace(self, verb=verb or self.verb, place=place or self.place)

    def request(self, path: Mapping[str, str] = _NOWHERE, **parameters: str | None) -> Request:
        """Build the request: path names are percent-encoded with no safe character, ``None`` parameters left out.

        Raises KeyError for a missing path name and ValueError for a parameter that the row does not list.
        """
        if parameters and (unknown := set(parameters) - set(self.parameters)):
            raise ValueError(f"{self.operation} has no parameter {sorted(unknown)[0]}")
        pairs = tuple((name, value) for name, value in parameters.items() if value is not None)
        url = self.path.format_map({name: _segment(value) for name, value in path.items()})
        return Request(
            operation=self.operation,
            verb=self.verb,
            path=url,
            query=pairs if self.place is Place.QUERY else (),
            form=pairs if self.place is Place.FORM else (),
            json=_json_object(pairs) if self.place is Place.JSON else None,
            accept=self.accept,
            is_signed=self.is_signed,
            needs_own_connection=self.effect in (Effect.ONCE, Effect.CONSENT),
        )


def _segment(value: str) -> str:
    """Percent-encode with no safe character; ids, which are nearly all there is, need no looking at."""
    return value if value.isascii() and value.isalnum() else quote(value, safe="")


def _json_object(pairs: tuple[tuple[str, str], ...]) -> bytes:
    return msgspec.json.encode(dict(pairs))
