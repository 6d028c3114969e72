"""Fetch: one collection's answer, page by page, complete on disk before anything reads it.

No transaction is open while this waits. Whatever keeps the answer from being read is a ``Trouble``, with what it
means for the run, the stream and the account.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import assert_never

from syncd.inbound.context import Context, Progress
from syncd.providers.contract import (
    Answer,
    Answered,
    MaybeApplied,
    NotSent,
    Outcome,
    Rejected,
    Request,
    Response,
    Retryable,
    SinglePage,
    Stream,
    StreamArguments,
    StreamKind,
    Throttled,
    Unauthorised,
)
from syncd.store.mirror.scope import NOTHING, Written
from syncd.store.runs import UNREACHED

_NO_SEGMENT = frozenset({".", ".."})


@dataclass(frozen=True, slots=True)
class Fetched:
    """All pages of an answer. They are readable until the stack that they were fetched on closes."""

    responses: tuple[Response, ...]
    size_bytes: int

    @property
    def requests(self) -> int:
        return len(self.responses)

    def share_read(self) -> float | None:
        """Return how much of it has been decoded, from 0 to 1; None of an answer that is small."""
        spools = [page.spool for page in self.responses if page.spool is not None]
        return min(1.0, sum(spool.tell() for spool in spools) / self.size_bytes) if spools else None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer. ``is_unauthorised``: the credentials are refused. ``is_unreachable``: the host is the
    trouble, so asking for the next thing is pointless. ``throttled_s``: the CRM asked us to wait. ``is_absent``: the
    thing asked for does not exist; ``is_gone``: nor does anything else there. ``may_retry`` is false when asking again
    soon will not help; where there were no ``requests`` it never will. ``written`` is what had been written before
    it."""

    reason: str
    requests: int = 1
    is_unauthorised: bool = False
    is_unreachable: bool = False
    throttled_s: float | None = None
    is_absent: bool = False
    is_gone: bool = False
    may_retry: bool = True
    written: Written = NOTHING

    @property
    def is_fault(self) -> bool:
        return self.is_unauthorised or self.is_unreachable or self.is_gone

    @property
    def is_passing(self) -> bool:
        """Whether the very same question may well be answered later."""
        return self.may_retry and not self.is_unauthorised and not self.is_absent

    @property
    def ends_the_run(self) -> bool:
        return self.is_fault or self.throttled_s is not None

    def is_news_at(self, attempts: int) -> bool:
        """Tell whether it says more than the ``attempts`` before it: a refusal that is repeated says nothing new."""
        return self.may_retry or attempts == 0


async def fetch(
    context: Context,
    stream: Stream,
    arguments: StreamArguments,
    stack: AsyncExitStack,
    *,
    most_bytes: int | None = None,
) -> Fetched | Trouble:
    """Ask for a collection, all its pages; their files close with ``stack``. ``most_bytes`` bounds each page."""
    if arguments.key in _NO_SEGMENT:
        return Trouble(f"{arguments.key} cannot be asked for: in a path it means another place", 0, may_retry=False)
    pages: list[Response] = []
    request: Request | None = stream.paginator.first(stream.request(arguments))
    while request is not None:
        if len(pages) >= context.policy.pages:
            return Trouble(f"the answer has more than {context.policy.pages} pages", len(pages))
        if context.give_way is not None:
            await context.give_way()
        answer = await stack.enter_async_context(
            context.transport.download(
                request, timeout_s=context.policy.time_limit_s, most_bytes=most_bytes, on_bytes=_told(context, stream)
            )
        )
        response = judged(context, stream.operation, answer, len(pages) + 1)
        if isinstance(response, Trouble):
            return response
        pages.append(response)
        request = stream.paginator.after(request, response, _count(stream, response))
    # Measured here, once: whoever moves a file's position later robs the decoder of its place.
    return Fetched(tuple(pages), sum(len(page.body) or _spooled(page) for page in pages))


def _told(context: Context, stream: Stream) -> Callable[[int], None] | None:
    """Return who hears of the bytes of an answer that may take long; those that are one of many are counted anyway."""
    if context.on_progress is None or stream.kind is not StreamKind.WINDOW:
        return None
    return lambda received: context.tell(Progress(stream.name, 0, received, is_receiving=True))


def judged(context: Context, operation: str, answer: Answer, requests: int = 1) -> Response | Trouble:
    """Return the answer's response when it is a success to decode, else the trouble it stands for."""
    match answer:
        case Answered():
            outcome = context.provider.judge(answer.response, operation)
            return answer.response if outcome is None else _trouble(context, outcome, requests)
        case NotSent():
            return Trouble(f"{UNREACHED}: {answer.reason}", requests, is_unreachable=True)
        case MaybeApplied():
            return Trouble(f"no complete answer came: {answer.reason}", requests)
        case _:
            assert_never(answer)


def _trouble(context: Context, outcome: Outcome, requests: int) -> Trouble:
    match outcome:
        case Unauthorised():
            return Trouble(outcome.reason, requests, is_unauthorised=True)
        case Throttled():
            wait_s = context.policy.throttle_s if outcome.retry_after_s is None else outcome.retry_after_s
            return Trouble(outcome.reason, requests, throttled_s=wait_s)
        case Rejected():
            return Trouble(outcome.reason, requests, is_absent=outcome.is_absent, may_retry=False)
        case Retryable():
            return Trouble(outcome.reason, requests)
        case _:
            return Trouble(f"the answer was judged {type(outcome).__name__}", requests)


def _count(stream: Stream, response: Response) -> int:
    """Count a page's records for its paginator; an answer that comes whole needs no count."""
    if isinstance(stream.paginator, SinglePage):
        return 0
    return sum(len(batch.rows) for batch in stream.decode(response))


def _spooled(response: Response) -> int:
    if response.spool is None:
        return 0
    return response.spool.seek(0, 2)
