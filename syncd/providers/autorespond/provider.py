"""The provider: the package's tables and conversations behind the contract. Immutable, without credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncd.domain.changes import LocalChange
from syncd.domain.errors import ConfigurationError
from syncd.providers.autorespond import conversations, readbacks
from syncd.providers.autorespond.endpoints import endpoints
from syncd.providers.autorespond.formats import Zone
from syncd.providers.autorespond.judgement import Judge, Said
from syncd.providers.autorespond.streams import streams
from syncd.providers.autorespond.writes.dialogue import Dialogue
from syncd.providers.contract import (
    Answered,
    Auth,
    Capability,
    Conversation,
    Effect,
    Endpoint,
    Outcome,
    Provider,
    ProviderOptions,
    Readable,
    ReadBack,
    Request,
    Response,
    Stream,
    Target,
)

CAPABILITIES = frozenset(Capability) - {Capability.FIELDS_READ}
_CREDENTIALS = ("admin", "key")


@dataclass(frozen=True, slots=True)
class Autorespond:
    """Autorespond's REST API 1.0 as the contract wants it."""

    endpoints: Mapping[str, Endpoint]
    streams: Mapping[str, Stream]
    dialogue: Dialogue
    allowed_operations: frozenset[str]
    name: str = "autorespond"
    capabilities: frozenset[Capability] = CAPABILITIES

    def auth(self, credentials: Mapping[str, str]) -> Auth:
        """Put administration and key in the query, the only place where they were seen to work."""
        missing = [name for name in _CREDENTIALS if not credentials.get(name)]
        if missing:
            raise ConfigurationError(f"Autorespond needs the credential {missing[0]!r}; it is not set.")
        return Auth(query={name: credentials[name] for name in _CREDENTIALS})

    def effect(self, change: LocalChange) -> Effect:
        return conversations.effect_of(change)

    def call(self, change: LocalChange) -> Endpoint:
        return self.endpoints[conversations.write_of(change)]

    def converse(self, change: LocalChange, target: Target) -> Conversation:
        return conversations.converse(self.dialogue, self.allowed_operations, change, target)

    def readable(self, change: LocalChange) -> Readable:
        return readbacks.readable(change)

    def read_back(self, change: LocalChange, target: Target) -> ReadBack:
        return readbacks.read_back(self.dialogue, change, target)

    def probe(self) -> Request:
        """Read the groups: one of the two calls that were seen to work, and small."""
        return self.endpoints["groups"].request()

    def liveness(self) -> Request | None:
        return self.endpoints["version"].request()

    def judge(self, response: Response, operation: str) -> Outcome | None:
        return self.dialogue.judge.refusal(response, self.endpoints[operation])

    def judge_whole(self, response: Response, operation: str) -> Outcome | None:
        reply = self.dialogue.judge.reply(Answered(response), self.endpoints[operation])
        return None if isinstance(reply, Said) else reply


def provider(options: ProviderOptions = ProviderOptions()) -> Provider:  # noqa: B008
    """Return Autorespond behind the contract. Raises ConfigurationError for options that could never work."""
    rows, zone = endpoints(options), Zone(options.time_zone)
    dialogue = Dialogue(rows, Judge(options.auth_error_texts), zone, options.full_payload, options.verify_writes)
    return Autorespond(
        endpoints=rows,
        streams=streams(rows, zone, options.administration),
        dialogue=dialogue,
        allowed_operations=options.allowed_operations,
    )
