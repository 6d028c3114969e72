"""The tags of relations. The CRM lists a relation's tags by name, while links are by id.

A name that several tags share is ambiguous: the one that the relation holds already is meant, and where it is shown as
often as there are such tags, all are. Else it is left out: see ``ambiguous_tags``. Tags that the CRM has no more mean
nothing where a living one has their name. A name that no tag has is left out with a warning; the next snapshot of all
tags brings it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import text

from syncd.domain.records import Row, TagName
from syncd.store.engine import Connection
from syncd.store.mirror import proving
from syncd.store.mirror.membership import RELATION_TAGS, Pair, apply, compare
from syncd.store.mirror.scope import Scope, Written

_TAGS = text("""
    SELECT t.id, t.name FROM crm.tags t
    WHERE t.account_id = :account_id
      AND (t.missing_since IS NULL
           OR NOT EXISTS (SELECT FROM crm.tags o
                          WHERE o.account_id = t.account_id AND o.name = t.name AND o.missing_since IS NULL))
    ORDER BY t.missing_since NULLS FIRST, t.id
""")
_HELD = text("""
    SELECT relation_id, tag_id FROM crm.relation_tags WHERE relation_id = ANY(CAST(:ids AS bigint[]))
""")


@dataclass(frozen=True, slots=True)
class TagNames:
    """All tags of an account by name: as spelled, then trimmed, then whatever the letter case."""

    exact: Mapping[str, tuple[int, ...]]
    trimmed: Mapping[str, tuple[int, ...]]
    folded: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, tags: Sequence[tuple[int, str]]) -> TagNames:
        exact: dict[str, tuple[int, ...]] = {}
        trimmed: dict[str, tuple[int, ...]] = {}
        folded: dict[str, tuple[int, ...]] = {}
        for tag_id, name in tags:
            exact[name] = (*exact.get(name, ()), tag_id)
            trimmed[name.strip()] = (*trimmed.get(name.strip(), ()), tag_id)
            folded[name.strip().casefold()] = (*folded.get(name.strip().casefold(), ()), tag_id)
        return cls(exact, trimmed, folded)

    def candidates(self, name: str) -> tuple[int, ...]:
        """Return the tags that the name may mean, the likeliest first."""
        short = name.strip()
        return self.exact.get(name) or self.trimmed.get(short) or self.folded.get(short.casefold()) or ()

    def alike(self) -> frozenset[int]:
        """Return the tags that share their name with another, whatever the letter case."""
        return frozenset(tag for tags in self.folded.values() if len(tags) > 1 for tag in tags)


def resolve(names: Sequence[str], tags: TagNames, held: frozenset[int]) -> tuple[list[int], list[str]]:
    """Return the tag ids that a relation's tag names mean, and a warning for each name that no tag has as spelled."""
    chosen: list[int] = []
    warnings: list[str] = []
    for name in names:
        alike = tags.candidates(name)
        candidates = [tag_id for tag_id in alike if tag_id not in chosen]
        known = [tag_id for tag_id in candidates if tag_id in held]
        if names.count(name) < sum(tag_id in held for tag_id in alike):
            chosen.extend(known)  # of several that it holds one less is shown: which, nobody can tell
        elif not candidates:
            warnings.append(f"no tag is called {name!r}; it is left out until the tags are read again")
        elif known or len(candidates) == 1 or names.count(name) >= len(alike):
            chosen.append((known or candidates)[0])
        elif name not in tags.exact:
            warnings.append(f"{len(alike)} tags are called much like {name!r}; it is left out")
    return chosen, warnings


async def write(
    connection: Connection,
    scope: Scope,
    shown: Mapping[int, Sequence[Row[TagName]]],
    unsure: frozenset[int] = frozenset(),
) -> Written:
    """Write the tags of relations (by local id), each shown whole; those of ``unsure`` may hold more than was read."""
    tags = TagNames.of(
        [(row.id, row.name) for row in await connection.execute(_TAGS, {"account_id": scope.account_id})]
    )
    held: dict[int, set[int]] = {}
    for row in await connection.execute(_HELD, {"ids": list(shown)}):
        held.setdefault(row.relation_id, set()).add(row.tag_id)
    pairs: list[Pair] = []
    warnings: list[str] = []
    for relation_id, rows in shown.items():
        names = [row.record.name for row in rows]
        ids, doubts = resolve(names, tags, frozenset(held.get(relation_id, ())))
        pairs.extend((relation_id, tag_id) for tag_id in ids)
        warnings.extend(doubts)
    owned: dict[int, set[int]] = {relation_id: set() for relation_id in shown}
    for relation_id, tag_id in pairs:
        owned[relation_id].add(tag_id)
    warnings.extend(await proving.by_tags(connection, scope, owned, tags.alike(), unsure))
    found = await compare(connection, scope, RELATION_TAGS, list(shown), pairs)
    found = replace(found, gone=tuple(pair for pair in found.gone if pair[0] not in unsure))
    return (await apply(connection, scope, RELATION_TAGS, found)).warned(*warnings)
