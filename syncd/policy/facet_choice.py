"""Which facet does somebody mean? As it is stored (``tag:5``) or as people say it (``tag:VIP``, ``last_name``).

What is stored wins over what is called so, exact spelling over any letter case, and a name over the CRM's own number.
It never guesses between two kinds of thing: it says what there is to choose from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import msgspec

from syncd.domain.changes import PROFILE_COLUMNS

# Columns that the CRM alone writes.
_READ_ONLY = ("funnel_state",)
COLUMNS = ("email", *PROFILE_COLUMNS, *_READ_ONLY)
_WHOLE = ("identity", "profile")
_BY_NUMBER = ("subscription", "new_field")
_LIKE = 0.55


class NamedFacet(msgspec.Struct, frozen=True):
    """A tag, field, group or list that there is; ``others`` are further names (a code, the remote id)."""

    kind: str
    id: int
    name: str | None
    others: tuple[str, ...] = ()

    @property
    def stored(self) -> str:
        return f"{self.kind}:{self.id}"


class Choice(msgspec.Struct, frozen=True):
    """``facets`` as stored, none for what only the CRM writes; ``column`` narrows to one column of the relation."""

    facets: tuple[str, ...]
    column: str | None = None


class Unclear(msgspec.Struct, frozen=True):
    """Why nothing was chosen, in one clause, with what may have been meant."""

    reason: str


def choose(said: str, named: Sequence[NamedFacet]) -> Choice | Unclear:
    """Return the facet that is meant."""
    said = said.strip()
    kind, colon, rest = said.partition(":")
    if said in _WHOLE:
        return Choice((said,))
    if said in COLUMNS:
        return Choice(_facets_of(said), said)
    if colon and kind in _BY_NUMBER and rest:
        return Choice((said,))
    there = [facet for facet in named if facet.kind == kind] if colon else list(named)
    found = _found(rest if colon else said, there, by_id=bool(colon))
    kinds = sorted({facet.kind for facet in found})
    if len(kinds) > 1:
        return Unclear(f"{said!r} may be {' or '.join(f'{each}:{said}' for each in kinds)}; say which")
    if found:
        return Choice(tuple(facet.stored for facet in found))
    return Unclear(f"there is no facet {said!r}{_advice(said, named)}")


def _facets_of(column: str) -> tuple[str, ...]:
    if column in _READ_ONLY:
        return ()
    return ("identity",) if column == "email" else ("profile", "identity")


def _found(said: str, there: Sequence[NamedFacet], *, by_id: bool) -> list[NamedFacet]:
    tries: list[list[NamedFacet]] = [
        [facet for facet in there if by_id and str(facet.id) == said],
        [facet for facet in there if (facet.name or "").strip() == said],
        [facet for facet in there if (facet.name or "").strip().casefold() == said.casefold()],
        [facet for facet in there if said in facet.others],
    ]
    return next((found for found in tries if found), [])


def _advice(said: str, named: Sequence[NamedFacet]) -> str:
    close = get_close_matches(said.casefold(), _spellings(named), n=3, cutoff=_LIKE)
    if close:
        whole = {spelling.casefold(): spelling for spelling in _spelled(named)}
        return f"; did you mean {' or '.join(dict.fromkeys(whole[each] for each in close))}?"
    return "; say profile, identity, a column, or tag:NAME, field:CODE, group:TITLE, list:NAME"


def _spellings(named: Sequence[NamedFacet]) -> list[str]:
    return [spelling.casefold() for spelling in _spelled(named)]


def _spelled(named: Iterable[NamedFacet]) -> list[str]:
    names = [f"{facet.kind}:{name}" for facet in named for name in (facet.name, *facet.others[:1]) if name]
    return [*COLUMNS, *_WHOLE, *names]
