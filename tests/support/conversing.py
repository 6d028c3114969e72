"""Holds a conversation with a list of answers, as ``outbound`` would with a CRM, and keeps what was asked."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.domain.changes import LocalChange
from syncd.providers.contract import Answer, Answered, Outcome, Provider, Request, Response, Target


@dataclass(frozen=True)
class Held:
    """How a conversation ended, and the requests it made."""

    outcome: Outcome
    requests: tuple[Request, ...]

    @property
    def operations(self) -> list[str]:
        return [request.operation for request in self.requests]


class Unanswered(AssertionError):
    """The conversation asked for more than the test had answers."""


def answer(body: bytes | str, status: int = 200, **headers: str) -> Answer:
    """A complete answer; header names are given with underscores."""
    content = body.encode() if isinstance(body, str) else body
    return Answered(Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content))


def hold(provider: Provider, change: LocalChange, target: Target, *answers: Answer | str | bytes) -> Held:
    """Answer each request in turn (a text means 200 with that body) until the conversation returns."""
    conversation = provider.converse(change, target)
    requests: list[Request] = []
    waiting = list(answers)
    given: Answer | None = None
    while True:
        try:
            request = next(conversation) if given is None else conversation.send(given)
        except StopIteration as end:
            assert not waiting, f"the conversation ended and {len(waiting)} answers are left"
            return Held(end.value, tuple(requests))
        requests.append(request)
        if not waiting:
            raise Unanswered(f"after {[asked.operation for asked in requests]}")
        given = _given(waiting.pop(0))


def _given(given: Answer | str | bytes) -> Answer:
    return answer(given) if isinstance(given, (str, bytes)) else given


def target(remote_id: str | None = "7", email: str | None = "a@b.nl", *, is_repeat: bool = False) -> Target:
    """A relation that the mirror knows by id and address, unless said otherwise."""
    return Target(remote_id, email, is_repeat=is_repeat)
