"""What every provider must be: the words that ``inbound`` and ``outbound`` share with all CRMs.

Written with three APIs open side by side, so that none of them is the shape of the contract:

* **Autorespond** has no paging, no ids on invoices, answers errors under 200 and names no verbs: an ``Endpoint`` is
  a row whose verb and parameter place settings may override, and decoding is tolerant but never guesses.
* **GetResponse** answers a create with 202 and shows it minutes later, replaces whole sets on a write and keeps page
  totals in headers: a ``Conversation`` may end in ``Delivered(proof=ACCEPTED)`` without a remote id, may read before
  it writes, a ``ReadBack`` may find that it cannot tell yet, and a ``Paginator`` sees headers. Identity there is e-mail
  and campaign: ``Target.scope`` carries it.
* **UseResponse** says 204 for "nothing", wraps in two envelopes and needs read-modify-write for tags.

Nothing here performs I/O: requests, answers and outcomes are values.
"""

from syncd.providers.contract.answers import Answer, Answered, MaybeApplied, NotSent, Response
from syncd.providers.contract.conversation import Conversation, Readable, ReadBack, Target
from syncd.providers.contract.endpoint import Effect, Endpoint, Place
from syncd.providers.contract.outcome import (
    Contested,
    Delivered,
    Outcome,
    Proof,
    Rejected,
    Retryable,
    Throttled,
    Unauthorised,
    Unknown,
)
from syncd.providers.contract.paginator import Paginator, SinglePage
from syncd.providers.contract.provider import Auth, Capability, Provider, ProviderOptions, is_repeat_safe
from syncd.providers.contract.request import Request
from syncd.providers.contract.stream import Decoded, Peeked, Stream, StreamArguments, StreamKind

__all__ = [
    "Answer",
    "Answered",
    "Auth",
    "Capability",
    "Contested",
    "Conversation",
    "Decoded",
    "Delivered",
    "Effect",
    "Endpoint",
    "MaybeApplied",
    "NotSent",
    "Outcome",
    "Paginator",
    "Peeked",
    "Place",
    "Proof",
    "Provider",
    "ProviderOptions",
    "ReadBack",
    "Readable",
    "Rejected",
    "Request",
    "Response",
    "Retryable",
    "SinglePage",
    "Stream",
    "StreamArguments",
    "StreamKind",
    "Target",
    "Throttled",
    "Unauthorised",
    "Unknown",
    "is_repeat_safe",
]
