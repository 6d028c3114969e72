"""Doubting: an answer that would do more to what is known than anybody believes waits for a person.

Nothing is asked here: a ``Doubted`` is raised inside the writing transaction, so that all of it is undone, and the
boundary of the run writes the question down. What a person has allowed is let through, up to what was shown and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from syncd.domain.doubts import Doubt, DoubtKind
from syncd.inbound.context import Context, NotBelieved
from syncd.policy.rewrite import is_too_much
from syncd.policy.states import RunHoldStatus, RunStatus
from syncd.store import Connection, run_holds, shapes
from syncd.store.mirror import Scope, Written
from syncd.store.mirror.touched import known_of, touched
from syncd.store.runs import Ending, Run

_NONE = Doubt(DoubtKind.REWRITE, 0)
_ALLOWED = Doubt(DoubtKind.LACKING, 0)


class TooMuch(NotBelieved):
    """Raised to roll back a part that is only rehearsed."""


class Doubted(NotBelieved):
    """Raised to roll back what a person must be asked about first."""

    def __init__(self, doubt: Doubt) -> None:
        super().__init__(f"{doubt.sentence}: not believed, nothing was written")
        self.doubt = doubt


def absence(known: int, gone: int, received: int) -> Doubt:
    """Return the doubt of an answer that lacks known rows."""
    return Doubt(DoubtKind.LACKING if received else DoubtKind.EMPTIED, known, missing=gone)


async def believe(connection: Connection, run: Run, doubt: Doubt) -> None:
    """Go on if a person has allowed as much; else raise Doubted."""
    if not await run_holds.permits(connection, run, doubt):
        raise Doubted(doubt)


async def believe_rewrite(
    context: Context, connection: Connection, scope: Scope, run: Run, written: Written, absent: int = 0
) -> None:
    """Judge all that a run would do, before it is committed. ``absent`` rows are gone by a person's word already."""
    rule = context.policy.rewrite
    if written.updated + written.missing <= rule.rows:
        return
    doubt = await touched(connection, scope)
    doubt = replace(doubt, known=written.unchanged + written.updated + written.missing)
    if is_too_much(doubt.rewritten + doubt.missing - absent, doubt.known, rule):
        await believe(connection, run, doubt)


def ending(doubted: Doubted) -> Ending:
    """Return how a run ends whose answer was doubted as a whole."""
    doubt = doubted.doubt
    status = RunStatus.HELD if doubt.kind is DoubtKind.REWRITE else RunStatus.REFUSED
    return Ending(status, requests=1, reason=str(doubted), doubt=doubt)


@dataclass(slots=True)
class Misgivings:
    """What a sweep of ``parents``, written part by part, has come to so far.

    ``done`` is what it has committed, ``undone`` what it would have done beyond that: once one part was too much, all
    later ones are only rehearsed, so that the question shows the whole. ``lacking`` is what whole answers lacked and
    nobody believed, ``allowed`` what a person had let through of that; ``may_empty``: all of it.
    """

    run: Run
    parents: Sequence[int]
    done: Doubt = _NONE
    undone: Doubt | None = None
    lacking: Doubt | None = None
    allowed: Doubt = _ALLOWED
    may_empty: bool = False

    async def believe_absence(self, connection: Connection, doubt: Doubt) -> None:
        """Go on with an answer that lacks known rows if a person has allowed as much in all; else raise Doubted."""
        if self.may_empty:
            return
        total = self.allowed + doubt
        try:
            await believe(connection, self.run, total)
        except Doubted:
            self.lacking = doubt if self.lacking is None else self.lacking + doubt
            raise Doubted(doubt) from None
        self.allowed = total

    async def believe_rewrite(self, context: Context, connection: Connection, scope: Scope) -> Doubt:
        """Judge what a part would do, with all before it; return what it comes to, for when it is committed.

        Raises TooMuch when it is only rehearsed.
        """
        part = await touched(connection, scope)
        total = (self.done if self.undone is None else self.undone) + part
        too_many = total.rows - self.allowed.missing
        if self.undone is None and too_many > context.policy.rewrite.rows:
            total = replace(total, known=await known_of(connection, scope.account_id, self.run.stream, self.parents))
            if not is_too_much(too_many, total.known, context.policy.rewrite):
                return replace(total, known=0)
        elif self.undone is None:
            return total
        if await run_holds.permits(connection, self.run, total):
            return replace(total, known=0)
        self.undone = total
        raise TooMuch("it would do more than it may: rehearsed only")

    @property
    def doubt(self) -> Doubt | None:
        """What to ask a person about, if anything."""
        if self.undone is not None and self.lacking is not None:
            return self.undone + self.lacking
        return self.undone or self.lacking


async def asked(connection: Connection, run: Run, ending: Ending) -> Ending:
    """Ask what a run ended in doubt about, and let its reason say how a person may answer.

    Answers of another form are no question, but an incident until one is of the form that is known.
    """
    if ending.has_new_shape:
        await shapes.tell_envelope(connection, run, ending.reason or "", ending.record)
    if ending.doubt is None:
        return ending
    if not ending.doubt.may_approve:
        await run_holds.tell(connection, run, ending.doubt)
        return ending
    status = await run_holds.ask(connection, run, ending.doubt)
    if status is RunHoldStatus.REJECTED:
        advice = f"it was rejected; if it is right after all: `syncd runs approve {run.stream}`"
    else:
        advice = f"if it is right: `syncd runs approve {run.stream}`, if not: `syncd runs reject {run.stream}`"
    return replace(ending, reason=f"{ending.reason}; {advice}")
