"""The provider itself: what it can do, its rows, its streams and its conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from syncd.domain.changes import LocalChange
from syncd.providers.contract.answers import Response
from syncd.providers.contract.conversation import Conversation, Readable, ReadBack, Target
from syncd.providers.contract.endpoint import Effect, Endpoint, Place
from syncd.providers.contract.outcome import Outcome
from syncd.providers.contract.request import Request
from syncd.providers.contract.stream import Stream


class Capability(StrEnum):
    """What a CRM can do. A provider declares its set and refuses the rest loudly."""

    RELATIONS_WRITE = "relations_write"
    EMAIL_CHANGE = "email_change"
    TAGS_WRITE = "tags_write"
    FIELDS_WRITE = "fields_write"
    FIELDS_READ = "fields_read"
    FIELDS_CREATE = "fields_create"
    GROUPS_WRITE = "groups_write"
    LISTS_SUBSCRIBE = "lists_subscribe"
    SUBSCRIPTIONS_END = "subscriptions_end"
    ORDERS = "orders"
    INVOICES = "invoices"


@dataclass(frozen=True, slots=True)
class Auth:
    """Credentials in the form the wire wants them. ``repr`` shows names only: values are secrets."""

    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Auth(query={sorted(self.query)}, headers={sorted(self.headers)})"

    def secrets(self) -> frozenset[str]:
        """Return the values that must never be seen outside a request."""
        return frozenset(value for value in (*self.query.values(), *self.headers.values()) if value)


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """What settings may change about a provider.

    ``verbs`` and ``places`` override single write operations; ``allowed_operations`` names the local changes that mail
    people, record consent or end subscriptions and are nevertheless allowed; ``time_zone`` is the zone of naive times.
    ``verify_writes`` asks for a read after each write that can be read back; ``auth_error_texts`` are further texts by
    which an error means refused credentials; ``administration`` is the remote id of the account itself, where the CRM
    can only be asked for it by id.
    """

    verbs: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    allowed_operations: frozenset[str] = frozenset()
    time_zone: str = "Europe/Amsterdam"
    full_payload: bool = False
    verify_writes: bool = False
    auth_error_texts: tuple[str, ...] = ()
    administration: str | None = None


class Provider(Protocol):
    """One CRM behind the contract. Instances are immutable and hold no credentials."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def endpoints(self) -> Mapping[str, Endpoint]: ...

    @property
    def streams(self) -> Mapping[str, Stream]: ...

    def auth(self, credentials: Mapping[str, str]) -> Auth:
        """Turn an account's credentials (setting name without prefix -> value) into what the wire wants."""

    def effect(self, change: LocalChange) -> Effect:
        """Return what repeating the delivery of this change would do."""

    def call(self, change: LocalChange) -> Endpoint:
        """Return the row of the write that delivers a change; reads before and after it are the conversation's own."""

    def converse(self, change: LocalChange, target: Target) -> Conversation:
        """Start the conversation that delivers a change."""

    def readable(self, change: LocalChange) -> Readable:
        """Return how a delivered change can be seen: all of it, not a part."""

    def read_back(self, change: LocalChange, target: Target) -> ReadBack:
        """Start the conversation that reads what the CRM shows of a delivered change; it never writes."""

    def probe(self) -> Request:
        """Return a safe, cheap, signed read that proves that the credentials work."""

    def liveness(self) -> Request | None:
        """Return a secret-free read that proves that the API answers at all, if the CRM has one."""

    def judge(self, response: Response, operation: str) -> Outcome | None:
        """Classify an answer to a read: None when it is a success to decode, else the outcome it stands for."""

    def judge_whole(self, response: Response, operation: str) -> Outcome | None:
        """As ``judge``, for an answer small enough to be read whole: None only if it is what the read should show."""


def is_repeat_safe(provider: Provider, change: LocalChange) -> bool:
    """Tell whether delivering a change twice does no more than delivering it once."""
    return provider.effect(change).is_repeat_safe
