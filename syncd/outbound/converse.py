"""Converse: drive a provider's conversation over the transport, under a deadline that the lease covers.

It sends what the conversation yields and gives the answer back; it never interprets one. It never starts a request
that cannot end before the deadline. A conversation that runs out of time before any write went out was not begun as
far as the CRM can tell; one that ran out after a write is unknown.

A refusal is not believed on its word: a host that has gone, moved or closed for maintenance refuses everything, with a
404 or whatever else, and would kill the outbox entry by entry. So a safe read is sent after it (one read more for each
refused entry), and unless that is answered as it should be, the refusal was the account's trouble.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from syncd.clock import Clock
from syncd.domain.changes import LocalChange
from syncd.log import redact
from syncd.outbound.pace import Pace
from syncd.providers.contract import (
    Answered,
    Contested,
    Delivered,
    Effect,
    MaybeApplied,
    NotSent,
    Outcome,
    Provider,
    Rejected,
    Request,
    Retryable,
    Target,
    Throttled,
    Unauthorised,
    Unknown,
    is_repeat_safe,
)
from syncd.transport import Transport

# A request that has less time than this, or than a quarter of the whole, is not started.
LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """What a conversation runs on. ``reads`` names the operations that change nothing."""

    provider: Provider
    transport: Transport
    clock: Clock
    pace: Pace
    reads: AbstractSet[str]

    @classmethod
    def to(cls, provider: Provider, transport: Transport, clock: Clock, pace: Pace) -> Line:
        """Open the line to a provider, whose rows say what only reads."""
        reads = frozenset(name for name, row in provider.endpoints.items() if row.effect is Effect.SAFE)
        return cls(provider, transport, clock, pace, reads)

    def is_repeat_safe(self, change: LocalChange) -> bool:
        """Tell whether delivering a change twice does no more than delivering it once."""
        return is_repeat_safe(self.provider, change)


@dataclass(slots=True)
class Talk:
    """What a conversation came to. ``outcome`` is None when it was not begun as far as the CRM can tell."""

    started_at: datetime
    outcome: Outcome | None = None
    requests: int = 0
    status: int | None = None
    elapsed_s: float = 0.0
    has_written: bool = False


async def converse(
    line: Line, change: LocalChange, target: Target, deadline: float, may_go: Callable[[Request], Awaitable[bool]]
) -> Talk:
    """Hold the conversation that delivers a change, to its end or to the deadline (monotonic seconds).

    ``may_go`` is asked right before each request; it says no when the lane is somebody else's by now: then it ends.
    """
    clock = line.clock
    talk, started = Talk(clock.now()), clock.monotonic()
    latest = deadline - min(LEAST_S, (deadline - started) / 4)
    try:
        conversation = line.provider.converse(change, target)
        request = next(conversation)
        while (
            await _may_send(line, latest, is_first=talk.requests == 0)
            and await may_go(request)
            and clock.monotonic() <= latest
        ):
            request = conversation.send(await _exchange(line, request, talk, deadline))
        conversation.close()
        talk.outcome = _cut_short(talk)
    except StopIteration as end:
        talk.outcome = end.value
    except Exception as error:  # noqa: BLE001 - the boundary: a conversation's bug must cost its own entry only
        talk.outcome = _broken(talk.has_written or target.is_repeat, error)
    if isinstance(talk.outcome, Unauthorised | Rejected) and is_the_crms(talk):
        talk.outcome = await _checked(line, talk, talk.outcome, deadline, latest)
    talk.elapsed_s = clock.monotonic() - started
    return talk


async def _may_send(line: Line, latest: float, *, is_first: bool = False) -> bool:
    """Wait for the turn, if the rate is bound; return False when the time left would not cover a request.

    With many workers and a low rate, one that would begin late leaves the turns to those that have begun.
    """
    left_s = latest - line.clock.monotonic()
    wait_s = line.pace.turn_s(left_s / 4 if is_first else left_s)
    if wait_s is None:
        await line.clock.sleep(max(0.0, min(LEAST_S, left_s)))
        return False
    if wait_s > 0:
        await line.clock.sleep(wait_s)
    return line.clock.monotonic() <= latest


async def _exchange(line: Line, request: Request, talk: Talk, deadline: float) -> Answered | NotSent | MaybeApplied:
    answer = await line.transport.send(request, timeout_s=deadline - line.clock.monotonic())
    talk.requests += 1
    match answer:
        case Answered():
            talk.status = answer.response.status
        case MaybeApplied():
            talk.status = answer.status
        case NotSent():
            return answer
    talk.has_written = talk.has_written or request.operation not in line.reads
    return answer


def is_the_crms(talk: Talk) -> bool:
    """Tell whether a refusal came from the CRM, rather than from a rule of ours."""
    return talk.requests > 0 and not (isinstance(talk.outcome, Rejected) and talk.outcome.is_ours)


async def _checked(line: Line, talk: Talk, refused: Unauthorised | Rejected, deadline: float, latest: float) -> Outcome:
    """Return what a refusal is worth beside a safe read sent after it.

    A refusal of one call alone is its entry's trouble: an entry with refused credentials, always first, would else
    stop all others. A refusal that the read shares is the account's.
    """
    if not await _may_send(line, latest):
        return refused if isinstance(refused, Unauthorised) else Retryable(f"{refused.reason}; no time to check that")
    talk.requests += 1
    trouble = await ask_after(line, deadline - line.clock.monotonic(), is_in_turn=True)
    if isinstance(refused, Unauthorised):
        return Retryable(f"{refused.reason}; other calls are answered") if trouble is None else refused
    match trouble:
        case None:
            return refused
        case Throttled() | Unauthorised():
            return trouble
        case _:
            return Retryable(f"{refused.reason}; a plain read fails as well: {trouble.reason}")


Trouble: TypeAlias = Retryable | Throttled | Unauthorised | Rejected | Unknown


async def ask_after(line: Line, within_s: float, *, is_in_turn: bool = False) -> Trouble | None:
    """Read something safe; return None when the account works, else what is the matter with it."""
    until = line.clock.monotonic() + within_s
    if not is_in_turn and not await _may_send(line, until):
        return Retryable("its turn would have come too late")
    request = line.provider.probe()
    answer = await line.transport.send(request, timeout_s=until - line.clock.monotonic())
    if not isinstance(answer, Answered):
        return Retryable(f"{request.operation}: {answer.reason}")
    outcome = line.provider.judge_whole(answer.response, request.operation)
    return None if isinstance(outcome, Delivered | Contested) else outcome


def _cut_short(talk: Talk) -> Outcome | None:
    return Unknown("time ran out between two requests of one change") if talk.has_written else None


def _broken(may_be_applied: bool, error: Exception) -> Outcome:
    reason = redact(f"the conversation broke off: {type(error).__name__}: {error}")[:300]
    return Unknown(reason) if may_be_applied else Rejected(reason)
