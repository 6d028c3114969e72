"""Doubts: what an answer would do to the mirror that nobody believes unasked.

A doubt is counted, never quoted: its examples name rows and columns by our own ids, so that it may be logged, kept and
shown without a word of a person in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DoubtKind(StrEnum):
    EMPTIED = "emptied"  # the answer is empty, though rows are known that it should hold
    LACKING = "lacking"  # the answer lacks more of the known rows than may be gone
    REWRITE = "rewrite"  # the answer is whole, and changes more of what is known than a run may


@dataclass(frozen=True, slots=True)
class Doubt:
    """``known`` rows the answer spoke of; of those it would change ``rewritten`` and mark ``missing``. ``examples`` are
    a few of them: table, row id, names of columns. What nobody ``may_approve`` is no question, only an incident."""

    kind: DoubtKind
    known: int
    rewritten: int = 0
    missing: int = 0
    examples: tuple[dict[str, object], ...] = ()
    may_approve: bool = True

    @property
    def rows(self) -> int:
        """How many known rows would be touched."""
        return self.rewritten + self.missing

    def __add__(self, other: Doubt) -> Doubt:
        """Return both as one question, about the graver of the two."""
        return Doubt(
            other.kind if self.kind is DoubtKind.LACKING else self.kind,
            self.known + other.known,
            self.rewritten + other.rewritten,
            self.missing + other.missing,
            (self.examples + other.examples)[:5],
            self.may_approve and other.may_approve,
        )

    @property
    def sentence(self) -> str:
        """Say what is doubted."""
        match self.kind:
            case DoubtKind.EMPTIED:
                return f"the answer is empty, but {self.known} known rows should be in it"
            case DoubtKind.LACKING:
                return f"{self.missing} of {self.known} known rows are not in the answer"
            case DoubtKind.REWRITE:
                return (
                    f"the answer would change {self.rewritten} and mark missing {self.missing} "
                    f"of {self.known} known rows"
                )
